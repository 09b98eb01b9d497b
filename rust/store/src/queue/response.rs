//! How is it answered?

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use crate::diff::render_diff;
use crate::error::{Error, Result};
use crate::rules::{MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES, check_hash, check_text, check_time};
use crate::state::{STATUS_APPROVED, STATUS_MODIFIED, STATUS_REJECTED, check_surface};

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
    pub final_sha256: Option<String>,
    pub decided_by: Option<String>,
    pub surface: Option<String>,
    pub decided_at: Option<String>,
    pub diff: Option<String>,
    pub applied_at: Option<String>,
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
            final_sha256: None,
            decided_by: None,
            surface: None,
            decided_at: None,
            diff: None,
            applied_at: None,
        })
    }

    /// The answer itself, which is what equality is about.
    pub fn answer(&self) -> (&str, &str, &str, Option<&str>) {
        (&self.proposal_id, &self.status, &self.notes, self.final_file.as_deref())
    }

    /// Checks what a caller filled in beside the answer.
    pub fn check_rest(mut self) -> Result<Self> {
        for hash in [&self.payload_sha256, &self.final_sha256].into_iter().flatten() {
            check_hash("payload_sha256", hash)?;
        }
        if let Some(surface) = &self.surface {
            check_surface(surface)?;
        }
        for at in [&mut self.decided_at, &mut self.applied_at] {
            *at = at.as_deref().map(|at| check_time("decided_at", at)).transpose()?;
        }
        Ok(self)
    }

    /// `r.…, m.updated_at` of the tables, and the proposed file for the diff of a modification.
    pub(crate) const COLUMNS: &str = "r.status, r.notes, r.final_file, r.payload_sha256, r.final_sha256, r.decided_by, \
         r.surface, r.decided_at, CASE m.state WHEN 'applied' THEN m.updated_at END, \
         CASE r.status WHEN 'modified' THEN p.proposed_file END, p.tool";

    /// Reads [`Response::COLUMNS`] from `first` on; `None` where there is no answer.
    pub(crate) fn from_row(row: &Row<'_>, first: usize, id: &str) -> rusqlite::Result<Option<Self>> {
        let Some(status) = row.get(first)? else { return Ok(None) };
        let final_file: Option<String> = row.get(first + 2)?;
        let proposed: Option<String> = row.get(first + 9)?;
        let tool: String = row.get(first + 10)?;
        let diff = proposed.zip(final_file.as_deref()).map(|(before, after)| render_diff(&before, after, &tool));
        Ok(Some(Response {
            proposal_id: id.to_owned(),
            status,
            notes: row.get(first + 1)?,
            final_file,
            payload_sha256: row.get(first + 3)?,
            final_sha256: row.get(first + 4)?,
            decided_by: row.get(first + 5)?,
            surface: row.get(first + 6)?,
            decided_at: row.get(first + 7)?,
            diff,
            applied_at: row.get(first + 8)?,
        }))
    }
}
