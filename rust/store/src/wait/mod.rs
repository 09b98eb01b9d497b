//! How does a waiter learn of its answer at once, and how does the operator learn that somebody waits?
//!
//! One watcher thread per process and database serves all waits (`watcher`); a thread that has nothing to do but wait
//! listens to its bell itself beside it (`sleeper`). Who waits subscribes first, looks second and sleeps third, so that
//! no answer falls between.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell::INBOX;
use crate::file::database::{BUSY_TIMEOUT, Database, Shared};
use crate::queue::proposal::QueueStore;
use crate::queue::response::Response;
use crate::stores::inbox::{self, Inbox};
use crate::stores::transport::Transport;
pub(crate) use sleeper::Bunks;
use watcher::Entry;
pub(crate) use watcher::Watcher;

mod sleeper;
mod watcher;

/// How often one asks that cannot be woken by a signal.
pub(crate) const SIGNAL_CHECK: Duration = Duration::from_millis(40);

/// What a wait ends with.
#[derive(Debug, Clone)]
pub enum Event {
    /// The answer, in effect.
    Answer(Box<Response>),
    /// There is a change after the one given.
    Changed,
}

pub(crate) type Done = Box<dyn FnOnce(Result<Event>) + Send>;

#[derive(Clone)]
enum Target {
    Answer { queue_key: String, id: String },
    Change { after: i64 },
}

impl Target {
    fn bell(&self) -> &str {
        match self {
            Target::Answer { queue_key, .. } => queue_key,
            Target::Change { .. } => INBOX,
        }
    }

    fn name(&self) -> &str {
        match self {
            Target::Answer { id, .. } => id,
            Target::Change { .. } => "inbox",
        }
    }
}

/// A wait under way; dropping it lets it go on.
pub struct WaitHandle {
    under_way: Option<(Arc<dyn Waits>, u64)>,
}

/// Who serves waits: the watcher of a file, the poller of a broker.
pub(crate) trait Waits: Send + Sync {
    /// Ends one; its callback is not called any more.
    fn cancel(&self, id: u64);
}

impl WaitHandle {
    pub(crate) fn new(waits: Arc<dyn Waits>, id: u64) -> Self {
        WaitHandle { under_way: Some((waits, id)) }
    }

    /// Ends it; its callback is not called any more.
    pub fn cancel(&self) {
        if let Some((waits, id)) = &self.under_way {
            waits.cancel(*id);
        }
    }
}

/// Calls the callback at once, or leaves the wait to the watcher.
fn begin(db: &Database, target: Target, timeout: Option<Duration>, done: Done) -> Result<WaitHandle> {
    let under_way = start(db, &target, timeout, done, |_| false)?;
    Ok(WaitHandle { under_way: under_way.map(|(watcher, id)| (watcher as Arc<dyn Waits>, id)) })
}

/// The same; `listen` is given the database, and says whether the caller hears the bell itself.
fn start(
    db: &Database,
    target: &Target,
    timeout: Option<Duration>,
    done: Done,
    listen: impl FnOnce(&Path) -> bool,
) -> Result<Option<(Arc<Watcher>, u64)>> {
    let shared = &db.shared()?;
    let seen = match look_for(shared, target, BUSY_TIMEOUT)? {
        Seen::Ended(result) => {
            done(result);
            return Ok(None);
        }
        Seen::Open(seen) => seen,
    };
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        done(Err(timed_out(target.name(), timeout)));
        return Ok(None);
    }
    let watcher = shared.watcher()?;
    let file = shared.file()?;
    let own = file.as_ref().is_some_and(|file| listen(file));
    let entry = Entry::new(db.id(), target.clone(), timeout, seen, done, own);
    let id = watcher.enter(entry, file.as_deref());
    // Subscribed; what was committed before that is seen now, what comes later rings. A handle that was closed
    // meanwhile has ended its waits already, but for this one.
    let looked = if db.is_closed() { Err(Error::Closed) } else { look_for(shared, target, BUSY_TIMEOUT) };
    let ended = match looked {
        Ok(Seen::Open(_)) => None,
        Ok(Seen::Ended(result)) => Some(result),
        Err(error) => Some(Err(error)),
    };
    if let Some(result) = ended
        && let Some(done) = watcher.leave(id)
    {
        done(result);
    }
    watcher.wake();
    Ok(Some((watcher, id)))
}

