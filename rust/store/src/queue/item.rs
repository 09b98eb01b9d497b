//! Where does a proposal stand: itself, its answer, who waits, and what is wrong?

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Params, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Error, Result};
use crate::file::column::Fields;
use crate::queue::life::Found;
use crate::queue::message::{self, Message};
use crate::queue::proposal::{Asked, PENDING, Proposal, ProposalSummary};
use crate::queue::response::{Answered, Response, ResponseHead, ResponseSummary};
use crate::registration::Registration;
use crate::state::{ApplyState, Sender, State, Stored};
use crate::statement::Keys;

/// A proposal with its payload, its answer with the file that runs instead, and where it stands.
pub type InboxItem = Item<Proposal, Response>;

/// The same as a list has it: of payload and final file their sizes and hashes.
pub type InboxSummary = Item<ProposalSummary, ResponseSummary>;

/// A proposal and where it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Item<P, R> {
    #[serde(flatten)]
    pub proposal: P,
    pub queue_key: String,
    pub state: Stored<State>,
    pub waiting: bool,
    pub waiting_until: Option<String>,
    pub requests: i64,
    pub withdrawn_at: Option<String>,
    pub withdrawn_reason: Option<String>,
    pub archived_at: Option<String>,
    pub response: Option<R>,
    pub managed_file: Option<String>,
    pub apply_state: Option<Stored<ApplyState>>,
    pub apply_error: Option<String>,
    pub base_sha256: Option<String>,
    /// How many in a row it is the last of, each in the place of the one before it.
    #[serde(default = "first")]
    pub revision: i64,
    /// Who wrote the newest message about it: `operator`, `requester`, or nobody.
    #[serde(default)]
    pub last_word: Option<Stored<Sender>>,
    /// What was said about it. In a list it is empty: read one to see it.
    #[serde(default)]
    pub thread: Vec<Message>,
    /// Why the host does not act on it: what its rows, or its bottle's, say is not what was signed.
    #[serde(default)]
    pub damaged: Option<String>,
}

fn first() -> i64 {
    1
}

impl<P: Asked, R: Answered> Item<P, R> {
    /// Why nothing can be decided here any more, or `None` while it can.
    pub fn ended(&self) -> Option<Error> {
        let id = self.proposal.id.clone();
        match (&self.state, &self.response) {
            (Stored::Known(State::Pending), _) => None,
            (Stored::Known(State::Expired), _) => {
                Some(Error::Expired { id, expires_at: self.proposal.expires_at.clone().unwrap_or_default() })
            }
            (Stored::Known(State::Withdrawn), _) => Some(Error::Withdrawn {
                id,
                at: self.withdrawn_at.clone().unwrap_or_default(),
                reason: self.withdrawn_reason.clone().unwrap_or_default(),
            }),
            (state, response) => {
                let of = |field: fn(&ResponseHead) -> Option<&String>| {
                    response.as_deref().and_then(field).cloned().unwrap_or_default()
                };
                Some(Error::AlreadyDecided {
                    id,
                    status: state.as_str().to_owned(),
                    by: of(|r| r.decided_by.as_ref()),
                    surface: response.as_deref().and_then(|r| r.surface.clone()).map(String::from).unwrap_or_default(),
                    at: of(|r| r.decided_at.as_ref()),
                    archived: self.archived_at.is_some(),
                })
            }
        }
    }

    /// Nothing is decided about what is not as it was signed.
    pub(crate) fn refuse_damaged(&self) -> Result<()> {
        match &self.damaged {
            Some(reason) => {
                Err(Error::Unverified { what: format!("proposal {}", self.proposal.id), reason: reason.clone() })
            }
            None => Ok(()),
        }
    }
}

