//! What may be asked?

use std::time::Duration;

use rusqlite::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Result};
use crate::file::column::get;
use crate::rules::{
    MAX_FINGERPRINT_BYTES, MAX_JUSTIFICATION_BYTES, MAX_PAYLOAD_BYTES, check_hash, check_name, check_text, check_time,
    new_id,
};

/// What a sidecar asks of the operator. Immutable; `new` and `checked` are the ways to get one, so each is valid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Proposal {
    pub id: String,
    pub bottle_slug: String,
    pub tool: String,
    pub proposed_file: String,
    pub justification: String,
    pub arrival_timestamp: String,
    pub current_file_hash: Option<String>,
    pub expires_at: Option<String>,
    pub fingerprint: Option<String>,
    pub payload_sha256: String,
}

impl Proposal {
    /// One that arrives now.
    pub fn new(
        bottle_slug: &str,
        tool: &str,
        payload: &[u8],
        justification: &str,
        current_file_hash: Option<&str>,
        expires_in: Option<Duration>,
        fingerprint: Option<&str>,
    ) -> Result<Self> {
        let expires_at = expires_in.map(clock::after);
        Self::checked(
            &new_id(),
            bottle_slug,
            tool,
            payload,
            justification,
            &clock::now(),
            current_file_hash,
            expires_at.as_deref(),
            fingerprint,
        )
    }

    /// One with these fields, if each keeps its rule.
    #[allow(clippy::too_many_arguments)] // they are the type's fields, in its order
    pub fn checked(
        id: &str,
        bottle_slug: &str,
        tool: &str,
        payload: &[u8],
        justification: &str,
        arrival_timestamp: &str,
        current_file_hash: Option<&str>,
        expires_at: Option<&str>,
        fingerprint: Option<&str>,
    ) -> Result<Self> {
        let id = Uuid::try_parse(id)
            .map_err(|_| Error::proposal("id", format!("must be a UUID, not {id:?}; Proposal.new makes one")))?;
        check_name("bottle_slug", bottle_slug)?;
        check_name("tool", tool)?;
        let proposed_file = check_text("proposed_file", payload, MAX_PAYLOAD_BYTES)?;
        if proposed_file.is_empty() {
            return Err(Error::proposal("proposed_file", "is empty; there is nothing to review"));
        }
        check_text("justification", justification.as_bytes(), MAX_JUSTIFICATION_BYTES)?;
        if let Some(hash) = current_file_hash.filter(|hash| !hash.is_empty()) {
            check_hash("current_file_hash", hash)?;
        }
        if let Some(fingerprint) = fingerprint {
            check_text("fingerprint", fingerprint.as_bytes(), MAX_FINGERPRINT_BYTES)?;
        }
        Ok(Proposal {
            id: id.hyphenated().to_string(),
            bottle_slug: bottle_slug.to_owned(),
            tool: tool.to_owned(),
            proposed_file: proposed_file.to_owned(),
            justification: justification.to_owned(),
            arrival_timestamp: check_time("arrival_timestamp", arrival_timestamp)?,
            current_file_hash: current_file_hash.map(str::to_owned),
            expires_at: expires_at.map(|at| check_time("expires_at", at)).transpose()?,
            fingerprint: fingerprint.map(str::to_owned),
            payload_sha256: sha256_hex(payload),
        })
    }

    /// Whether `other` asks the same, whoever asks and why, and until when. Such proposals coalesce while they are
    /// pending, if they were written against the same file.
    pub(crate) fn asks_the_same(&self, other: &Proposal) -> bool {
        (&self.bottle_slug, &self.tool, &self.proposed_file, self.about())
            == (&other.bottle_slug, &other.tool, &other.proposed_file, other.about())
    }

    /// What a grant made from its approval is about; empty if about nothing.
    pub(crate) fn about(&self) -> &str {
        self.fingerprint.as_deref().unwrap_or_default()
    }
}

/// The rows of the partial index. Named, as SQLite without statistics takes the archive for small and walks through it.
pub(crate) const PENDING: &str = "proposals AS p INDEXED BY proposals_pending WHERE p.state = 'pending'";

pub(crate) const COLUMNS: &str = "p.id, p.bottle_slug, p.tool, p.proposed_file, p.justification, p.arrival_timestamp, \
                       p.current_file_hash, p.expires_at, p.fingerprint, p.payload_sha256";

/// Reads [`COLUMNS`].
pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Proposal> {
    Ok(Proposal {
        id: get(row, "id")?,
        bottle_slug: get(row, "bottle_slug")?,
        tool: get(row, "tool")?,
        proposed_file: get(row, "proposed_file")?,
        justification: get(row, "justification")?,
        arrival_timestamp: get(row, "arrival_timestamp")?,
        current_file_hash: get(row, "current_file_hash")?,
        expires_at: get(row, "expires_at")?,
        fingerprint: get(row, "fingerprint")?,
        payload_sha256: get(row, "payload_sha256")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(slug: &str, payload: &[u8]) -> Result<Proposal> {
        Proposal::new(slug, "egress-allow", payload, "because", None, None, None)
    }

    #[test]
    fn names_keep_their_rule() {
        for good in ["a", "0", "dev.box_1-x", &"a".repeat(63)] {
            check_name("slug", good).unwrap();
        }
        for bad in ["", "-a", ".a", "A", "a b", "a/b", "ä", "a\n", &"a".repeat(64)] {
            assert_eq!(check_name("slug", bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn payloads_are_text_and_an_error_says_where_they_are_not() {
        assert!(proposal("dev", b"ab\xff").unwrap_err().to_string().contains("offset 2"));
        assert!(proposal("dev", b"a\0b").unwrap_err().to_string().contains("NUL at byte offset 1"));
        assert!(proposal("dev", b"").unwrap_err().to_string().contains("empty"));
        assert!(proposal("dev", &vec![b'x'; MAX_PAYLOAD_BYTES]).is_ok());
        assert!(proposal("dev", &vec![b'x'; MAX_PAYLOAD_BYTES + 1]).is_err());
    }

    #[test]
    fn ids_are_version_seven_and_grow() {
        let ids: Vec<String> = (0..100).map(|_| new_id()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(Uuid::parse_str(&ids[0]).unwrap().get_version_num(), 7);
    }
}
