//! How is it answered?

use std::sync::{Arc, OnceLock};

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use crate::diff::{render_diff, sha256_hex};
use crate::error::{Error, Result};
use crate::file::column::get;
use crate::rules::{MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES, check_hash, check_text, check_time};
use crate::state::{STATUS_APPROVED, STATUS_MODIFIED, STATUS_REJECTED, check_surface};
use crate::statement::{DecisionStatement, Keyring, Signature};

/// The operator's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Response {
    pub proposal_id: String,
    pub status: String,
    pub notes: String,
    pub final_file: Option<String>,
    pub payload_sha256: Option<String>,
    pub review_sha256: Option<String>,
    pub final_sha256: Option<String>,
    pub decided_by: Option<String>,
    pub surface: Option<String>,
    pub decided_at: Option<String>,
    pub diff: Option<Difference>,
    pub applied_at: Option<String>,
    /// What else the decision says, and who signed it.
    #[serde(default)]
    pub signed: Option<SignedDecision>,
}

/// A unified diff, rendered once somebody reads it: with two long texts it takes longer than all else, and a row is read
/// under locks and for those who only want to know that it is there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Difference {
    sides: Arc<(String, String, String)>,
    text: OnceLock<String>,
}

impl Difference {
    fn of(before: String, after: String, label: &str) -> Self {
        Difference { sides: Arc::new((before, after, label.to_owned())), text: OnceLock::new() }
    }

    /// The diff; the first call takes as long as rendering it does.
    pub fn text(&self) -> &str {
        let (before, after, label) = &*self.sides;
        self.text.get_or_init(|| render_diff(before, after, label))
    }
}

impl From<String> for Difference {
    fn from(text: String) -> Self {
        Difference { sides: Arc::default(), text: text.into() }
    }
}

impl From<Difference> for String {
    fn from(difference: Difference) -> String {
        difference.text().to_owned()
    }
}

impl std::fmt::Debug for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Difference").finish_non_exhaustive()
    }
}

/// The part of a decision's statement (docs/statements.md) that an answer does not have anyway, and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in docs/statements.md
pub struct SignedDecision {
    pub bottle_slug: String,
    pub tool: String,
    pub scope: Option<String>,
    pub key_id: String,
    pub signature: String,
}

impl Response {
    /// The bare answer, checked; the store fills in the rest.
    pub fn checked(proposal_id: &str, status: &str, notes: &str, final_file: Option<&[u8]>) -> Result<Self> {
        check_text("notes", notes.as_bytes(), MAX_NOTES_BYTES)?;
        let final_file = final_file.map(|bytes| check_text("final_file", bytes, MAX_PAYLOAD_BYTES)).transpose()?;
        match (status, final_file) {
            (STATUS_MODIFIED, None | Some("")) => {
                return Err(Error::proposal("final_file", "is what runs instead; modified needs it"));
            }
            (STATUS_APPROVED | STATUS_REJECTED, Some(_)) => {
                return Err(Error::proposal("final_file", format!("goes with modified, not with {status}")));
            }
            (STATUS_MODIFIED | STATUS_APPROVED | STATUS_REJECTED, _) => {}
            _ => {
                return Err(Error::proposal(
                    "status",
                    format!("must be approved, modified or rejected, not {status:?}"),
                ));
            }
        }
        Ok(Response {
            proposal_id: proposal_id.to_owned(),
            status: status.to_owned(),
            notes: notes.to_owned(),
            final_file: final_file.map(str::to_owned),
            payload_sha256: None,
            review_sha256: None,
            final_sha256: None,
            decided_by: None,
            surface: None,
            decided_at: None,
            diff: None,
            applied_at: None,
            signed: None,
        })
    }

