//! What may be asked, and how does it get into the queue, out of it, and away?

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::broker::Broker;
use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Result};
use crate::file::connection::Transaction;
use crate::file::database::Rings;
use crate::queue::managed_file;
use crate::queue::response::{self, Decision, Response};
use crate::stores::inbox::{self, ChangeKind, InboxItem};
use crate::stores::transport::Transport;

/// The longest payload, in bytes of UTF-8.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// The longest justification, in bytes of UTF-8.
pub const MAX_JUSTIFICATION_BYTES: usize = 16 << 10;
/// The longest notes, in bytes of UTF-8.
pub const MAX_NOTES_BYTES: usize = 16 << 10;
/// How many proposals of one queue may be pending: an agent that floods meets this, not the operator.
pub const MAX_PENDING_PER_BOTTLE: i64 = 200;
const MAX_FINGERPRINT_BYTES: usize = 256;

/// A UUIDv7 (RFC 9562); later ones of this process sort after earlier ones.
pub fn new_id() -> String {
    Uuid::now_v7().hyphenated().to_string()
}

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
    fn asks_the_same(&self, other: &Proposal) -> bool {
        (&self.bottle_slug, &self.tool, &self.proposed_file, self.about())
            == (&other.bottle_slug, &other.tool, &other.proposed_file, other.about())
    }

    /// What a grant made from its approval is about; empty if about nothing.
    fn about(&self) -> &str {
        self.fingerprint.as_deref().unwrap_or_default()
    }
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
    clock::normalise(text)
        .ok_or_else(|| Error::proposal(what, format!("must be RFC 3339 such as 2026-01-31T12:00:00Z, not {text:?}")))
}

/// The rows of the partial index. Named, as SQLite without statistics takes the archive for small and walks through it.
pub(crate) const PENDING: &str = "proposals AS p INDEXED BY proposals_pending WHERE p.state = 'pending'";

/// The queue of one bottle, as its sidecars use it.
pub struct QueueStore {
    pub(crate) transport: Transport,
    pub(crate) queue_key: String,
}

const COLUMNS: &str = "p.id, p.bottle_slug, p.tool, p.proposed_file, p.justification, p.arrival_timestamp, \
                       p.current_file_hash, p.expires_at, p.fingerprint, p.payload_sha256";

/// Reads [`COLUMNS`], which come first in every query that uses it.
pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Proposal> {
    Ok(Proposal {
        id: row.get(0)?,
        bottle_slug: row.get(1)?,
        tool: row.get(2)?,
        proposed_file: row.get(3)?,
        justification: row.get(4)?,
        arrival_timestamp: row.get(5)?,
        current_file_hash: row.get(6)?,
        expires_at: row.get(7)?,
        fingerprint: row.get(8)?,
        payload_sha256: row.get(9)?,
    })
}

pub(crate) const fn columns() -> &'static str {
    COLUMNS
}

/// The row an id leads to, be it its own or an alias's, with what decides over its fate.
pub(crate) struct Found {
    pub seq: i64,
    pub id: String,
    pub queue_key: String,
    pub bottle_slug: String,
    pub tool: String,
    pub state: String,
    pub alias: bool,
    pub archived_at: Option<String>,
}

impl QueueStore {
    /// A handle on one queue; opens nothing.
    pub fn new(queue_key: &str, path: Option<&Path>) -> Result<Self> {
        check_name("queue_key", queue_key)?;
        Ok(QueueStore { transport: Transport::file(path)?, queue_key: queue_key.to_owned() })
    }

    /// A handle on the queue of the bottle that the broker's token speaks for, whose slug is the key; asks nothing yet.
    pub fn over(queue_key: &str, broker: &Broker) -> Result<Self> {
        check_name("queue_key", queue_key)?;
        Ok(QueueStore { transport: Transport::broker(broker), queue_key: queue_key.to_owned() })
    }

    /// Names the queue.
    pub fn queue_key(&self) -> &str {
        &self.queue_key
    }

    /// The path of the file it is in, or the broker's URL.
    pub fn location(&self) -> String {
        self.transport.location()
    }

    /// Ends its waits, and its use.
    pub fn close(&self) {
        self.transport.close();
    }