enum Seen {
    Ended(Result<Event>),
    Open(Option<Pending>),
}

struct Pending {
    row: String,
    expires_at: Option<String>,
}

/// Waits for so long at most until no other thread reads.
fn look_for(shared: &Arc<Shared>, target: &Target, patience: Duration) -> Result<Seen> {
    match target {
        Target::Answer { queue_key, id } => {
            let seen = shared.read_within(patience, |conn| answer_to(conn, queue_key, id))?;
            if let Some(Seen::Ended(Err(Error::Expired { .. }))) = &seen {
                shared.watcher()?.settle_expiries(shared, queue_key);
            }
            Ok(seen.unwrap_or_else(|| Seen::Ended(Err(Error::not_found("proposal", id)))))
        }
        Target::Change { after } => {
            let last = shared.read_within(patience, inbox::last_change)?.unwrap_or(0);
            Ok(if last > *after { Seen::Ended(Ok(Event::Changed)) } else { Seen::Open(None) })
        }
    }
}

pub(crate) fn timed_out(id: &str, timeout: Option<Duration>) -> Error {
    Error::WaitTimeout { id: id.to_owned(), seconds: timeout.unwrap_or_default().as_secs_f64().to_string() }
}

/// Reads [`answer`]'s columns of the proposals that `from` finds, each asked for as `asked`, and left by its requester
/// at `left_at`.
fn answers_sql(asked: &str, left_at: &str, from: &str) -> String {
    format!(
        "SELECT {asked}, p.id, p.state, p.expires_at, {left_at}, p.withdrawn_at, p.withdrawn_reason,
             m.state, m.path, m.expected_sha256, {}
         FROM {from}
         LEFT JOIN responses r ON r.proposal_seq = p.seq
         LEFT JOIN applies m ON m.proposal_seq = p.seq",
        Response::COLUMNS
    )
}

/// Where each of these ids of one queue stands: one query, however many wait.
fn answers(conn: &Connection, queue_key: &str, ids: &[&str]) -> Result<Vec<(String, Seen)>> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let from = "json_each(?1) asked
             LEFT JOIN aliases a ON a.id = asked.value
             LEFT JOIN proposals p ON p.seq = coalesce(a.proposal_seq, (SELECT seq FROM proposals WHERE id = asked.value))
                 AND p.queue_key = ?2";
        let left_at = "coalesce(a.withdrawn_at, CASE WHEN a.id IS NULL THEN p.requester_left_at END)";
        answers_sql("asked.value", left_at, from)
    });
    let ids = serde_json::Value::from(ids).to_string();
    let mut statement = conn.prepare_cached(&SQL)?;
    let rows = statement.query_map((ids, queue_key), |row| Ok((row.get(0)?, answer(row)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Where one stands, by the shortest way: after a sleep the caches are cold, and each step costs ten times as much.
fn answer_to(conn: &Connection, queue_key: &str, id: &str) -> Result<Seen> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        answers_sql("?1", "p.requester_left_at", "proposals p") + " WHERE p.id = ?1 AND p.queue_key = ?2"
    });
    if let Some(seen) = conn.prepare_cached(&SQL)?.query_row((id, queue_key), answer).optional()? {
        return Ok(seen);
    }
    // An alias, or none.
    let found = answers(conn, queue_key, &[id])?.pop();
    Ok(found.map_or_else(|| Seen::Ended(Err(Error::not_found("proposal", id))), |(_, seen)| seen))
}

