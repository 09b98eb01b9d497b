//! What does the operator see, across all bottles, and what changed since they looked?

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Params, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Error, Result};
use crate::file::connection::Transaction;
use crate::file::database::Database;
use crate::queue::managed_file;
use crate::queue::proposal::{self, PENDING, Proposal};
use crate::queue::response::{self, Decision, Response};

/// Shorter beginnings of an id are refused: UUIDv7s of one week share more than this.
const MIN_PREFIX: usize = 4;

/// A proposal and where it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct InboxItem {
    #[serde(flatten)]
    pub proposal: Proposal,
    pub queue_key: String,
    pub state: String,
    pub waiting: bool,
    pub waiting_until: Option<String>,
    pub requests: i64,
    pub withdrawn_at: Option<String>,
    pub withdrawn_reason: Option<String>,
    pub archived_at: Option<String>,
    pub response: Option<Response>,
    pub managed_file: Option<String>,
    pub apply_state: Option<String>,
    pub apply_error: Option<String>,
    pub base_sha256: Option<String>,
}

impl InboxItem {
    /// Why nothing can be decided here any more, or `None` while it can.
    pub fn ended(&self) -> Option<Error> {
        let id = self.proposal.id.clone();
        match (self.state.as_str(), &self.response) {
            ("pending", _) => None,
            ("expired", _) => {
                Some(Error::Expired { id, expires_at: self.proposal.expires_at.clone().unwrap_or_default() })
            }
            ("withdrawn", _) => Some(Error::Withdrawn {
                id,
                at: self.withdrawn_at.clone().unwrap_or_default(),
                reason: self.withdrawn_reason.clone().unwrap_or_default(),
            }),
            (status, response) => {
                let of = |field: fn(&Response) -> Option<&String>| {
                    response.as_ref().and_then(field).cloned().unwrap_or_default()
                };
                Some(Error::AlreadyDecided {
                    id,
                    status: status.to_owned(),
                    by: of(|r| r.decided_by.as_ref()),
                    surface: of(|r| r.surface.as_ref()),
                    at: of(|r| r.decided_at.as_ref()),
                    archived: self.archived_at.is_some(),
                })
            }
        }
    }
}

/// One step of a proposal's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct Change {
    pub seq: i64,
    pub kind: String,
    pub proposal_id: String,
    pub bottle_slug: String,
    pub tool: String,
    pub at: String,
}

/// The steps there are; the schema checks the same names.
#[derive(Clone, Copy)]
pub(crate) enum ChangeKind {
    Proposed,
    Approved,
    Modified,
    Rejected,
    Expired,
    Withdrawn,
    Applied,
    ApplyFailed,
    Archived,
}

impl ChangeKind {
    fn name(self) -> &'static str {
        match self {
            ChangeKind::Proposed => "proposed",
            ChangeKind::Approved => "approved",
            ChangeKind::Modified => "modified",
            ChangeKind::Rejected => "rejected",
            ChangeKind::Expired => "expired",
            ChangeKind::Withdrawn => "withdrawn",
            ChangeKind::Applied => "applied",
            ChangeKind::ApplyFailed => "apply_failed",
            ChangeKind::Archived => "archived",
        }
    }
}

/// Notes a step, for whoever watches.
pub(crate) fn record(tx: &Transaction<'_>, kind: ChangeKind, id: &str, bottle_slug: &str, tool: &str) -> Result<()> {
    const RECORD_SQL: &str = "INSERT INTO changes (kind, proposal_id, bottle_slug, tool, at)
         VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.prepare_cached(RECORD_SQL)?.execute((kind.name(), id, bottle_slug, tool, clock::now()))?;
    Ok(())
}