    /// Queues it, and returns the proposal that stands for it: itself, or an older pending one that asks the same.
    pub fn write_proposal(&self, proposal: &Proposal) -> Result<Proposal> {
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.write_proposal(&self.queue_key, proposal),
            Transport::File(db) => db,
        };
        let mut looked = None;
        loop {
            let written = db.write_then_sync(|tx| {
                let now = clock::now();
                let Arrival { managed, clear } = Arrival::of(proposal, tx, &self.queue_key, &now)?;
                let base = match base_of(managed, proposal, looked.as_ref()) {
                    Base::Known(base) => base,
                    Base::Look(path) => return Ok((Err(path), Rings::NONE)),
                };
                if !clear {
                    expire(tx, &self.queue_key, &now)?;
                    if let Some(known) = known_by_id(tx, &self.queue_key, proposal)? {
                        return Ok((Ok(known), Rings::NONE));
                    }
                    if let Some((seq, twin)) = pending_twin(tx, &self.queue_key, proposal, base.as_deref())? {
                        add_alias(tx, seq, proposal)?;
                        return Ok((Ok(twin), Rings::inbox()));
                    }
                    check_cap(tx, &self.queue_key)?;
                }
                insert(tx, &self.queue_key, proposal, base.as_deref())?;
                inbox::record(tx, ChangeKind::Proposed, &proposal.id, &proposal.bottle_slug, &proposal.tool)?;
                Ok((Ok(proposal.clone()), Rings::inbox()))
            })?;
            match written {
                Ok(proposal) => return Ok(proposal),
                // Between two transactions: a slow disk behind a managed file must not hold up other bottles' writes.
                Err(path) => looked = Some((managed_file::seen(&path), path)),
            }
        }
    }

    /// The proposal with this id (or the one it coalesced with), archived ones included.
    pub fn read_proposal(&self, id: &str) -> Result<Option<Proposal>> {
        Ok(self.inspect(id)?.map(|item| item.proposal))
    }

    /// What can be decided now, in order of arrival.
    pub fn list_pending_proposals(&self) -> Result<Vec<Proposal>> {
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.list_pending_proposals(&self.queue_key),
            Transport::File(db) => db,
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM {PENDING} AND p.queue_key = :queue_key
             AND (p.expires_at IS NULL OR p.expires_at > :now) ORDER BY p.seq"
        );
        let listed = db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows =
                statement.query_map(named_params! {":queue_key": self.queue_key, ":now": clock::now()}, from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        Ok(listed.unwrap_or_default())
    }

    /// The proposal and where it stands, if it is in this queue.
    pub fn inspect(&self, id: &str) -> Result<Option<InboxItem>> {
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.inspect(&self.queue_key, id),
            Transport::File(db) => db,
        };
        let item = db.read(|conn| inbox::read(conn, id))?.flatten();
        Ok(item.filter(|item| item.queue_key == self.queue_key))
    }

    /// This queue's newest proposals of any state, newest first.
    pub fn list_items(&self, limit: u32) -> Result<Vec<InboxItem>> {
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.list_items(&self.queue_key, limit),
            Transport::File(db) => db,
        };
        Ok(db.read(|conn| inbox::newest_of_queue(conn, &self.queue_key, limit))?.unwrap_or_default())
    }

    /// Decides as the operator would, for a caller that is one.
    pub fn write_response(&self, response: &Response) -> Result<Response> {
        let db = self.transport.host_only("decide")?;
        let item = self.inspect(&response.proposal_id)?;
        let item = item.ok_or_else(|| Error::not_found("proposal", &response.proposal_id))?;
        response::decide(
            db,
            &Decision {
                proposal_id: &response.proposal_id,
                status: &response.status,
                payload_sha256: response.payload_sha256.as_deref().unwrap_or(&item.proposal.payload_sha256),
                notes: &response.notes,
                final_file: response.final_file.as_deref(),
                decided_by: response.decided_by.as_deref(),
                surface: response.surface.as_deref().unwrap_or("api"),
                grant: None,
            },
        )
    }

    /// The answer, once it is in effect.
    pub fn read_response(&self, id: &str) -> Result<Option<Response>> {
        Ok(self.inspect(id)?.and_then(|item| match item.apply_state.as_deref() {
            Some("intended" | "failed") => None,
            _ => item.response,
        }))
    }

    /// Takes it back, for this requester: identical requests of others keep the row.
    pub fn withdraw_proposal(&self, id: &str, reason: &str) -> Result<()> {
        check_text("reason", reason.as_bytes(), MAX_NOTES_BYTES)?;
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.withdraw_proposal(&self.queue_key, id, reason),
            Transport::File(db) => db,
        };
        db.write(|tx| {
            expire(tx, &self.queue_key, &clock::now())?;
            let found = find_in_queue(tx, &self.queue_key, id)?;
            match found.state.as_str() {
                "pending" => {}
                "withdrawn" => return Ok(((), Rings::NONE)),
                _ => return Err(why_not(tx, &found)?),
            }
            leave(tx, &found, id)?;
            if others_ask(tx, &found)? {
                // The leaver's own waits end; the row stays for the others.
                return Ok(((), Rings::queue(&self.queue_key)));
            }
            withdraw(tx, &found, reason)?;
            Ok(((), Rings::queue(&self.queue_key)))
        })
    }

    /// Puts it away; a pending one is withdrawn first, so that nobody waits for what cannot come. One that others ask for
    /// too stays theirs.
    pub fn archive_proposal(&self, id: &str) -> Result<()> {
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.archive_proposal(&self.queue_key, id),
            Transport::File(db) => db,
        };
        db.write(|tx| {
            expire(tx, &self.queue_key, &clock::now())?;
            let found = find_in_queue(tx, &self.queue_key, id)?;
            if found.archived_at.is_some() {
                return Ok(((), Rings::NONE));
            }
            if found.state == "pending" {
                leave(tx, &found, id)?;
                if others_ask(tx, &found)? {
                    return Ok(((), Rings::queue(&self.queue_key)));
                }
                withdraw(tx, &found, "archived before a decision")?;
            }
            const ARCHIVE_SQL: &str =
                "UPDATE proposals SET archived_at = :now WHERE seq = :seq AND archived_at IS NULL";
            tx.prepare_cached(ARCHIVE_SQL)?.execute(named_params! {":seq": found.seq, ":now": clock::now()})?;
            inbox::record(tx, ChangeKind::Archived, &found.id, &found.bottle_slug, &found.tool)?;
            Ok(((), Rings::queue(&self.queue_key)))
        })
    }
}

