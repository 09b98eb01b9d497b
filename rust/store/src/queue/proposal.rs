//! What may be asked?

use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Result};
use crate::file::column::Fields;
use crate::grant::{Reach, Scope};
use crate::rules::{
    MAX_FINGERPRINT_BYTES, MAX_JUSTIFICATION_BYTES, MAX_PAYLOAD_BYTES, check_hash, check_name, check_text, check_time,
    new_id,
};
use crate::state::{Tool, Vocabulary};

/// Stands in a fingerprint between this very thing and what it is one of: its kind, or a command's words.
const SEPARATOR: &str = " | ";

/// What a sidecar asks of the operator. Immutable; `new` and `checked` are the ways to get one, so each is valid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Proposal {
    #[serde(flatten)]
    pub head: ProposalHead,
    pub proposed_file: String,
}

/// A proposal as a list has it: how large its payload is, and not the payload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct ProposalSummary {
    #[serde(flatten)]
    pub head: ProposalHead,
    pub payload_bytes: i64,
}

/// What both say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct ProposalHead {
    pub id: String,
    pub bottle_slug: String,
    pub tool: String,
    pub justification: String,
    pub arrival_timestamp: String,
    pub current_file_hash: Option<String>,
    pub expires_at: Option<String>,
    pub fingerprint: Option<String>,
    #[serde(default)]
    pub revises: Option<String>,
    pub payload_sha256: String,
}

impl Deref for Proposal {
    type Target = ProposalHead;

    fn deref(&self) -> &ProposalHead {
        &self.head
    }
}

impl Deref for ProposalSummary {
    type Target = ProposalHead;

    fn deref(&self) -> &ProposalHead {
        &self.head
    }
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
        let head = ProposalHead {
            id: id.hyphenated().to_string(),
            bottle_slug: bottle_slug.to_owned(),
            tool: tool.to_owned(),
            justification: justification.to_owned(),
            arrival_timestamp: check_time("arrival_timestamp", arrival_timestamp)?,
            current_file_hash: current_file_hash.map(str::to_owned),
            expires_at: expires_at.map(|at| check_time("expires_at", at)).transpose()?,
            fingerprint: fingerprint.map(str::to_owned),
            revises: None,
            payload_sha256: sha256_hex(payload),
        };
        Ok(Proposal { head, proposed_file: proposed_file.to_owned() })
    }

    /// The same, in the place of its requester's proposal with this id, which is withdrawn as this one is written.
    pub fn revising(mut self, id: Option<&str>) -> Result<Self> {
        let parse = |id| Uuid::try_parse(id).map(|id| id.hyphenated().to_string());
        self.head.revises = id.map(parse).transpose().map_err(|_| {
            Error::proposal(
                "revises",
                format!("must be the id of the proposal to replace, not {:?}", id.unwrap_or_default()),
            )
        })?;
        if self.revises.as_ref() == Some(&self.id) {
            return Err(Error::proposal("revises", "is the proposal's own id; Proposal.new makes one with a fresh id"));
        }
        Ok(self)
    }

    /// Whether `other` asks the same, whoever asks and why, and until when. Such proposals coalesce while they are
    /// pending, if they were written against the same file.
    pub(crate) fn asks_the_same(&self, other: &Proposal) -> bool {
        (&self.bottle_slug, &self.tool, &self.proposed_file, self.about())
            == (&other.bottle_slug, &other.tool, &other.proposed_file, other.about())
    }
}

impl ProposalHead {
    /// What a grant for all of the kind would be about, if the fingerprint names a kind after ` | `. Only the egress
    /// proxy's do: in those of other tools these characters may be part of a name.
    pub fn kind(&self) -> Option<&str> {
        self.parts().1.filter(|_| Tool::of(&self.tool) == Some(Tool::EgressTokenAllow))
    }

    /// With which words its command begins, if the fingerprint of a hook's proposal names them after ` | AGENT TOOL: `.
    pub fn words(&self) -> Option<&str> {
        let (_, words) = self.parts().1.filter(|_| Tool::of(&self.tool) == Some(Tool::RunCommand))?.split_once(": ")?;
        Some(words)
    }

    /// What a grant of this scope would be about.
    pub(crate) fn granted(&self, scope: &Scope) -> Option<&str> {
        match &scope.reach {
            Reach::This => self.fingerprint.as_ref().map(|_| self.parts().0),
            Reach::Kind => self.kind(),
            Reach::Prefix(prefix) => {
                let rest = self.words()?.strip_prefix(prefix.as_str())?;
                let of = self.parts().1?;
                (rest.is_empty() || rest.starts_with(' ')).then(|| &of[..of.len() - rest.len()])
            }
        }
    }

    fn parts(&self) -> (&str, Option<&str>) {
        let whole = self.about();
        match whole.split_once(SEPARATOR) {
            Some((this, of)) if matches!(Tool::of(&self.tool), Some(Tool::EgressTokenAllow | Tool::RunCommand)) => {
                (this, Some(of))
            }
            _ => (whole, None),
        }
    }

    /// Its whole fingerprint; empty if it has none.
    pub(crate) fn about(&self) -> &str {
        self.fingerprint.as_deref().unwrap_or_default()
    }
}