/// Where an item's parts come from. `:now` decides what is expired and who still waits.
fn select<P: Asked, R: Answered>(rest: &str) -> String {
    let (proposal, response) = (P::COLUMNS, R::COLUMNS);
    format!(
        "SELECT {proposal}, {response}, p.queue_key,
            CASE WHEN p.state = 'pending' AND p.expires_at <= :now THEN 'expired' ELSE p.state END AS state,
            p.state = 'pending' AND p.waiting_until > :now AS waiting, p.waiting_until,
            (p.requester_left_at IS NULL)
              + (SELECT count(*) FROM aliases a WHERE a.proposal_seq = p.seq AND a.withdrawn_at IS NULL) AS requests,
            p.withdrawn_at, p.withdrawn_reason, p.archived_at, coalesce(m.path, f.path) AS managed_file,
            m.state AS apply_state, m.error AS apply_error, p.base_sha256, p.revision,
            (SELECT sender FROM messages WHERE proposal_seq = p.seq ORDER BY seq DESC LIMIT 1) AS last_word
         FROM proposals p
         LEFT JOIN responses r ON r.proposal_seq = p.seq
         LEFT JOIN applies m ON m.proposal_seq = p.seq
         LEFT JOIN managed_files f ON f.bottle_slug = p.bottle_slug AND f.tool = p.tool
         {rest}"
    )
}

fn from_row<P: Asked, R: Answered>(row: &Row<'_>) -> rusqlite::Result<Item<P, R>> {
    let row = &Fields::of(row);
    let proposal = P::from_row(row)?;
    Ok(Item {
        response: R::from_row(row, &proposal.id)?,
        proposal,
        queue_key: row.get("queue_key")?,
        state: row.get("state")?,
        waiting: row.get::<Option<bool>>("waiting")?.unwrap_or(false),
        waiting_until: row.get("waiting_until")?,
        requests: row.get("requests")?,
        withdrawn_at: row.get("withdrawn_at")?,
        withdrawn_reason: row.get("withdrawn_reason")?,
        archived_at: row.get("archived_at")?,
        managed_file: row.get("managed_file")?,
        apply_state: row.get("apply_state")?,
        apply_error: row.get("apply_error")?,
        base_sha256: row.get("base_sha256")?,
        revision: row.get("revision")?,
        last_word: row.get("last_word")?,
        thread: Vec::new(),
        damaged: None,
    })
}