/// Where an item's parts come from. `:now` decides what is expired and who still waits.
fn select(rest: &str) -> String {
    let (proposal, response) = (proposal::columns(), Response::COLUMNS);
    format!(
        "SELECT {proposal}, p.queue_key,
            CASE WHEN p.state = 'pending' AND p.expires_at <= :now THEN 'expired' ELSE p.state END,
            p.waiting_until, p.state = 'pending' AND p.waiting_until > :now,
            (p.requester_left_at IS NULL)
              + (SELECT count(*) FROM aliases a WHERE a.proposal_seq = p.seq AND a.withdrawn_at IS NULL),
            p.withdrawn_at, p.withdrawn_reason, p.archived_at, coalesce(m.path, f.path), m.state, m.error,
            p.base_sha256, {response}
         FROM proposals p
         LEFT JOIN responses r ON r.proposal_seq = p.seq
         LEFT JOIN applies m ON m.proposal_seq = p.seq
         LEFT JOIN managed_files f ON f.bottle_slug = p.bottle_slug AND f.tool = p.tool
         {rest}"
    )
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<InboxItem> {
    let proposal = proposal::from_row(row)?;
    let response = Response::from_row(row, 22, &proposal.id)?;
    Ok(InboxItem {
        proposal,
        queue_key: row.get(10)?,
        state: row.get(11)?,
        waiting_until: row.get(12)?,
        waiting: row.get::<_, Option<bool>>(13)?.unwrap_or(false),
        requests: row.get(14)?,
        withdrawn_at: row.get(15)?,
        withdrawn_reason: row.get(16)?,
        archived_at: row.get(17)?,
        managed_file: row.get(18)?,
        apply_state: row.get(19)?,
        apply_error: row.get(20)?,
        base_sha256: row.get(21)?,
        response,
    })
}

fn list(conn: &Connection, rest: &str, params: impl Params) -> Result<Vec<InboxItem>> {
    let mut statement = conn.prepare_cached(&select(rest))?;
    let rows = statement.query_map(params, from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// One proposal by its full id or an alias.
pub(crate) fn read(conn: &Connection, id: &str) -> Result<Option<InboxItem>> {
    let rest = "WHERE p.seq = coalesce((SELECT proposal_seq FROM aliases WHERE id = :id), (SELECT seq FROM proposals WHERE id = :id))";
    let mut statement = conn.prepare_cached(&select(rest))?;
    Ok(statement.query_row(named_params! {":id": id, ":now": clock::now()}, from_row).optional()?)
}

pub(crate) fn newest_of_queue(conn: &Connection, queue_key: &str, limit: u32) -> Result<Vec<InboxItem>> {
    list(
        conn,
        "WHERE p.queue_key = :queue_key ORDER BY p.seq DESC LIMIT :limit",
        named_params! {":queue_key": queue_key, ":limit": limit, ":now": clock::now()},
    )
}

/// `seq` of the newest change.
pub(crate) fn last_change(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("SELECT ifnull(max(seq), 0) FROM changes")?.query_row([], |row| row.get(0))?)
}

const CHANGE_COLUMNS: &str = "seq, kind, proposal_id, bottle_slug, tool, at";

fn change_from_row(row: &Row<'_>) -> rusqlite::Result<Change> {
    Ok(Change {
        seq: row.get(0)?,
        kind: row.get(1)?,
        proposal_id: row.get(2)?,
        bottle_slug: row.get(3)?,
        tool: row.get(4)?,
        at: row.get(5)?,
    })
}

/// The newest change.
pub(crate) fn newest_change(conn: &Connection) -> Result<Option<Change>> {
    let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes ORDER BY seq DESC LIMIT 1");
    Ok(conn.prepare_cached(&sql)?.query_row([], change_from_row).optional()?)
}

/// Makes what comes next larger than `newest`: a restored backup must not take those who watch back in the numbers.
pub(crate) fn go_on_from(tx: &Transaction<'_>, newest: &Change) -> Result<()> {
    const GO_ON_SQL: &str = "INSERT INTO changes (seq, kind, proposal_id, bottle_slug, tool, at)
         SELECT :seq, :kind, :id, :bottle_slug, :tool, :at WHERE :seq > (SELECT ifnull(max(seq), 0) FROM changes)";
    tx.prepare_cached(GO_ON_SQL)?.execute(named_params! {
        ":seq": newest.seq,
        ":kind": newest.kind,
        ":id": newest.proposal_id,
        ":bottle_slug": newest.bottle_slug,
        ":tool": newest.tool,
        ":at": newest.at,
    })?;
    Ok(())
}

/// The operator's view. Opening it finishes managed files that a crash left half done.
pub struct Inbox {
    pub(crate) db: Database,
}

impl Inbox {
    /// Opens it.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        let inbox = Inbox { db: Database::new(path)? };
        inbox.recover()?;
        Ok(inbox)
    }

    /// The file it is in.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Finishes interrupted managed files; how many came to an end.
    pub fn recover(&self) -> Result<usize> {
        managed_file::recover(&self.db)
    }

    /// What can be decided now, oldest first.
    pub fn pending(&self, bottle_slug: Option<&str>) -> Result<Vec<InboxItem>> {
        // The partial index holds nothing but pending rows; a filter over it needs no other.
        let rest = format!(
            "WHERE p.seq IN (SELECT p.seq FROM {PENDING} AND (p.expires_at IS NULL OR p.expires_at > :now)
                 AND (:bottle_slug IS NULL OR p.bottle_slug = :bottle_slug)) ORDER BY p.seq"
        );
        let params = named_params! {":bottle_slug": bottle_slug, ":now": clock::now()};
        Ok(self.db.read(|conn| list(conn, &rest, params))?.unwrap_or_default())
    }

    /// Decided, but the managed file is not in effect.
    pub fn failed(&self) -> Result<Vec<InboxItem>> {
        const FAILED: &str = "WHERE p.seq IN (SELECT proposal_seq FROM applies WHERE state <> 'applied')
             AND p.archived_at IS NULL ORDER BY p.seq";
        Ok(self.db.read(|conn| list(conn, FAILED, named_params! {":now": clock::now()}))?.unwrap_or_default())
    }

    /// One proposal by its id or a unique beginning of it.
    pub fn read(&self, prefix: &str) -> Result<InboxItem> {
        const BY_PREFIX_SQL: &str = "SELECT id FROM proposals WHERE id >= :from AND id < :to
             UNION SELECT id FROM aliases WHERE id >= :from AND id < :to ORDER BY id LIMIT 6";
        let prefix = prefix.to_ascii_lowercase();
        if prefix.len() < MIN_PREFIX || !prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(Error::input(
                "id",
                format!("must be at least {MIN_PREFIX} of a proposal id's hex digits, not {prefix:?}"),
            ));
        }
        let found = self.db.read(|conn| {
            if let Some(item) = read(conn, &prefix)? {
                return Ok(Some(item));
            }
            let mut statement = conn.prepare_cached(BY_PREFIX_SQL)?;
            let to = format!("{prefix}~"); // sorts after every hex digit and hyphen
            let ids: Vec<String> = statement
                .query_map(named_params! {":from": prefix, ":to": to}, |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            match ids.as_slice() {
                [] => Ok(None),
                [id] => read(conn, id),
                _ => Err(Error::Ambiguous { prefix: prefix.clone(), matches: ids }),
            }
        })?;
        found.flatten().ok_or_else(|| Error::not_found("proposal", &prefix))
    }

    /// Proposals of any state, newest first, older than `before`.
    pub fn history(&self, bottle_slug: Option<&str>, limit: u32, before: Option<&str>) -> Result<Vec<InboxItem>> {
        const HISTORY: &str = "WHERE (:bottle_slug IS NULL OR p.bottle_slug = :bottle_slug)
             AND (:before IS NULL OR p.seq < (SELECT seq FROM proposals WHERE id = :before))
             ORDER BY p.seq DESC LIMIT :limit";
        let params =
            named_params! {":bottle_slug": bottle_slug, ":before": before, ":limit": limit, ":now": clock::now()};
        Ok(self.db.read(|conn| list(conn, HISTORY, params))?.unwrap_or_default())
    }

    /// Decides, audits, makes the grant, writes the managed file, wakes the waiters.
    pub fn decide(&self, decision: &Decision<'_>) -> Result<Response> {
        response::decide(&self.db, decision)
    }

    /// `seq` of the newest change, 0 if there is none.
    pub fn last_change(&self) -> Result<i64> {
        Ok(self.db.read(last_change)?.unwrap_or(0))
    }

    /// Changes after `since`, oldest first.
    pub fn changes(&self, since: i64, limit: u32) -> Result<Vec<Change>> {
        let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE seq > :since ORDER BY seq LIMIT :limit");
        let changes = self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(named_params! {":since": since, ":limit": limit}, change_from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        Ok(changes.unwrap_or_default())
    }

    /// Counts and ages, as a JSON object; see the Python stub.
    pub fn stats(&self) -> Result<serde_json::Value> {
        let groups = |conn: &Connection, column: &str| -> Result<serde_json::Value> {
            let sql = format!(
                "SELECT {column}, count(*) FROM (SELECT bottle_slug, tool, CASE WHEN state = 'pending' AND expires_at <= ?1
                 THEN 'expired' ELSE state END AS state FROM proposals) GROUP BY 1 ORDER BY 1"
            );
            let mut statement = conn.prepare(&sql)?;
            let rows = statement
                .query_map([clock::now()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.into())))?;
            Ok(serde_json::Value::Object(rows.collect::<rusqlite::Result<_>>()?))
        };
        let pending = self.pending(None)?;
        let now = clock::now();
        let oldest = pending.first().map(|item| clock::seconds_between(&item.proposal.arrival_timestamp, &now));
        let waiting = pending.iter().filter(|item| item.waiting).count();
        let stats = self.db.read(|conn| {
            let mut times: Vec<f64> = conn
                .prepare("SELECT p.arrival_timestamp, r.decided_at FROM responses r JOIN proposals p ON p.seq = r.proposal_seq")?
                .query_map([], |row| Ok(clock::seconds_between(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            times.sort_by(f64::total_cmp);
            let quantile = |q: f64| times.get(((times.len() as f64 - 1.0) * q).round().max(0.0) as usize).copied();
            Ok(serde_json::json!({
                "by_state": groups(conn, "state")?,
                "by_bottle": groups(conn, "bottle_slug")?,
                "by_tool": groups(conn, "tool")?,
                "pending": pending.len(),
                "waiting": waiting,
                "oldest_pending_seconds": oldest,
                "decision_seconds": {"median": quantile(0.5), "p90": quantile(0.9), "max": times.last()},
                "audit_entries": conn.query_row("SELECT count(*) FROM audit_entries", [], |row| row.get::<_, i64>(0))?,
            }))
        })?;
        Ok(stats.unwrap_or_else(|| {
            serde_json::json!({
                "by_state": {}, "by_bottle": {}, "by_tool": {}, "pending": 0, "waiting": 0,
                "oldest_pending_seconds": null,
                "decision_seconds": {"median": null, "p90": null, "max": null}, "audit_entries": 0,
            })
        }))
    }
}
