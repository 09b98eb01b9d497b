//! How does one thread serve all waits of a process on one database?
//!
//! It sleeps on the bells of what is waited for, looks at the rows once one rings (one query per queue), and once a second
//! asks SQLite whether anything changed at all, for writers that do not ring. It keeps the leases of its waits, all in one
//! transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::named_params;

use super::standing::{Pending, Seen, Target, answers, heed};
use super::{Done, Event, Waits, timed_out};
use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell::{self, Heard, INBOX, Listener};
use crate::file::connection::Opened;
use crate::file::shared::Shared;
use crate::file::transaction::Transaction;
use crate::patience;
use crate::queue::changes;
use crate::queue::life::expire;

/// Where nobody rings: how soon a commit is noticed.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a waiter counts as waiting after it was last heard of.
const LEASE: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);
/// How soon a lease is written or let go: what comes together goes into one transaction.
const GATHER: Duration = Duration::from_millis(20);
/// How soon a lease that found the database busy is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// A wait.
pub(super) struct Entry {
    handle: u64,
    target: Target,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    expires_at: Option<String>,
    /// The row its lease is on, which for a coalesced proposal has another id.
    row: Option<String>,
    done: Done,
    /// Whether its thread hears the bell itself.
    own: bool,
}

impl Entry {
    pub(super) fn new(
        handle: u64,
        target: Target,
        timeout: Option<Duration>,
        seen: Option<Pending>,
        done: Done,
        own: bool,
    ) -> Self {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (row, expires_at) = seen.map_or((None, None), |seen| (Some(seen.row), seen.expires_at));
        Entry { handle, target, timeout, deadline, expires_at, row, done, own }
    }
}

#[derive(Default)]
struct Leases {
    /// What this process wrote last, by row.
    held: HashMap<String, String>,
    /// When the next ones are to be written.
    due: Option<Instant>,
    /// When all of them are.
    renewal: Option<Instant>,
    /// Queues in which somebody was told of an expiry.
    expired: BTreeSet<String>,
}

impl Leases {
    /// No later than so: what asked for it meanwhile is not put off.
    fn due_in(&mut self, span: Duration) {
        let at = Instant::now() + span;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

struct State {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    listener: Listener,
    leases: Leases,
    /// Bells after which the rows could not be looked at, as the database was busy.
    missed: BTreeSet<String>,
    stopping: bool,
}

/// The thread's shared side.
pub(crate) struct Watcher {
    state: Mutex<State>,
    connection: Mutex<Option<Watching>>,
    wake: PipeWriter,
    /// Kept open as long as the other end, which would otherwise break (SIGPIPE).
    woken: PipeReader,
    thread: OnceLock<ThreadId>,
}

/// The watcher's connection, and the `data_version` it saw last, which means nothing on another one.
pub(crate) struct Watching {
    opened: Opened,
    version: Option<i64>,
}

impl Waits for Watcher {
    fn cancel(&self, id: u64) {
        let entry = self.take(&mut self.state.lock(), id);
        self.wake();
        drop(entry); // last and without the lock: what the callback holds may have a drop of its own
    }

    fn is_this_thread(&self) -> bool {
        self.thread.get() == Some(&thread::current().id())
    }
}

impl Watcher {
    pub(crate) fn start(shared: Weak<Shared>) -> std::io::Result<Arc<Self>> {
        let (reader, writer) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        let watcher = Arc::new(Watcher {
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                next: 1,
                listener: Listener::default(),
                leases: Leases::default(),
                missed: BTreeSet::new(),
                stopping: false,
            }),
            connection: Mutex::new(None),
            wake: writer,
            woken: reader,
            thread: OnceLock::new(),
        });
        let own = watcher.clone();
        thread::Builder::new()
            .name("bot-bottle-wait".to_owned())
            .stack_size(512 << 10)
            .spawn(move || own.run(&shared))?;
        Ok(watcher)
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake();
    }

    /// Ends the waits of one handle.
    pub(crate) fn end_all(&self, handle: u64) {
        let ended: Vec<Entry> = {
            let mut state = self.state.lock();
            let ids: Vec<u64> = state.entries.iter().filter(|(_, e)| e.handle == handle).map(|(id, _)| *id).collect();
            ids.into_iter().filter_map(|id| self.take(&mut state, id)).collect()
        };
        for entry in ended {
            (entry.done)(Err(Error::Closed));
        }
        self.wake();
    }

