//! What do a decision, a question, a registration and a grant say, byte by byte, and does a signature fit them?
//!
//! Whoever has the database's directory can write any byte of it. What leads to a host path, a deletion or somebody's
//! permission is therefore taken only from a row whose statement carries the signature of a key that is trusted.
//! `docs/statements.md` has the format for those who write a verifier of their own.

mod keyring;
mod keys;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::diff::sha256_hex;

pub use keyring::{Keyring, Role, TrustedKey};
pub use keys::Keys;
pub(crate) use keys::{Signer, keyring_at};

/// A statement's signature, and which key made it; columns of its row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct Signature {
    pub key_id: String,
    /// 64 bytes in base64 with padding (RFC 4648, section 4).
    pub signature: String,
}

impl Signature {
    pub(crate) fn new(key_id: &str, bytes: &[u8]) -> Self {
        Signature { key_id: key_id.to_owned(), signature: STANDARD.encode(bytes) }
    }

    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.signature).ok().filter(|bytes| bytes.len() == 64)
    }
}

/// What can be signed.
pub(crate) trait Statement {
    /// The first field: which statement this is, and the version of its format.
    const DOMAIN: &'static str;

    /// What it is about, for a message: "the decision on proposal …".
    fn subject(&self) -> String;

    /// When it was made; a key that was revoked before verifies it no more.
    fn made_at(&self) -> &str;

    /// Whether only this host's own keys may sign it.
    fn is_host_only(&self) -> bool {
        false
    }

    /// The fields after domain and key, in their order.
    fn fields(&self, to: &mut Canonical);

    /// The signed bytes. The key's id is among them, so that a signature cannot be shown as another key's.
    fn bytes(&self, key_id: &str) -> Vec<u8> {
        let mut to = Canonical::new(Self::DOMAIN);
        to.text(key_id);
        self.fields(&mut to);
        to.0
    }
}

/// Fields as netstrings: no text of one field can be taken for another field.
pub(crate) struct Canonical(Vec<u8>);

impl Canonical {
    pub(crate) fn new(domain: &str) -> Self {
        let mut to = Canonical(Vec::with_capacity(768));
        to.text(domain);
        to
    }

    pub(crate) fn sha256(&self) -> String {
        sha256_hex(&self.0)
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.len().to_string().as_bytes());
        self.0.push(b':');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b',');
    }

    /// An absent value, which is not the empty text.
    pub(crate) fn maybe(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.0.push(b'~'),
        }
    }

    pub(crate) fn number(&mut self, number: i64) {
        self.text(&number.to_string());
    }
}

/// The operator's answer to exactly what was reviewed. It names no path of the host: the review's hash covers that one,
/// so a sidecar can verify an answer without being told.
#[allow(missing_docs)]
pub(crate) struct DecisionStatement<'a> {
    pub proposal_id: &'a str,
    pub bottle_slug: &'a str,
    pub tool: &'a str,
    pub payload_sha256: &'a str,
    pub review_sha256: &'a str,
    pub status: &'a str,
    pub final_sha256: Option<&'a str>,
    pub notes_sha256: &'a str,
    pub scope: Option<&'a str>,
    pub decided_by: &'a str,
    pub surface: &'a str,
    pub decided_at: &'a str,
}

impl Statement for DecisionStatement<'_> {
    const DOMAIN: &'static str = "bot-bottle/decision/1";

    fn subject(&self) -> String {
        format!("the decision on proposal {}", self.proposal_id)
    }

    fn made_at(&self) -> &str {
        self.decided_at
    }

    fn fields(&self, to: &mut Canonical) {
        to.text(self.proposal_id);
        to.text(self.bottle_slug);
        to.text(self.tool);
        to.text(self.payload_sha256);
        to.text(self.review_sha256);
        to.text(self.status);
        to.maybe(self.final_sha256);
        to.text(self.notes_sha256);
        to.maybe(self.scope);
        to.text(self.decided_by);
        to.text(self.surface);
        to.text(self.decided_at);
    }
}

/// What the operator asks back about a proposal.
#[allow(missing_docs)]
pub(crate) struct QuestionStatement<'a> {
    pub id: &'a str,
    pub proposal_id: &'a str,
    pub bottle_slug: &'a str,
    pub tool: &'a str,
    pub payload_sha256: &'a str,
    pub text_sha256: &'a str,
    pub asked_by: &'a str,
    pub surface: &'a str,
    pub asked_at: &'a str,
}