fn answer(row: &Row<'_>) -> rusqlite::Result<Seen> {
    let Some(id): Option<String> = row.get(1)? else {
        return Ok(Seen::Ended(Err(Error::not_found("proposal", &row.get::<_, String>(0)?))));
    };
    let state: String = row.get(2)?;
    let expires_at: Option<String> = row.get(3)?;
    let has_expired = state == "pending" && expires_at.as_ref().is_some_and(|at| *at <= clock::now());
    if state == "expired" || has_expired {
        return Ok(Seen::Ended(Err(Error::Expired { id, expires_at: expires_at.unwrap_or_default() })));
    }
    let left_at: Option<String> = row.get(4)?;
    if let (Some(at), "pending") = (left_at, state.as_str()) {
        let reason = "withdrawn by the requester".to_owned();
        return Ok(Seen::Ended(Err(Error::Withdrawn { id, at, reason })));
    }
    if state == "withdrawn" {
        let (at, reason) = (row.get::<_, Option<String>>(5)?, row.get::<_, Option<String>>(6)?);
        let error = Error::Withdrawn { id, at: at.unwrap_or_default(), reason: reason.unwrap_or_default() };
        return Ok(Seen::Ended(Err(error)));
    }
    match row.get::<_, Option<String>>(7)?.as_deref() {
        // Decided, but an approval the agent hears of is already in effect.
        Some("intended") => return Ok(Seen::Open(Some(Pending { row: id, expires_at: None }))),
        Some("failed") => {
            let (path, expected) = (row.get(8)?, row.get(9)?);
            return Ok(Seen::Ended(Err(Error::StaleFile { id, path, expected: Some(expected), actual: None })));
        }
        _ => {}
    }
    Ok(match Response::from_row(row, 10, &id)? {
        Some(response) => Seen::Ended(Ok(Event::Answer(Box::new(response)))),
        None => Seen::Open(Some(Pending { row: id, expires_at })),
    })
}

impl QueueStore {
    /// Starts a wait; `done` is called once, from the watcher's thread or, where the answer is there, from this one.
    pub fn begin_wait(
        &self,
        id: &str,
        timeout: Option<Duration>,
        done: impl FnOnce(Result<Event>) + Send + 'static,
    ) -> Result<WaitHandle> {
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.begin_wait(&self.queue_key, id, timeout, Box::new(done)),
            Transport::File(db) => db,
        };
        let target = Target::Answer { queue_key: self.queue_key.clone(), id: id.to_owned() };
        begin(db, target, timeout, Box::new(done))
    }

    /// Blocks until the answer is in effect. `interrupted` is asked at every signal and five times a second, and ends the wait with its yes.
    pub fn wait_for_response(
        &self,
        id: &str,
        timeout: Option<Duration>,
        interrupted: impl FnMut() -> bool,
    ) -> Result<Response> {
        let ended = match &self.transport {
            Transport::Broker(broker) => {
                sleeper::block(|done| broker.begin_wait(&self.queue_key, id, timeout, done), interrupted)
            }
            Transport::File(db) => {
                let target = Target::Answer { queue_key: self.queue_key.clone(), id: id.to_owned() };
                sleeper::listen(db, &target, timeout, interrupted)
            }
        };
        match ended? {
            Event::Answer(response) => Ok(*response),
            Event::Changed => unreachable!("a wait for an answer ends with one"),
        }
    }
}

impl Inbox {
    /// Starts a wait for a change after `since`; `done` as in [`QueueStore::begin_wait`].
    pub fn begin_watch(
        &self,
        since: i64,
        timeout: Option<Duration>,
        done: impl FnOnce(Result<Event>) + Send + 'static,
    ) -> Result<WaitHandle> {
        begin(&self.db, Target::Change { after: since }, timeout, Box::new(done))
    }

    /// Blocks until there is a change after `since`.
    pub fn wait_for_change(
        &self,
        since: i64,
        timeout: Option<Duration>,
        interrupted: impl FnMut() -> bool,
    ) -> Result<()> {
        sleeper::listen(&self.db, &Target::Change { after: since }, timeout, interrupted).map(|_| ())
    }
}
