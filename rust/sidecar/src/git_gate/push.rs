//! What does this push ask for? The refs with their old and new ids, as git told the hook.

use std::collections::HashMap;
use std::io::Read;

use bot_bottle_store::{sha256_hex, visible};

use super::git::{answer, text};
use super::{Outcome, Refusal};

/// More refs than so many are told by their number and a hash over all of them.
const REFS_TOLD: usize = 2_000;
/// So many refs are named in one sentence.
const REFS_NAMED: usize = 20;

/// One ref that is to change. Ids are hex; `None` is a ref that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub old: Option<String>,
    pub new: Option<String>,
    pub name: Vec<u8>,
}

/// For each ref that is moved elsewhere than forward: how many commits it loses.
pub type Forced = HashMap<Vec<u8>, u64>;

/// All that one push changes.
pub struct Push {
    pub repository: String,
    pub updates: Vec<Update>,
}

impl Push {
    /// As git gives it to pre-receive on standard input: lines of old id, new id and ref, which has no newline.
    pub fn read(repository: String, mut input: impl Read) -> Outcome<Self> {
        let mut lines = Vec::new();
        input.read_to_end(&mut lines).map_err(|error| Refusal::new(format!("git was not heard: {error}")))?;
        let updates: Option<Vec<Update>> =
            lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(Update::parse).collect();
        match updates {
            Some(updates) if !updates.is_empty() => Ok(Push { repository, updates }),
            _ => Err(Refusal::new("this hook only works within a push; it was not told of any ref")),
        }
    }

    /// Ids of what the refs are to be, without those that go.
    pub fn tips(&self) -> impl Iterator<Item = &str> {
        self.updates.iter().filter_map(|update| update.new.as_deref())
    }

    /// The first ref of a kind that is not passed on to an upstream.
    pub fn stray(&self) -> Option<&[u8]> {
        let passed: [&[u8]; 3] = [b"refs/heads/", b"refs/tags/", b"refs/notes/"];
        let strays = |update: &&Update| !passed.iter().any(|kind| update.name.starts_with(kind));
        self.updates.iter().find(strays).map(|update| update.name.as_slice())
    }

    /// In one sentence: where it goes and how much it is.
    pub fn sentence(&self, commits: usize, forced: &Forced) -> String {
        let named: Vec<String> =
            self.updates.iter().take(REFS_NAMED).map(|update| text(&update.name) + update.remark(forced)).collect();
        let mut sentence = format!("a push to {}", named.join(", "));
        if self.updates.len() > REFS_NAMED {
            sentence += &format!(" and {} more", self.updates.len() - REFS_NAMED);
        }
        sentence += &format!(" of {}", self.repository);
        match commits {
            0 => sentence,
            1 => sentence + ", 1 new commit",
            _ => sentence + &format!(", {commits} new commits"),
        }
    }

    /// A line for each ref with all that an approval is about. Two pushes with the same lines are the same push.
    pub fn lines(&self, commits: usize, forced: &Forced) -> Vec<String> {
        let mut lines: Vec<String> = self.updates.iter().map(|update| update.line(forced)).collect();
        if lines.len() > REFS_TOLD {
            let all = sha256_hex(lines.join("\n").as_bytes());
            lines.truncate(REFS_TOLD);
            lines.push(format!("and {} more refs; SHA-256 over all lines: {all}", self.updates.len() - REFS_TOLD));
        }
        lines.push(match commits {
            1 => "1 new commit".to_owned(),
            _ => format!("{commits} new commits"),
        });
        lines
    }

    /// What is moved elsewhere than forward.
    pub fn forced(&self) -> Forced {
        let mut forced = Forced::new();
        for update in self.updates.iter().take(REFS_TOLD) {
            let (Some(old), Some(new)) = (&update.old, &update.new) else { continue };
            let (from, to) = (format!("{old}^{{}}"), format!("^{new}^{{}}"));
            // What a tag names may be no commit; then it is moved, and loses none that could be counted.
            let lost = answer(["rev-list", "--count", &from, &to], Vec::new()).unwrap_or_default();
            let lost: u64 = text(&lost).trim().parse().unwrap_or(0);
            if lost > 0 || !update.name.starts_with(b"refs/heads/") {
                forced.insert(update.name.clone(), lost);
            }
        }
        forced
    }
}

impl Update {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let id = |part: &[u8]| -> Option<Option<String>> {
            let hex = part.len() >= 40 && part.iter().all(u8::is_ascii_hexdigit);
            hex.then(|| part.iter().any(|byte| *byte != b'0').then(|| text(part)))
        };
        let (old, new) = (id(parts.next()?)?, id(parts.next()?)?);
        Some(Update { old, new, name: parts.next().filter(|name| !name.is_empty())?.to_vec() })
    }

    /// For git's own line protocols.
    pub fn from_line(line: &[u8]) -> Option<Self> {
        Self::parse(line.strip_suffix(b"\n").unwrap_or(line))
    }

    /// What a list of names has to say besides the name.
    fn remark(&self, forced: &Forced) -> &'static str {
        match (&self.new, forced.get(&self.name)) {
            (None, _) => " (deleted)",
            (_, Some(0)) => " (moved)",
            (_, Some(_)) => " (forced)",
            _ => "",
        }
    }

    fn line(&self, forced: &Forced) -> String {
        let name = visible(&text(&self.name), false).into_owned();
        match (&self.old, &self.new) {
            (None, Some(new)) => format!("{name}: new at {new}"),
            (Some(old), None) => format!("{name}: deleted, was at {old}"),
            (Some(old), Some(new)) => {
                let how = match forced.get(&self.name) {
                    None => String::new(),
                    Some(0) => ", moved".to_owned(),
                    Some(1) => ", FORCED: 1 commit is dropped".to_owned(),
                    Some(lost) => format!(", FORCED: {lost} commits are dropped"),
                };
                format!("{name}: from {old} to {new}{how}")
            }
            (None, None) => format!("{name}: not there, and deleted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lines: &str) -> Outcome<Push> {
        Push::read("app.git".to_owned(), lines.as_bytes())
    }

    #[test]
    fn a_ref_may_have_any_byte_but_a_newline() {
        let (old, new) = ("0".repeat(40), "a".repeat(40));
        let push = push(&format!("{old} {new} refs/heads/a b\t\u{fc}\n")).expect("a push");
        assert_eq!(push.updates[0].name, "refs/heads/a b\t\u{fc}".as_bytes());
        assert_eq!((push.updates[0].old.as_deref(), push.updates[0].new.as_deref()), (None, Some(new.as_str())));
        assert_eq!(push.sentence(2, &Forced::new()), "a push to refs/heads/a b\t\u{fc} of app.git, 2 new commits");
    }

    #[test]
    fn what_is_no_push_is_refused() {
        for lines in
            ["", "\n", "x y z\n", &format!("{0} {0}\n", "a".repeat(40)), &format!("{0} {0} \n", "a".repeat(40))]
        {
            assert!(push(lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn refs_of_other_kinds_are_strays() {
        let line = |name: &str| format!("{0} {0} {name}\n", "a".repeat(40));
        assert_eq!(push(&line("refs/tags/v1")).expect("a push").stray(), None);
        assert_eq!(push(&line("refs/changes/1")).expect("a push").stray(), Some(&b"refs/changes/1"[..]));
    }
}