/// What a proposal is written against, or the managed file to look at first.
enum Base {
    Known(Option<String>),
    Look(String),
}

/// As the proposal says; or the managed file as it is, or, where it cannot be seen, as the host last saw it.
fn base_of(managed: Option<(String, String)>, proposal: &Proposal, looked: Option<&(Option<String>, String)>) -> Base {
    if let Some(hash) = proposal.current_file_hash.as_ref().filter(|hash| !hash.is_empty()) {
        return Base::Known(Some(hash.clone()));
    }
    match (managed, looked) {
        (None, _) => Base::Known(None),
        (Some((path, known)), Some((seen, at))) if *at == path => Base::Known(Some(seen.clone().unwrap_or(known))),
        (Some((path, _)), _) => Base::Look(path),
    }
}

/// What a proposal meets as it arrives, asked in one statement: as five they were a third of the write.
struct Arrival {
    /// The managed file of its bottle and tool, and its hash as the host last saw it.
    managed: Option<(String, String)>,
    /// The usual case: nothing has expired, its id is new, nothing pending has its payload, and there is room.
    clear: bool,
}

impl Arrival {
    fn of(proposal: &Proposal, tx: &Transaction<'_>, queue_key: &str, now: &str) -> Result<Self> {
        const ARRIVAL_SQL: &str = "SELECT m.path, m.known_sha256, NOT (
                 EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_pending WHERE state = 'pending'
                     AND queue_key = ?1 AND bottle_slug = ?2 AND tool = ?3 AND payload_sha256 = ?4)
                 OR EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_pending WHERE state = 'pending'
                     AND queue_key = ?1 LIMIT 1 OFFSET ?5)
                 OR EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_expiring WHERE state = 'pending'
                     AND queue_key = ?1 AND expires_at <= ?6)
                 OR EXISTS (SELECT 1 FROM proposals WHERE id = ?7)
                 OR EXISTS (SELECT 1 FROM aliases WHERE id = ?7))
             FROM (SELECT 1) LEFT JOIN managed_files m ON m.bottle_slug = ?2 AND m.tool = ?3";
        let Proposal { bottle_slug, tool, payload_sha256, id, .. } = proposal;
        let asked = (queue_key, bottle_slug, tool, payload_sha256, MAX_PENDING_PER_BOTTLE - 1, now, id);
        Ok(tx.prepare_cached(ARRIVAL_SQL)?.query_row(asked, |row| {
            let path: Option<String> = row.get(0)?;
            let managed = path.map(|path| Ok::<_, rusqlite::Error>((path, row.get(1)?))).transpose()?;
            Ok(Arrival { managed, clear: row.get(2)? })
        })?)
    }
}