/// Without payloads: of two hundred of a megabyte each, what is read is some hundred kilobytes.
pub(crate) fn list(conn: &Connection, rest: &str, params: impl Params) -> Result<Vec<InboxSummary>> {
    let mut statement = conn.prepare_cached(&select::<ProposalSummary, ResponseSummary>(rest))?;
    let rows = statement.query_map(params, from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// One proposal by its full id or an alias, whole or not, with what was said about it.
pub(crate) fn read<P: Asked, R: Answered>(conn: &Connection, id: &str) -> Result<Option<Item<P, R>>> {
    let rest = "WHERE p.seq = coalesce((SELECT seq FROM proposals WHERE id = :id), (SELECT proposal_seq FROM aliases WHERE id = :id))";
    let mut statement = conn.prepare_cached(&select::<P, R>(rest))?;
    let found = statement.query_row(named_params! {":id": id, ":now": clock::now()}, from_row).optional()?;
    let Some(mut item): Option<Item<P, R>> = found else { return Ok(None) };
    if item.last_word.is_some() {
        item.thread = message::thread(conn, &item.proposal.id)?;
    }
    Ok(Some(item))
}

/// What the host takes of items: the managed file that it registered itself for the bottle and tool, or what is wrong.
/// Until then a path in them is whatever somebody wrote into the file.
pub(crate) fn settle_all<P: Asked, R: Answered>(
    conn: &Connection,
    keys: &Keys,
    mut items: Vec<Item<P, R>>,
) -> Result<Vec<Item<P, R>>> {
    let mut registered = BTreeMap::new(); // verified once a bottle, however much it asks
    for item in &mut items {
        item.damaged = decision_damage(keys, item)?;
        message::settle(keys, &mut item.thread)?;
        let slug = &item.proposal.bottle_slug;
        if !registered.contains_key(slug) {
            registered.insert(slug.clone(), verdict(Registration::read_verified(conn, keys, slug))?);
        }
        match &registered[slug] {
            Ok(found) => {
                let path = found.as_ref().and_then(|found| found.path_of(&item.proposal.tool));
                item.managed_file = match item.apply_state {
                    None => path.map(str::to_owned),
                    // What was decided about before the bottle was registered with another file is not named any more.
                    Some(_) => item.managed_file.take().filter(|known| path == Some(known)),
                };
            }
            Err(reason) => {
                item.managed_file = None;
                item.damaged.get_or_insert_with(|| reason.clone());
            }
        }
    }
    Ok(items)
}

/// Why its decision does not count, if it has one that does not; as far as what was read of it shows.
pub(crate) fn decision_damage<P: Asked, R: Answered>(keys: &Keys, item: &Item<P, R>) -> Result<Option<String>> {
    let decided = item.state.known().is_some_and(State::is_decided);
    let what = || format!("the decision on proposal {}", item.proposal.id);
    let verified = match &item.response {
        Some(response) if response.status.as_str() == item.state.as_str() => {
            keys.keyring().and_then(|ring| response.verify(&ring))
        }
        None if !decided => return Ok(None),
        _ => Err(Error::Unverified { what: what(), reason: "it is not the one that was signed".to_owned() }),
    };
    verdict(verified).map(|verdict| verdict.err())
}

/// The bottles and reasons of the decisions that do not count.
pub(crate) fn damaged_decisions(conn: &Connection, keys: &Keys) -> Result<Vec<(String, String)>> {
    const DECIDED: &str = "WHERE r.proposal_seq IS NOT NULL OR p.state IN ('approved', 'modified', 'rejected')";
    let mut damaged = Vec::new();
    let mut statement = conn.prepare(&select::<Proposal, Response>(DECIDED))?;
    let mut rows = statement.query(named_params! {":now": clock::now()})?;
    while let Some(row) = rows.next()? {
        let item: InboxItem = from_row(row)?;
        if let Some(reason) = decision_damage(keys, &item)? {
            damaged.push((item.proposal.head.bottle_slug, reason));
        }
    }
    Ok(damaged)
}

/// The same, of one.
pub(crate) fn settle<P: Asked, R: Answered>(
    conn: &Connection,
    keys: &Keys,
    item: Option<Item<P, R>>,
) -> Result<Option<Item<P, R>>> {
    Ok(settle_all(conn, keys, item.into_iter().collect())?.pop())
}

/// What is there, or in a word why it is not taken; everything else that went wrong stays an error.
fn verdict<T>(result: Result<T>) -> Result<std::result::Result<T, String>> {
    result.map(Ok).or_else(|error| error.damage().map(Err).ok_or(error))
}

/// A queue's newest proposals of any state, newest first.
pub(crate) fn newest_of_queue(conn: &Connection, queue_key: &str, limit: u32) -> Result<Vec<InboxSummary>> {
    list(
        conn,
        "WHERE p.queue_key = :queue_key ORDER BY p.seq DESC LIMIT :limit",
        named_params! {":queue_key": queue_key, ":limit": limit, ":now": clock::now()},
    )
}

/// What can be decided of one bottle or queue, or of all, oldest first.
pub(crate) fn pending(
    conn: &Connection,
    queue_key: Option<&str>,
    bottle_slug: Option<&str>,
) -> Result<Vec<InboxSummary>> {
    // The partial index holds nothing but pending rows; a filter over it needs no other.
    let rest = format!(
        "WHERE p.seq IN (SELECT p.seq FROM {PENDING} AND (p.expires_at IS NULL OR p.expires_at > :now)
             AND (:queue_key IS NULL OR p.queue_key = :queue_key)
             AND (:bottle_slug IS NULL OR p.bottle_slug = :bottle_slug)) ORDER BY p.seq"
    );
    list(conn, &rest, named_params! {":queue_key": queue_key, ":bottle_slug": bottle_slug, ":now": clock::now()})
}

/// Why a proposal that is not pending any more cannot be decided or withdrawn.
pub(crate) fn why_not(conn: &Connection, found: &Found) -> Result<Error> {
    let item: InboxSummary = read(conn, &found.id)?.ok_or_else(|| Error::not_found("proposal", &found.id))?;
    Ok(item.ended().unwrap_or_else(|| Error::not_found("pending proposal", &found.id)))
}
