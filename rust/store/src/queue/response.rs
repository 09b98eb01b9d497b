//! How is it answered?

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::diff::{render_diff, sha256_hex};
use crate::error::{Error, Result};
use crate::file::column::Fields;
use crate::rules::{MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES, check_hash, check_text, check_time};
use crate::state::{Status, Stored, Surface, Vocabulary};
use crate::statement::{DecisionStatement, Keyring, Signature};

/// The operator's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Response {
    #[serde(flatten)]
    pub head: ResponseHead,
    pub final_file: Option<String>,
    pub diff: Option<Difference>,
}

/// The answer as a list has it: how large the file is that runs instead, and neither the file nor what differs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct ResponseSummary {
    #[serde(flatten)]
    pub head: ResponseHead,
    pub final_bytes: Option<i64>,
}

/// What both say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct ResponseHead {
    pub proposal_id: String,
    pub status: Stored<Status>,
    pub notes: String,
    pub payload_sha256: Option<String>,
    pub review_sha256: Option<String>,
    pub final_sha256: Option<String>,
    pub decided_by: Option<String>,
    pub surface: Option<Stored<Surface>>,
    pub decided_at: Option<String>,
    pub applied_at: Option<String>,
    /// What else the decision says, and who signed it.
    #[serde(default)]
    pub signed: Option<SignedDecision>,
}

impl Deref for Response {
    type Target = ResponseHead;

    fn deref(&self) -> &ResponseHead {
        &self.head
    }
}

impl Deref for ResponseSummary {
    type Target = ResponseHead;

    fn deref(&self) -> &ResponseHead {
        &self.head
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    pub fn checked(proposal_id: &str, status: Status, notes: &str, final_file: Option<&[u8]>) -> Result<Self> {
        check_text("notes", notes.as_bytes(), MAX_NOTES_BYTES)?;
        let final_file = final_file.map(|bytes| check_text("final_file", bytes, MAX_PAYLOAD_BYTES)).transpose()?;
        match (status, final_file) {
            (Status::Modified, None | Some("")) => {
                return Err(Error::proposal("final_file", "is what runs instead; modified needs it"));
            }
            (Status::Approved | Status::Rejected, Some(_)) => {
                return Err(Error::proposal("final_file", format!("goes with modified, not with {}", status.as_str())));
            }
            _ => {}
        }
        let head = ResponseHead {
            proposal_id: proposal_id.to_owned(),
            status: Stored::Known(status),
            notes: notes.to_owned(),
            payload_sha256: None,
            review_sha256: None,
            final_sha256: None,
            decided_by: None,
            surface: None,
            decided_at: None,
            applied_at: None,
            signed: None,
        };
        Ok(Response { head, final_file: final_file.map(str::to_owned), diff: None })
    }

    /// The answer itself, which is what equality is about.
    pub fn answer(&self) -> (&str, &str, &str, Option<&str>) {
        (&self.proposal_id, self.status.as_str(), &self.notes, self.final_file.as_deref())
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
            surface.as_str().parse::<Surface>()?;
        }
        let head = &mut self.head;
        for (what, at) in [("decided_at", &mut head.decided_at), ("applied_at", &mut head.applied_at)] {
            *at = at.as_deref().map(|at| check_time(what, at)).transpose()?;
        }
        Ok(self)
    }
}

/// How an answer comes out of its row, with or without the file that runs instead, and whether it counts.
pub trait Answered: Deref<Target = ResponseHead> + Sized {
    /// The columns of [`ResponseHead`], and those that it has beside them.
    const COLUMNS: &'static str;

    /// Reads [`Answered::COLUMNS`]; `None` where there is no answer.
    fn from_row(row: &Fields<'_, '_>, proposal_id: &str) -> rusqlite::Result<Option<Self>>;

    /// Whether one of these keys signed all that is there.
    fn verify(&self, keyring: &Keyring) -> Result<()>;
}

macro_rules! columns {
    ($last:literal) => {
        concat!(
            "r.status, r.notes, r.payload_sha256 AS answered_sha256, r.review_sha256, r.final_sha256, r.decided_by, ",
            "r.surface, r.decided_at, CASE m.state WHEN 'applied' THEN m.updated_at END AS applied_at, ",
            "p.bottle_slug, p.tool, r.scope, r.key_id, r.signature, ",
            $last
        )
    };
}

impl Answered for Response {
    // The proposed file is for the diff of a modification.
    const COLUMNS: &'static str =
        columns!("r.final_file, CASE r.status WHEN 'modified' THEN p.proposed_file END AS modified");