impl Statement for QuestionStatement<'_> {
    const DOMAIN: &'static str = "bot-bottle/question/1";

    fn subject(&self) -> String {
        format!("the question {} about proposal {}", self.id, self.proposal_id)
    }

    fn made_at(&self) -> &str {
        self.asked_at
    }

    fn fields(&self, to: &mut Canonical) {
        to.text(self.id);
        to.text(self.proposal_id);
        to.text(self.bottle_slug);
        to.text(self.tool);
        to.text(self.payload_sha256);
        to.text(self.text_sha256);
        to.text(self.asked_by);
        to.text(self.surface);
        to.text(self.asked_at);
    }
}

/// A bottle as it was started, and what it may lead to on this host.
pub(crate) struct RegistrationStatement<'a> {
    pub slug: &'a str,
    pub backend: &'a str,
    pub transport: &'a str,
    pub generation: i64,
    pub started_at: &'a str,
    pub stopped_at: Option<&'a str>,
    /// Tool and absolute path, by tool.
    pub files: &'a [(&'a str, &'a str)],
    /// SHA-256 of the tokens that are valid, in text order.
    pub tokens: &'a [&'a str],
}

impl Statement for RegistrationStatement<'_> {
    const DOMAIN: &'static str = "bot-bottle/registration/1";

    fn subject(&self) -> String {
        format!("the registration of bottle {}", self.slug)
    }

    fn made_at(&self) -> &str {
        self.stopped_at.unwrap_or(self.started_at)
    }

    // It names paths of this host; nobody else can.
    fn is_host_only(&self) -> bool {
        true
    }

    fn fields(&self, to: &mut Canonical) {
        to.text(self.slug);
        to.text(self.backend);
        to.text(self.transport);
        to.number(self.generation);
        to.text(self.started_at);
        to.maybe(self.stopped_at);
        to.text(&self.files.len().to_string());
        for (tool, path) in self.files {
            to.text(tool);
            to.text(path);
        }
        to.text(&self.tokens.len().to_string());
        for token in self.tokens {
            to.text(token);
        }
    }
}

/// Leave to do a thing again, as it was given; how much of it is left is not part of it.
pub(crate) struct GrantStatement<'a> {
    pub id: &'a str,
    pub bottle_slug: &'a str,
    pub tool: &'a str,
    pub fingerprint: &'a str,
    pub scope: &'a str,
    pub uses: Option<i64>,
    pub expires_at: Option<&'a str>,
    pub proposal_id: Option<&'a str>,
    pub created_at: &'a str,
    pub created_by: &'a str,
}

impl Statement for GrantStatement<'_> {
    const DOMAIN: &'static str = "bot-bottle/grant/1";

    fn subject(&self) -> String {
        format!("grant {}", self.id)
    }

    fn made_at(&self) -> &str {
        self.created_at
    }

    fn fields(&self, to: &mut Canonical) {
        to.text(self.id);
        to.text(self.bottle_slug);
        to.text(self.tool);
        to.text(self.fingerprint);
        to.text(self.scope);
        to.maybe(self.uses.map(|uses| uses.to_string()).as_deref());
        to.maybe(self.expires_at);
        to.maybe(self.proposal_id);
        to.text(self.created_at);
        to.text(self.created_by);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn grant<'a>(scope: &'a str, created_at: &'a str) -> GrantStatement<'a> {
        GrantStatement {
            id: "0199d2c4-0000-7000-8000-000000000001",
            bottle_slug: "dev",
            tool: "gitleaks-allow",
            fingerprint: "rule/path/1",
            scope,
            uses: Some(3),
            expires_at: None,
            proposal_id: Some(""),
            created_at,
            created_by: "ann",
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let bytes = grant("uses", "2026-01-31T12:00:00.000000Z").bytes("0123456789abcdef");
        let expected = "18:bot-bottle/grant/1,16:0123456789abcdef,36:0199d2c4-0000-7000-8000-000000000001,3:dev,\
                        14:gitleaks-allow,11:rule/path/1,4:uses,1:3,~0:,27:2026-01-31T12:00:00.000000Z,3:ann,";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    #[test]
    fn a_file_cannot_be_taken_for_a_token() {
        let statement = |files: &[(&str, &str)], tokens: &[&str]| {
            RegistrationStatement {
                slug: "dev",
                backend: "docker",
                transport: "mount",
                generation: 1,
                started_at: "2026-01-31T12:00:00.000000Z",
                stopped_at: None,
                files,
                tokens,
            }
            .bytes("k")
        };
        assert_ne!(statement(&[("a", "b")], &[]), statement(&[], &["a", "b"]));
        assert_ne!(statement(&[("a", "1:b,1:c")], &[]), statement(&[("a", "b"), ("c", "")], &[]));
    }
}