/// Makes what has expired so for good: somebody is about to be told, or needs the place.
pub(crate) fn expire(tx: &Transaction<'_>, queue_key: &str, now: &str) -> Result<()> {
    const ANY_SQL: &str = "SELECT EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_expiring
         WHERE state = 'pending' AND queue_key = :queue_key AND expires_at <= :now)";
    const EXPIRE_SQL: &str = "UPDATE proposals INDEXED BY proposals_expiring SET state = 'expired'
         WHERE state = 'pending' AND queue_key = :queue_key AND expires_at <= :now
         RETURNING id, bottle_slug, tool";
    // Asked first, as an update that returns rows makes a table for them even if there are none: a quarter of a write.
    let any: bool = tx
        .prepare_cached(ANY_SQL)?
        .query_row(named_params! {":queue_key": queue_key, ":now": now}, |row| row.get(0))?;
    if !any {
        return Ok(());
    }
    let gone: Vec<(String, String, String)> = tx
        .prepare_cached(EXPIRE_SQL)?
        .query_map(named_params! {":queue_key": queue_key, ":now": now}, |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, bottle_slug, tool) in gone {
        inbox::record(tx, ChangeKind::Expired, &id, &bottle_slug, &tool)?;
    }
    Ok(())
}

/// What stands under this id already: the same once more is no error, something else is.
fn known_by_id(tx: &Transaction<'_>, queue_key: &str, proposal: &Proposal) -> Result<Option<Proposal>> {
    let Some(found) = find(tx, &proposal.id)? else { return Ok(None) };
    let known = tx
        .prepare_cached(&format!("SELECT {COLUMNS} FROM proposals p WHERE p.seq = ?1"))?
        .query_row([found.seq], from_row)?;
    let same =
        found.queue_key == queue_key && if found.alias { known.asks_the_same(proposal) } else { known == *proposal };
    if same {
        return Ok(Some(known));
    }
    Err(Error::proposal("id", format!("{} was used for another proposal; Proposal.new makes a fresh one", proposal.id)))
}

/// One written against another file is none: it could not be approved any more, and this one may. Nor is one about
/// something else: its approval would be heard here, and be for a secret that the operator was not asked about.
/// When they expire makes no difference: each try has a time of its own, so none would ever find its twin.
fn pending_twin(
    tx: &Transaction<'_>,
    queue_key: &str,
    proposal: &Proposal,
    base: Option<&str>,
) -> Result<Option<(i64, Proposal)>> {
    let sql = format!(
        "SELECT {COLUMNS}, p.seq FROM {PENDING} AND p.queue_key = :queue_key
         AND p.bottle_slug = :bottle_slug AND p.tool = :tool AND p.payload_sha256 = :payload_sha256
         AND ifnull(p.base_sha256, 'unknown') = ifnull(:base, 'unknown')
         AND ifnull(p.fingerprint, '') = :fingerprint"
    );
    Ok(tx
        .prepare_cached(&sql)?
        .query_row(
            named_params! {
                ":queue_key": queue_key,
                ":bottle_slug": proposal.bottle_slug,
                ":tool": proposal.tool,
                ":payload_sha256": proposal.payload_sha256,
                ":base": base,
                ":fingerprint": proposal.about(),
            },
            |row| Ok((row.get(10)?, from_row(row)?)),
        )
        .optional()?)
}

fn add_alias(tx: &Transaction<'_>, seq: i64, proposal: &Proposal) -> Result<()> {
    const ADD_ALIAS_SQL: &str = "INSERT INTO aliases (id, proposal_seq, justification, arrival_timestamp)
         VALUES (:id, :seq, :justification, :arrival_timestamp)";
    // Each holds a justification of up to 16 KiB: identical requests are capped like different ones.
    let count: i64 = tx
        .prepare_cached("SELECT count(*) FROM aliases WHERE proposal_seq = ?1")?
        .query_row([seq], |row| row.get(0))?;
    if count >= MAX_PENDING_PER_BOTTLE {
        return Err(Error::proposal(
            "queue",
            format!("has this very proposal {count} times already; wait for its answer under an id you have"),
        ));
    }
    tx.prepare_cached(ADD_ALIAS_SQL)?.execute(named_params! {
        ":id": proposal.id,
        ":seq": seq,
        ":justification": proposal.justification,
        ":arrival_timestamp": proposal.arrival_timestamp,
    })?;
    Ok(())
}

