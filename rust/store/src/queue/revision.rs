//! What happens when a requester puts a proposal in the place of another, and what does the operator see of that one?

use rusqlite::{Connection, named_params};
use serde::{Deserialize, Serialize};

use crate::diff::{Hunk, hunks};
use crate::error::{Error, Result};
use crate::file::column::get;
use crate::file::transaction::Transaction;
use crate::queue::item::{self, InboxItem};
use crate::queue::life::{find_in_queue, leave, others_ask, withdraw};
use crate::queue::message::Message;
use crate::queue::proposal::Proposal;
use crate::state::State;
use crate::statement::Keys;

/// Takes the proposal that this one revises back, for its requester; how many in a row that makes, this one included. The
/// order matters to an operator who decides the older one in the same moment: one of the two is too late, and is told so.
pub(crate) fn revise(tx: &Transaction<'_>, queue_key: &str, proposal: &Proposal, base: Option<&str>) -> Result<i64> {
    const REVISED_SQL: &str =
        "SELECT revision, payload_sha256 = :payload_sha256 AND ifnull(base_sha256, '-') = ifnull(:base, '-') AS same
         FROM proposals WHERE seq = :seq";
    let Some(id) = &proposal.revises else { return Ok(1) };
    let found = find_in_queue(tx, queue_key, id)?;
    if (&found.bottle_slug, &found.tool) != (&proposal.bottle_slug, &proposal.tool) {
        let reason = format!("names proposal {id} for {}, and this one is for {}", found.tool, proposal.tool);
        return Err(Error::proposal("revises", reason));
    }
    let asked = named_params! {":seq": found.seq, ":payload_sha256": proposal.payload_sha256, ":base": base};
    let (revision, same): (i64, bool) =
        tx.prepare_cached(REVISED_SQL)?.query_row(asked, |row| Ok((get(row, "revision")?, get(row, "same")?)))?;
    if found.state != State::Pending {
        return Err(item::why_not(tx, &found)?);
    }
    if same {
        let reason = format!("names proposal {id}, which has this very content; answer what was asked, or change it");
        return Err(Error::proposal("revises", reason));
    }
    leave(tx, &found, id)?;
    if !others_ask(tx, &found)? {
        withdraw(tx, &found, &format!("revised as {}", proposal.id))?;
    }
    Ok(revision.clamp(1, i64::from(i32::MAX)) + 1) // somebody else may have written it
}

/// The revision before this one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Revised {
    /// Its id.
    pub id: String,
    /// What was said about it.
    pub thread: Vec<Message>,
    /// From what was proposed then to what is proposed now.
    pub hunks: Vec<Hunk>,
    /// Until it is compared.
    #[serde(skip)]
    proposed: String,
}

impl Revised {
    /// The proposal with this id, if it is one of the same bottle and tool: the file can name any.
    pub(crate) fn read(conn: &Connection, keys: &Keys, now: &InboxItem, id: &str) -> Result<Option<Self>> {
        let found = item::settle(conn, keys, item::read(conn, id)?)?;
        let same = |before: &InboxItem| {
            (&before.queue_key, &before.proposal.bottle_slug, &before.proposal.tool)
                == (&now.queue_key, &now.proposal.bottle_slug, &now.proposal.tool)
        };
        Ok(found.filter(same).map(|before| Revised {
            id: before.proposal.head.id,
            thread: before.thread,
            hunks: Vec::new(),
            proposed: before.proposal.proposed_file,
        }))
    }

    /// With the change since then.
    pub(crate) fn compared(mut self, now: &str) -> Self {
        self.hunks = hunks(&std::mem::take(&mut self.proposed), now);
        self
    }
}
