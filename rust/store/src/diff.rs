//! How are two texts compared, by hash and by line?

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use similar::{ChangeTag, DiffOp, TextDiff};

/// A hostile pair of texts must not hold up the operator; past it a diff is coarser, never wrong.
const PATIENCE: Duration = Duration::from_millis(500);
/// Lines that were replaced are compared word by word up to so many bytes of them: beyond, nobody looks for the word.
const MAX_INTRALINE_BYTES: usize = 16 << 10;
const CONTEXT_LINES: usize = 3;

/// SHA-256 as 64 lower-case hex digits.
pub fn sha256_hex(data: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(data.as_ref()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Unified diff with three lines of context and headers `--- a/label`, `+++ b/label`; empty if the texts are equal.
pub fn render_diff(before: &str, after: &str, label: &str) -> String {
    if before == after {
        return String::new();
    }
    TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&format!("a/{label}"), &format!("b/{label}"))
        .to_string()
}

/// A place where two texts differ, with three lines around it. Lines count from 1, as in a unified diff's header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // named and explained in the Python stub
pub struct Hunk {
    pub before_line: usize,
    pub before_lines: usize,
    pub after_line: usize,
    pub after_lines: usize,
    pub parts: Vec<Part>,
}

/// Lines in a row that both texts have, or only one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// `same`, `removed` or `added`.
    pub kind: String,
    /// The lines with their ends. Only a text's last line may have none.
    pub text: String,
    /// What differs within lines that were replaced: beginning and end, in characters of `text`.
    pub changed: Vec<(usize, usize)>,
}

/// Where `before` and `after` differ, in bounded time and linear space.
pub(crate) fn hunks(before: &str, after: &str) -> Vec<Hunk> {
    let deadline = Instant::now() + PATIENCE;
    let diff = TextDiff::configure().deadline(deadline).diff_lines(before, after);
    // Otherwise one hunk without a line is made of two equal texts.
    let groups = diff.grouped_ops(CONTEXT_LINES).into_iter().filter(|ops| !ops.is_empty());
    groups
        .map(|ops| {
            let (first, last) = (&ops[0], &ops[ops.len() - 1]);
            let (old, new) =
                (first.old_range().start..last.old_range().end, first.new_range().start..last.new_range().end);
            let line = |range: &std::ops::Range<usize>| range.start + usize::from(!range.is_empty());
            Hunk {
                before_line: line(&old),
                before_lines: old.len(),
                after_line: line(&new),
                after_lines: new.len(),
                parts: ops.iter().flat_map(|op| parts(&diff, op, deadline)).collect(),
            }
        })
        .collect()
}

fn parts(diff: &TextDiff<'_, '_, str>, op: &DiffOp, deadline: Instant) -> Vec<Part> {
    let size = |lines: &mut dyn Iterator<Item = &str>| lines.map(str::len).sum::<usize>();
    let replaced = matches!(op, DiffOp::Replace { .. })
        && size(&mut op.old_range().filter_map(|line| diff.old_slice(line)))
            + size(&mut op.new_range().filter_map(|line| diff.new_slice(line)))
            <= MAX_INTRALINE_BYTES;
    let mut growing = Growing { parts: Vec::new(), chars: 0 };
    if replaced {
        for change in diff.iter_inline_changes_deadline(op, Some(deadline)) {
            // Where nothing of a line stayed, all of it is one value, and marking it would say nothing.
            let marks = change.values().len() > 1;
            for &(changed, text) in change.values() {
                growing.push(change.tag(), text, changed && marks);
            }
        }
    } else {
        for change in diff.iter_changes(op) {
            growing.push(change.tag(), change.value(), false);
        }
    }
    growing.parts
}

struct Growing {
    parts: Vec<Part>,
    /// Of the last part: counted as it grows, for counting each time would be quadratic.
    chars: usize,
}

impl Growing {
    fn push(&mut self, tag: ChangeTag, text: &str, changed: bool) {
        let kind = match tag {
            ChangeTag::Equal => "same",
            ChangeTag::Delete => "removed",
            ChangeTag::Insert => "added",
        };
        let grown = self.parts.pop_if(|part| part.kind == kind);
        let mut part = grown.unwrap_or_else(|| {
            self.chars = 0;
            Part { kind: kind.to_owned(), text: String::new(), changed: Vec::new() }
        });
        let start = self.chars;
        self.chars += text.chars().count();
        if changed {
            part.changed.push((start, self.chars));
        }
        part.text.push_str(text);
        self.parts.push(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_nothing_is_the_published_one() {
        assert_eq!(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    /// The text on one side of the hunks.
    fn side(hunks: &[Hunk], other: &str) -> String {
        hunks.iter().flat_map(|hunk| &hunk.parts).filter(|part| part.kind != other).map(|part| &*part.text).collect()
    }

    #[test]
    fn hunks_have_every_line_that_differs_and_mark_the_words() {
        let before = "routes:\n- host: pypi.org\n- host: b\n";
        let after = "routes:\n- host: pypi.com\n- host: b\n- host: ü\n";
        let found = hunks(before, after);
        let [hunk] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((hunk.before_line, hunk.before_lines, hunk.after_line, hunk.after_lines), (1, 3, 1, 4));
        assert_eq!((side(&found, "added"), side(&found, "removed")), (before.to_owned(), after.to_owned()));
        let marked = |part: &Part| {
            let chars: Vec<char> = part.text.chars().collect();
            part.changed.iter().map(|&(from, to)| chars[from..to].iter().collect()).collect::<Vec<String>>()
        };
        let changed: Vec<_> = hunk.parts.iter().map(|part| (&*part.kind, marked(part))).collect();
        assert_eq!(changed[1..3], [("removed", vec!["pypi.org".to_owned()]), ("added", vec!["pypi.com".to_owned()])]);
        assert_eq!(
            changed.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
            ["same", "removed", "added", "same", "added"]
        );
    }

    #[test]
    fn hunks_of_equal_new_and_emptied_texts_count_as_a_unified_diff_does() {
        assert_eq!(hunks("same\n", "same\n"), []);
        let counts = |before, after| {
            let hunk = &hunks(before, after)[0];
            (hunk.before_line, hunk.before_lines, hunk.after_line, hunk.after_lines)
        };
        assert_eq!(counts("", "a\nb"), (0, 0, 1, 2));
        assert_eq!(counts("a\nb", ""), (1, 2, 0, 0));
    }

    #[test]
    fn hunks_of_a_mebibyte_of_newlines_are_as_large_as_it() {
        let found = hunks("a\n", &"\n".repeat(1 << 20));
        assert_eq!(found.len(), 1);
        assert!(found[0].parts.len() <= 3, "{}", found[0].parts.len());
        assert_eq!(side(&found, "removed").len(), 1 << 20);
    }

    #[test]
    fn diff_names_both_sides_and_marks_a_missing_newline() {
        let diff = render_diff("a\nb\n", "a\nc", "routes.yaml");
        assert!(diff.starts_with("--- a/routes.yaml\n+++ b/routes.yaml\n@@"), "{diff}");
        assert!(diff.contains("-b\n+c\n\\ No newline at end of file"), "{diff}");
        assert_eq!(render_diff("same", "same", "x"), "");
    }
}