    /// Whether one of these keys signed all of it, the notes and the final file too.
    pub(crate) fn verify(&self, keyring: &Keyring) -> Result<()> {
        let what = || format!("the decision on proposal {}", self.proposal_id);
        let refused = |reason: &str| Error::Unverified { what: what(), reason: reason.to_owned() };
        let signed = self.signed.as_ref().ok_or_else(|| refused("it is not signed"))?;
        let runs = match self.status.as_str() {
            STATUS_MODIFIED => self.final_file.as_deref().map(sha256_hex),
            STATUS_APPROVED => self.payload_sha256.clone(),
            _ => None,
        };
        if self.final_sha256 != runs || (self.final_file.is_some() && self.status != STATUS_MODIFIED) {
            return Err(refused("its final file is not the one that was signed"));
        }
        let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
        let (payload_sha256, review_sha256) = (text(&self.payload_sha256), text(&self.review_sha256));
        let decided_by = text(&self.decided_by);
        let (surface, decided_at) = (text(&self.surface), text(&self.decided_at));
        let statement = DecisionStatement {
            proposal_id: &self.proposal_id,
            bottle_slug: &signed.bottle_slug,
            tool: &signed.tool,
            payload_sha256: &payload_sha256,
            review_sha256: &review_sha256,
            status: &self.status,
            final_sha256: self.final_sha256.as_deref(),
            notes_sha256: &sha256_hex(&self.notes),
            scope: signed.scope.as_deref(),
            decided_by: &decided_by,
            surface: &surface,
            decided_at: &decided_at,
        };
        let signature = Signature { key_id: signed.key_id.clone(), signature: signed.signature.clone() };
        keyring.verify(&statement, &signature)?.check_name(&statement, &decided_by)
    }

    /// The answer itself, which is what equality is about.
    pub fn answer(&self) -> (&str, &str, &str, Option<&str>) {
        (&self.proposal_id, &self.status, &self.notes, self.final_file.as_deref())
    }

    /// Checks what a caller filled in beside the answer.
    pub fn check_rest(mut self) -> Result<Self> {
        for (what, hash) in [
            ("payload_sha256", &self.payload_sha256),
            ("review_sha256", &self.review_sha256),
            ("final_sha256", &self.final_sha256),
        ] {
            hash.as_deref().map_or(Ok(()), |hash| check_hash(what, hash))?;
        }
        if let Some(surface) = &self.surface {
            check_surface(surface)?;
        }
        for (what, at) in [("decided_at", &mut self.decided_at), ("applied_at", &mut self.applied_at)] {
            *at = at.as_deref().map(|at| check_time(what, at)).transpose()?;
        }
        Ok(self)
    }

    /// `r.…, m.updated_at` of the tables, and the proposed file for the diff of a modification.
    pub(crate) const COLUMNS: &str = "r.status, r.notes, r.final_file, r.payload_sha256 AS answered_sha256, \
         r.final_sha256, r.decided_by, r.surface, r.decided_at, \
         CASE m.state WHEN 'applied' THEN m.updated_at END AS applied_at, \
         CASE r.status WHEN 'modified' THEN p.proposed_file END AS modified, p.tool, \
         p.bottle_slug, r.review_sha256, r.scope, r.key_id, r.signature";

    /// Reads [`Response::COLUMNS`]; `None` where there is no answer.
    pub(crate) fn from_row(row: &Row<'_>, id: &str) -> rusqlite::Result<Option<Self>> {
        let Some(status) = get(row, "status")? else { return Ok(None) };
        let final_file: Option<String> = get(row, "final_file")?;
        let modified: Option<String> = get(row, "modified")?;
        let tool: String = get(row, "tool")?;
        let diff = modified.zip(final_file.clone()).map(|(before, after)| Difference::of(before, after, &tool));
        let signed = SignedDecision {
            bottle_slug: get(row, "bottle_slug")?,
            tool,
            scope: get(row, "scope")?,
            key_id: get(row, "key_id")?,
            signature: get(row, "signature")?,
        };
        Ok(Some(Response {
            proposal_id: id.to_owned(),
            status,
            notes: get(row, "notes")?,
            final_file,
            payload_sha256: get(row, "answered_sha256")?,
            review_sha256: get(row, "review_sha256")?,
            final_sha256: get(row, "final_sha256")?,
            decided_by: get(row, "decided_by")?,
            surface: get(row, "surface")?,
            decided_at: get(row, "decided_at")?,
            diff,
            applied_at: get(row, "applied_at")?,
            signed: Some(signed),
        }))
    }
}
