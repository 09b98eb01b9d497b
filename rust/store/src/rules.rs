//! What is acceptable: how long, how many, written how?

use uuid::Uuid;

use crate::clock;
use crate::error::{Error, Result};

/// The longest payload, in bytes of UTF-8.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// The longest justification, in bytes of UTF-8.
pub const MAX_JUSTIFICATION_BYTES: usize = 16 << 10;
/// The longest notes, in bytes of UTF-8.
pub const MAX_NOTES_BYTES: usize = 16 << 10;
/// The longest message about a proposal, in bytes of UTF-8.
pub const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// How often the operator may ask back about one proposal; there are no more answers than questions.
pub const MAX_QUESTIONS_PER_PROPOSAL: usize = 16;
/// How many proposals of one queue may be pending: an agent that floods meets this, not the operator.
pub const MAX_PENDING_PER_BOTTLE: i64 = 200;
pub(crate) const MAX_FINGERPRINT_BYTES: usize = 512;

/// A UUIDv7 (RFC 9562); later ones of this process sort after earlier ones.
pub fn new_id() -> String {
    Uuid::now_v7().hyphenated().to_string()
}

/// `[a-z0-9][a-z0-9._-]{0,62}`: a slug, a queue key, a tool, a component.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if first && rest && name.len() <= 63 {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::proposal(
        what,
        format!("must be 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit, not {shown:?}"),
    ))
}

/// Text is UTF-8 without NUL and no longer than `limit` bytes.
pub(crate) fn check_text<'a>(what: &'static str, bytes: &'a [u8], limit: usize) -> Result<&'a str> {
    if bytes.len() > limit {
        return Err(Error::proposal(what, format!("has {} bytes; at most {limit} are accepted", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Error::proposal(what, format!("is not UTF-8 at byte offset {}; payloads are text", error.valid_up_to()))
    })?;
    match text.find('\0') {
        Some(offset) => Err(Error::proposal(what, format!("has a NUL at byte offset {offset}; payloads are text"))),
        None => Ok(text),
    }
}

pub(crate) fn check_hash(what: &'static str, hash: &str) -> Result<()> {
    if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(());
    }
    Err(Error::proposal(what, "must be a SHA-256 as 64 lower-case hex digits"))
}

pub(crate) fn check_time(what: &'static str, text: &str) -> Result<String> {
    clock::normalise(text).ok_or_else(|| {
        Error::proposal(what, format!("must be RFC 3339 such as 2026-01-31T12:00:00Z, of 1970 or later, not {text:?}"))
    })
}