    /// The watcher's connection, for closing it with the others.
    pub(crate) fn connection(&self) -> MutexGuard<'_, Option<Watching>> {
        self.connection.lock()
    }

    /// Whether its connection has files open that are not at their paths any more.
    pub(crate) fn is_outdated(&self) -> bool {
        self.connection.lock().as_ref().is_some_and(|watching| !watching.opened.is_current())
    }

    pub(super) fn wake(&self) {
        // A full pipe wakes as well as a byte more would.
        let _ = (&self.wake).write(&[1]);
    }

    /// Begins to serve a wait, with its bell hung if the database is there.
    pub(super) fn enter(&self, entry: Entry, file: Option<&Path>) -> u64 {
        let mut state = self.state.lock();
        if !entry.own
            && !state.listener.listens_to(entry.target.bell())
            && let Some(file) = file
        {
            state.listener.add(file, entry.target.bell());
        }
        if entry.row.is_some() {
            state.leases.due_in(GATHER);
        }
        let id = state.next;
        state.next += 1;
        state.entries.insert(id, entry);
        id
    }

    /// Ends a wait whose end its caller knows: its callback, unless it has ended already.
    pub(super) fn leave(&self, id: u64) -> Option<Done> {
        self.take(&mut self.state.lock(), id).map(|entry| entry.done)
    }

    /// Takes an entry out, and its bell down if it was the last to listen to it.
    fn take(&self, state: &mut State, id: u64) -> Option<Entry> {
        let entry = state.entries.remove(&id)?;
        let bell = entry.target.bell();
        if !state.hung_bells().any(|other| other == bell) {
            state.listener.remove(bell);
        }
        if entry.row.is_some() {
            state.leases.due_in(GATHER); // to let it go
        }
        Some(entry)
    }

    fn run(&self, shared: &Weak<Shared>) {
        self.thread.get_or_init(|| thread::current().id());
        patience::never_ask();
        let mut beat = Instant::now() + HEARTBEAT;
        loop {
            let (ear, limit) = {
                let state = self.state.lock();
                if state.stopping {
                    return;
                }
                (state.listener.ear(), state.next_event(beat))
            };
            bell::sleep(&ear, &self.woken, limit);
            let mut wakes = [0; 64];
            while matches!((&self.woken).read(&mut wakes), Ok(64)) {}
            let Some(shared) = shared.upgrade() else { return };
            let mut bells = self.heard();
            if Instant::now() >= beat {
                beat = Instant::now() + HEARTBEAT;
                self.hang_bells(&shared);
                if self.changed(&shared) {
                    bells = self.all_bells();
                }
            }
            bells.append(&mut self.state.lock().missed);
            bells.extend(self.expiring());
            self.look(&shared, &bells);
            self.end_overdue();
            self.keep_leases(&shared);
        }
    }

    fn heard(&self) -> BTreeSet<String> {
        let heard = self.state.lock().listener.heard();
        match heard {
            Heard::Bells(names) => names.into_iter().collect(),
            Heard::Anything => self.all_bells(),
        }
    }

    fn all_bells(&self) -> BTreeSet<String> {
        self.state.lock().bells().map(str::to_owned).collect()
    }

    /// The bells of waits whose proposal has just expired: nobody rings for that.
    fn expiring(&self) -> BTreeSet<String> {
        let now = clock::now();
        let state = self.state.lock();
        let expired = state.entries.values().filter(|entry| entry.expires_at.as_ref().is_some_and(|at| *at <= now));
        expired.map(|entry| entry.target.bell().to_owned()).collect()
    }

    /// Bells that could not be hung when their wait began: the database was not there yet, or somebody removed them.
    fn hang_bells(&self, shared: &Shared) {
        let missing: Vec<String> = {
            let state = self.state.lock();
            state.hung_bells().filter(|bell| !state.listener.listens_to(bell)).map(str::to_owned).collect()
        };
        if missing.is_empty() {
            return;
        }
        if let Ok(Some(file)) = shared.file() {
            let mut state = self.state.lock();
            for bell in missing {
                state.listener.add(&file, &bell);
            }
        }
    }

    /// Runs `work` on the watcher's own connection, if there is a database.
    fn with_connection<T>(&self, shared: &Shared, work: impl FnOnce(&mut Watching) -> Result<T>) -> Result<Option<T>> {
        let mut slot = self.connection.lock();
        if !slot.as_ref().is_some_and(|watching| watching.opened.is_current()) {
            drop(slot);
            shared.close_outdated()?;
            slot = self.connection.lock();
        }
        if slot.is_none() {
            *slot = shared.connect(false)?.map(|opened| Watching { opened, version: None });
            if let Some(Watching { opened, .. }) = slot.as_ref() {
                // It writes leases only. They need no fsync, and must not hold up a wake-up behind other writers.
                opened.conn.pragma_update(None, "synchronous", "normal")?;
                opened.conn.busy_timeout(Duration::from_millis(5))?;
            }
        }
        let Some(watching) = slot.as_mut() else { return Ok(None) };
        work(watching).map(Some).map_err(|error| error.at(&watching.opened.file))
    }

    /// Whether anything was committed since the last call (sqlite.org/pragma.html#pragma_data_version), or may have been.
    fn changed(&self, shared: &Shared) -> bool {
        let changed = self.with_connection(shared, |watching| {
            let sql = "PRAGMA data_version";
            let now = Some(watching.opened.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?);
            Ok(std::mem::replace(&mut watching.version, now) != now)
        });
        !matches!(changed, Ok(Some(false)))
    }

    fn look(&self, shared: &Shared, bells: &BTreeSet<String>) {
        for bell in bells {
            let waits: Vec<(u64, Target)> = {
                let state = self.state.lock();
                let waits = state.entries.iter().filter(|(_, entry)| entry.target.bell() == bell);
                waits.map(|(id, entry)| (*id, entry.target.clone())).collect()
            };
            if waits.is_empty() {
                continue;
            }
            let ended = if bell == INBOX {
                self.with_connection(shared, |watching| changes::last_change(&watching.opened.conn)).map(|last| {
                    let last = last.unwrap_or(0);
                    let changed = waits.iter().filter(|(_, target)| target.is_passed_by(last));
                    changed.map(|(id, _)| (*id, Ok(Event::Changed))).collect::<Vec<_>>()
                })
            } else {
                self.answered(shared, bell, &waits)
            };
            match ended {
                Ok(ended) => self.end(ended),
                // Asked again soon: its bell has rung, and the heartbeat may have passed.
                Err(Error::Busy { .. }) => {
                    self.state.lock().missed.insert(bell.clone());
                }
                Err(error) => self.end(waits.iter().map(|(id, _)| (*id, Err(error.clone()))).collect()),
            }
        }
    }

    fn answered(&self, shared: &Shared, queue_key: &str, waits: &[(u64, Target)]) -> Result<Vec<(u64, Result<Event>)>> {
        let asked: BTreeSet<&str> = waits.iter().map(|(_, target)| target.name()).collect();
        let asked: Vec<&str> = asked.into_iter().collect();
        let found = self.with_connection(shared, |watching| answers(&watching.opened.conn, queue_key, &asked))?;
        let mut results: HashMap<String, Result<Event>> = HashMap::new();
        let mut open = Vec::new();
        match found {
            Some(found) => {
                let mut still_open = HashMap::new();
                for (id, seen) in found {
                    match seen {
                        Seen::Ended(result) => drop(results.insert(id, result)),
                        Seen::Open(pending) => drop(still_open.insert(id, pending)),
                    }
                }
                open = self.asked_back(shared, waits, &still_open)?;
                self.expect_expiries(queue_key, &still_open);
            }
            None => results.extend(asked.iter().map(|id| ((*id).to_owned(), Err(Error::not_found("proposal", id))))),
        }
        if results.values().any(|result| matches!(result, Err(Error::Expired { .. }))) {
            self.settle_expiries(shared, queue_key);
        }
        let ended = waits.iter().filter_map(|(id, target)| Some((*id, results.get(target.name())?.clone())));
        open.extend(ended);
        Ok(open)
    }

    /// The waits that end with a question, of those whose proposal is still open.
    fn asked_back(
        &self,
        shared: &Shared,
        waits: &[(u64, Target)],
        open: &HashMap<String, Option<Pending>>,
    ) -> Result<Vec<(u64, Result<Event>)>> {
        let mut ended = Vec::new();
        for (id, target) in waits {
            if let (Target::Answer { questions, .. }, Some(pending)) = (target, open.get(target.name())) {
                let seen = Seen::Open(pending.clone());
                let seen = self.with_connection(shared, |watching| heed(&watching.opened.conn, questions, seen))?;
                if let Some(Seen::Ended(result)) = seen {
                    ended.push((*id, result));
                }
            }
        }
        Ok(ended)
    }

    /// When each of these proposals may be found expired: never, once it is decided.
    fn expect_expiries(&self, queue_key: &str, open: &HashMap<String, Option<Pending>>) {
        for entry in self.state.lock().entries.values_mut() {
            if let Target::Answer { queue_key: key, id, .. } = &entry.target
                && key == queue_key
                && let Some(pending) = open.get(id)
            {
                entry.expires_at = pending.as_ref().and_then(|pending| pending.expires_at.clone());
            }
        }
    }

    fn end(&self, ended: Vec<(u64, Result<Event>)>) {
        let ended: Vec<(Entry, Result<Event>)> = {
            let mut state = self.state.lock();
            ended.into_iter().filter_map(|(id, result)| Some((self.take(&mut state, id)?, result))).collect()
        };
        for (entry, result) in ended {
            (entry.done)(result);
        }
    }

    fn end_overdue(&self) {
        let now = Instant::now();
        let overdue = {
            let state = self.state.lock();
            let overdue = state.entries.iter().filter(|(_, entry)| entry.deadline.is_some_and(|at| at <= now));
            overdue.map(|(id, entry)| (*id, Err(timed_out(entry.target.name(), entry.timeout)))).collect()
        };
        self.end(overdue);
    }

    /// Writes the leases of new waits, every 5 s those of all, lets go of those that ended, settles expiries: one
    /// transaction, no bell.
    fn keep_leases(&self, shared: &Shared) {
        let (waits, mut held, expired, all) = {
            let mut state = self.state.lock();
            let (leases, now) = (&mut state.leases, Instant::now());
            if leases.due.is_none_or(|due| due > now) && leases.expired.is_empty() {
                return;
            }
            leases.due = None;
            let all = leases.renewal.is_none_or(|at| at <= now);
            let (held, expired) = (std::mem::take(&mut leases.held), std::mem::take(&mut leases.expired));
            let waits: BTreeSet<String> = state.entries.values().filter_map(|entry| entry.row.clone()).collect();
            (waits, held, expired, all)
        };
        let until = clock::after(LEASE);
        let due: Vec<&String> = waits.iter().filter(|row| all || !held.contains_key(*row)).collect();
        let over: Vec<(&String, &String)> = held.iter().filter(|(row, _)| !waits.contains(*row)).collect();
        let written = self.with_connection(shared, |Watching { opened, .. }| {
            if due.is_empty() && over.is_empty() && expired.is_empty() {
                return Ok(());
            }
            let _turn = opened.turns.as_ref().and_then(|turns| turns.try_take());
            let tx = Transaction::begin(&opened.conn)?;
            for queue_key in &expired {
                expire(&tx, queue_key, &clock::now())?;
            }
            {
                let mut renew = tx.prepare_cached(RENEW_SQL)?;
                for row in &due {
                    renew.execute(named_params! {":id": row, ":until": until})?;
                }
                let mut release = tx.prepare_cached(RELEASE_SQL)?;
                for (row, lease) in &over {
                    release.execute(named_params! {":id": row, ":lease": lease, ":now": clock::now()})?;
                }
            }
            tx.commit()
        });
        let due: Vec<String> = due.into_iter().cloned().collect();
        let mut state = self.state.lock();
        let leases = &mut state.leases;
        if let Err(Error::Busy { .. }) = written {
            leases.due_in(RETRY);
            leases.held = held;
            leases.expired.extend(expired);
            return;
        }
        held.retain(|row, _| waits.contains(row));
        // On a database that is gone or cannot be written too: those who still wait may see it come back.
        held.extend(due.into_iter().map(|row| (row, until.clone())));
        leases.held = held;
        if all {
            leases.renewal = Some(Instant::now() + RENEWAL);
        }
        if let Some(at) = leases.renewal.filter(|_| !waits.is_empty()) {
            leases.due_in(at.saturating_duration_since(Instant::now()));
        }
    }

    /// Somebody is about to be told of an expiry: it becomes true for good, clock or not.
    pub(super) fn settle_expiries(&self, shared: &Shared, queue_key: &str) {
        self.state.lock().leases.expired.insert(queue_key.to_owned());
        self.keep_leases(shared);
        self.wake(); // to try again, if the database was busy
    }
}