fn check_cap(tx: &Transaction<'_>, queue_key: &str) -> Result<()> {
    let sql = format!("SELECT count(*) FROM {PENDING} AND p.queue_key = :queue_key");
    let pending: i64 = tx.prepare_cached(&sql)?.query_row(named_params! {":queue_key": queue_key}, |row| row.get(0))?;
    if pending < MAX_PENDING_PER_BOTTLE {
        return Ok(());
    }
    Err(Error::proposal(
        "queue",
        format!(
            "{queue_key} has {pending} proposals pending, the most there may be; have some decided or withdraw them"
        ),
    ))
}

fn insert(tx: &Transaction<'_>, queue_key: &str, proposal: &Proposal, base: Option<&str>) -> Result<()> {
    const INSERT_SQL: &str = "INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification,
             arrival_timestamp, current_file_hash, base_sha256, expires_at, fingerprint, proposed_file)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    tx.prepare_cached(INSERT_SQL)?.execute((
        &proposal.id,
        queue_key,
        &proposal.bottle_slug,
        &proposal.tool,
        &proposal.payload_sha256,
        &proposal.justification,
        &proposal.arrival_timestamp,
        &proposal.current_file_hash,
        base,
        &proposal.expires_at,
        &proposal.fingerprint,
        &proposal.proposed_file,
    ))?;
    Ok(())
}

/// The row this id leads to, in any queue.
pub(crate) fn find(conn: &Connection, id: &str) -> Result<Option<Found>> {
    const FIND_SQL: &str = "SELECT p.seq, p.id, p.queue_key, p.bottle_slug, p.tool, p.state, a.id IS NOT NULL,
             p.archived_at
         FROM (SELECT :id AS id) asked
         LEFT JOIN aliases a ON a.id = asked.id
         JOIN proposals p ON p.seq = coalesce(a.proposal_seq, (SELECT seq FROM proposals WHERE id = asked.id))";
    Ok(conn
        .prepare_cached(FIND_SQL)?
        .query_row(named_params! {":id": id}, |row| {
            Ok(Found {
                seq: row.get(0)?,
                id: row.get(1)?,
                queue_key: row.get(2)?,
                bottle_slug: row.get(3)?,
                tool: row.get(4)?,
                state: row.get(5)?,
                alias: row.get(6)?,
                archived_at: row.get(7)?,
            })
        })
        .optional()?)
}

fn find_in_queue(tx: &Transaction<'_>, queue_key: &str, id: &str) -> Result<Found> {
    find(tx, id)?.filter(|found| found.queue_key == queue_key).ok_or_else(|| Error::not_found("proposal", id))
}

/// Why a proposal that is not pending any more cannot be decided or withdrawn.
pub(crate) fn why_not(conn: &Connection, found: &Found) -> Result<Error> {
    let item = inbox::read(conn, &found.id)?.ok_or_else(|| Error::not_found("proposal", &found.id))?;
    Ok(item.ended().unwrap_or_else(|| Error::not_found("pending proposal", &found.id)))
}

fn leave(tx: &Transaction<'_>, found: &Found, id: &str) -> Result<()> {
    let sql = if found.alias {
        "UPDATE aliases SET withdrawn_at = :now WHERE id = :id AND withdrawn_at IS NULL"
    } else {
        "UPDATE proposals SET requester_left_at = :now WHERE id = :id AND requester_left_at IS NULL"
    };
    tx.prepare_cached(sql)?.execute(named_params! {":id": id, ":now": clock::now()})?;
    Ok(())
}

fn others_ask(tx: &Transaction<'_>, found: &Found) -> Result<bool> {
    const OTHERS_SQL: &str = "SELECT (SELECT requester_left_at IS NULL FROM proposals WHERE seq = :seq)
             OR EXISTS (SELECT 1 FROM aliases WHERE proposal_seq = :seq AND withdrawn_at IS NULL)";
    Ok(tx.prepare_cached(OTHERS_SQL)?.query_row(named_params! {":seq": found.seq}, |row| row.get(0))?)
}

pub(crate) fn withdraw(tx: &Transaction<'_>, found: &Found, reason: &str) -> Result<()> {
    const WITHDRAW_SQL: &str =
        "UPDATE proposals SET state = 'withdrawn', withdrawn_at = :now, withdrawn_reason = :reason
         WHERE seq = :seq AND state = 'pending'";
    tx.prepare_cached(WITHDRAW_SQL)?
        .execute(named_params! {":seq": found.seq, ":now": clock::now(), ":reason": reason})?;
    inbox::record(tx, ChangeKind::Withdrawn, &found.id, &found.bottle_slug, &found.tool)
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