    fn from_row(row: &Fields<'_, '_>, proposal_id: &str) -> rusqlite::Result<Option<Self>> {
        let Some(head) = ResponseHead::from_row(row, proposal_id)? else { return Ok(None) };
        let final_file: Option<String> = row.get("final_file")?;
        let modified: Option<String> = row.get("modified")?;
        let tool = head.signed.as_ref().map_or("", |signed| &signed.tool);
        let diff = modified.zip(final_file.clone()).map(|(before, after)| Difference::of(before, after, tool));
        Ok(Some(Response { head, final_file, diff }))
    }

    fn verify(&self, keyring: &Keyring) -> Result<()> {
        if self.final_file.as_ref().is_some_and(|text| self.final_sha256 != Some(sha256_hex(text))) {
            return Err(self.refused(NOT_ITS_FILE));
        }
        self.head.verify(keyring, self.final_file.is_some())
    }
}

impl Answered for ResponseSummary {
    const COLUMNS: &'static str = columns!("octet_length(r.final_file) AS final_bytes");

    fn from_row(row: &Fields<'_, '_>, proposal_id: &str) -> rusqlite::Result<Option<Self>> {
        let Some(head) = ResponseHead::from_row(row, proposal_id)? else { return Ok(None) };
        Ok(Some(ResponseSummary { head, final_bytes: row.get("final_bytes")? }))
    }

    /// Its final file is not read, so that it may be another one: whoever acts on it reads and checks the whole.
    fn verify(&self, keyring: &Keyring) -> Result<()> {
        self.head.verify(keyring, self.final_bytes.is_some())
    }
}

const NOT_ITS_FILE: &str = "its final file is not the one that was signed";

impl ResponseHead {
    fn from_row(row: &Fields<'_, '_>, proposal_id: &str) -> rusqlite::Result<Option<Self>> {
        let Some(status) = row.get("status")? else { return Ok(None) };
        Ok(Some(ResponseHead {
            proposal_id: proposal_id.to_owned(),
            status,
            notes: row.get("notes")?,
            payload_sha256: row.get("answered_sha256")?,
            review_sha256: row.get("review_sha256")?,
            final_sha256: row.get("final_sha256")?,
            decided_by: row.get("decided_by")?,
            surface: row.get("surface")?,
            decided_at: row.get("decided_at")?,
            applied_at: row.get("applied_at")?,
            signed: Some(SignedDecision {
                bottle_slug: row.get("bottle_slug")?,
                tool: row.get("tool")?,
                scope: row.get("scope")?,
                key_id: row.get("key_id")?,
                signature: row.get("signature")?,
            }),
        }))
    }

    fn refused(&self, reason: &str) -> Error {
        Error::Unverified { what: format!("the decision on proposal {}", self.proposal_id), reason: reason.to_owned() }
    }

    /// Whether one of these keys signed what it says, the notes too; and it has a final file where it says so.
    fn verify(&self, keyring: &Keyring, has_final_file: bool) -> Result<()> {
        let signed = self.signed.as_ref().ok_or_else(|| self.refused("it is not signed"))?;
        let fits = match self.status.known() {
            Some(Status::Modified) => has_final_file && self.final_sha256.is_some(),
            Some(Status::Approved) => !has_final_file && self.final_sha256 == self.payload_sha256,
            _ => !has_final_file && self.final_sha256.is_none(),
        };
        if !fits {
            return Err(self.refused(NOT_ITS_FILE));
        }
        let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
        let (payload_sha256, review_sha256) = (text(&self.payload_sha256), text(&self.review_sha256));
        let decided_by = text(&self.decided_by);
        let surface = self.surface.as_ref().map_or("", Stored::as_str);
        let decided_at = text(&self.decided_at);
        let statement = DecisionStatement {
            proposal_id: &self.proposal_id,
            bottle_slug: &signed.bottle_slug,
            tool: &signed.tool,
            payload_sha256: &payload_sha256,
            review_sha256: &review_sha256,
            status: self.status.as_str(),
            final_sha256: self.final_sha256.as_deref(),
            notes_sha256: &sha256_hex(&self.notes),
            scope: signed.scope.as_deref(),
            decided_by: &decided_by,
            surface,
            decided_at: &decided_at,
        };
        let signature = Signature { key_id: signed.key_id.clone(), signature: signed.signature.clone() };
        keyring.verify(&statement, &signature)?.check_name(&statement, &decided_by)
    }
}