const RENEW_SQL: &str = "UPDATE proposals SET waiting_until = :until WHERE id = :id AND state = 'pending'";

/// Only a lease that is still ours: another process may wait for the same row.
const RELEASE_SQL: &str =
    "UPDATE proposals SET waiting_until = :now WHERE id = :id AND waiting_until = :lease AND state = 'pending'";

impl State {
    fn bells(&self) -> impl Iterator<Item = &str> {
        self.entries.values().map(|entry| entry.target.bell())
    }

    /// Those that the watcher is to hear.
    fn hung_bells(&self) -> impl Iterator<Item = &str> {
        self.entries.values().filter(|entry| !entry.own).map(|entry| entry.target.bell())
    }

    /// How long the watcher may sleep; for ever while nobody waits.
    fn next_event(&self, beat: Instant) -> Option<Duration> {
        let now = Instant::now();
        let beat = (!self.entries.is_empty()).then_some(beat);
        let retry = (!self.missed.is_empty()).then(|| now + RETRY);
        let deadlines = self.entries.values().filter_map(|entry| entry.deadline);
        let soonest = deadlines.chain(beat).chain(retry).chain(self.leases.due).min()?;
        let expiry = self.entries.values().filter_map(|entry| entry.expires_at.as_deref()).min().map(clock::until);
        // Not at once: an expiry that could not be looked at yet must not keep the thread busy.
        let expiry = expiry.map_or(Duration::MAX, |expiry| expiry.max(Duration::from_millis(1)));
        Some(soonest.saturating_duration_since(now).min(expiry))
    }
}
