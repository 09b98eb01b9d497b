//! How are two texts compared, by hash and by line?

use sha2::{Digest, Sha256};
use similar::TextDiff;

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
        // A hostile pair of texts must not hold up the operator; past the deadline the diff is coarser, never wrong.
        .timeout(std::time::Duration::from_millis(500))
        .diff_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&format!("a/{label}"), &format!("b/{label}"))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_nothing_is_the_published_one() {
        assert_eq!(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn diff_names_both_sides_and_marks_a_missing_newline() {
        let diff = render_diff("a\nb\n", "a\nc", "routes.yaml");
        assert!(diff.starts_with("--- a/routes.yaml\n+++ b/routes.yaml\n@@"), "{diff}");
        assert!(diff.contains("-b\n+c\n\\ No newline at end of file"), "{diff}");
        assert_eq!(render_diff("same", "same", "x"), "");
    }
}