/// The rows of the partial index. Named, as SQLite without statistics takes the archive for small and walks through it.
pub(crate) const PENDING: &str = "proposals AS p INDEXED BY proposals_pending WHERE p.state = 'pending'";

/// How a proposal comes out of its row, with or without its payload.
pub trait Asked: Deref<Target = ProposalHead> + Sized {
    /// The columns of [`ProposalHead`], and those that it has beside them.
    const COLUMNS: &'static str;

    /// Reads [`Asked::COLUMNS`].
    fn from_row(row: &Fields<'_, '_>) -> rusqlite::Result<Self>;
}

macro_rules! columns {
    ($payload:literal) => {
        concat!(
            "p.id, p.bottle_slug, p.tool, p.justification, p.arrival_timestamp, p.current_file_hash, p.expires_at, ",
            "p.fingerprint, p.revises, p.payload_sha256, ",
            $payload
        )
    };
}

impl Asked for Proposal {
    const COLUMNS: &'static str = columns!("p.proposed_file");

    fn from_row(row: &Fields<'_, '_>) -> rusqlite::Result<Self> {
        Ok(Proposal { head: ProposalHead::from_row(row)?, proposed_file: row.get("proposed_file")? })
    }
}

impl Asked for ProposalSummary {
    // The size is in the row's header, so that none of the payload's pages is read.
    const COLUMNS: &'static str = columns!("octet_length(p.proposed_file) AS payload_bytes");

    fn from_row(row: &Fields<'_, '_>) -> rusqlite::Result<Self> {
        Ok(ProposalSummary { head: ProposalHead::from_row(row)?, payload_bytes: row.get("payload_bytes")? })
    }
}

impl ProposalHead {
    fn from_row(row: &Fields<'_, '_>) -> rusqlite::Result<Self> {
        Ok(ProposalHead {
            id: row.get("id")?,
            bottle_slug: row.get("bottle_slug")?,
            tool: row.get("tool")?,
            justification: row.get("justification")?,
            arrival_timestamp: row.get("arrival_timestamp")?,
            current_file_hash: row.get("current_file_hash")?,
            expires_at: row.get("expires_at")?,
            fingerprint: row.get("fingerprint")?,
            revises: row.get("revises")?,
            payload_sha256: row.get("payload_sha256")?,
        })
    }
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
    fn a_fingerprint_says_what_a_grant_is_about_and_of_which_kind_that_is() {
        let asked = |tool: &str, fingerprint| {
            Proposal::new("dev", tool, b"a finding", "", None, None, fingerprint).expect("valid")
        };
        let about = |proposal: &Proposal, scope: &str| {
            proposal.granted(&Scope::parse(scope).expect("valid")).map(str::to_owned)
        };
        let egress = asked(Tool::EgressTokenAllow.as_str(), Some("h.example:00ff | h.example: a key in the query"));
        assert_eq!(about(&egress, "bottle").as_deref(), Some("h.example:00ff"));
        assert_eq!(about(&egress, "kind:bottle").as_deref(), Some("h.example: a key in the query"));
        let plain = asked(Tool::EgressTokenAllow.as_str(), Some("h.example:00ff"));
        assert_eq!((about(&plain, "once").as_deref(), about(&plain, "kind:once")), (Some("h.example:00ff"), None));
        let other = asked("gitleaks-allow", Some("rule a | b.txt 00ff"));
        assert_eq!((about(&other, "once").as_deref(), about(&other, "kind:once")), (Some("rule a | b.txt 00ff"), None));
        assert_eq!(about(&asked(Tool::EgressTokenAllow.as_str(), None), "once"), None);
    }

    #[test]
    fn a_prefix_is_of_whole_words_that_the_fingerprint_has() {
        let fingerprint = Some("run-command:00ff | codex Bash: git status --short");
        let proposal =
            Proposal::new("dev", Tool::RunCommand.as_str(), b"git status --short", "", None, None, fingerprint);
        let asked = proposal.expect("valid");
        let about = |scope: &str| asked.granted(&Scope::parse(scope).expect("valid"));
        assert_eq!(about("once"), Some("run-command:00ff"));
        assert_eq!(about("kind:once"), None);
        assert_eq!(about("prefix:for:60 git"), Some("codex Bash: git"));
        assert_eq!(about("prefix:for:60 git status"), Some("codex Bash: git status"));
        assert_eq!(about("prefix:for:60 git status --short"), Some("codex Bash: git status --short"));
        for other in
            ["git stat", "git status ", " git", "git  status", "status", "git status --short x", "codex Bash: git"]
        {
            assert_eq!(about(&format!("prefix:for:60 {other}")), None, "{other}");
        }
        let finding = Some("rule | codex Bash: git status");
        let other = Proposal::new("dev", "gitleaks-allow", b"a finding", "", None, None, finding).expect("valid");
        assert_eq!(other.granted(&Scope::parse("prefix:for:60 git").expect("valid")), None);
    }

    #[test]
    fn ids_are_version_seven_and_grow() {
        let ids: Vec<String> = (0..100).map(|_| new_id()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(Uuid::parse_str(&ids[0]).unwrap().get_version_num(), 7);
    }
}
