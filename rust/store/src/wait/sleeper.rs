//! How does a thread sleep until its wait ends?
//!
//! Woken by the watcher it would be the second one that a processor has to get out of its sleep. So it listens to the
//! bell itself, looks itself, and leaves to the watcher what has no bell: heartbeat, lease, expiry and time-out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bunk::{Bunk, End};
use super::on_file::{look_for, start};
use super::standing::{Seen, Target};
use super::waiters::Waiters;
use super::watcher::Watcher;
use super::{Done, Event, WaitHandle, Waits, timed_out};
use crate::error::{Error, Result};
use crate::file::database::Database;
use crate::file::shared::Shared;

/// How often a thread that sleeps on its wait asks whether a signal came that did not wake it.
const SLICE: Duration = Duration::from_millis(200);
/// How soon a look that found the database busy is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Sleeps until `begin`'s callback was called. Signals end a `poll` at once; the slices are for one that came before it.
pub(crate) fn block(
    id: &str,
    timeout: Option<Duration>,
    begin: impl FnOnce(Done) -> Result<WaitHandle>,
    mut interrupted: impl FnMut() -> bool,
) -> Result<Event> {
    let bunk = Bunk::new(false)?;
    let (end, done) = bunk.end();
    let handle = begin(done)?;
    let own = OwnTime::of(handle.is_alone(), timeout);
    if own.is_endless() {
        handle.cancel();
        let reason = "is needed by a wait inside another wait's callback: the broker is only asked once that returns";
        return Err(Error::input("timeout", reason));
    }
    loop {
        if let Some(result) = end.lock().take() {
            return result;
        }
        if interrupted() {
            handle.cancel();
            return Err(Error::Interrupted);
        }
        if own.is_over() {
            handle.cancel();
            return Err(timed_out(id, timeout));
        }
        bunk.sleep(&end, own.slice(SLICE));
    }
}

/// What a wait that was begun on the watcher's own thread, in a callback, sees to itself: nobody else is there to.
struct OwnTime {
    alone: bool,
    deadline: Option<Instant>,
}

impl OwnTime {
    fn of(alone: bool, timeout: Option<Duration>) -> Self {
        OwnTime { alone, deadline: timeout.filter(|_| alone).and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    fn is_endless(&self) -> bool {
        self.alone && self.deadline.is_none()
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }

    fn slice(&self, slice: Duration) -> Duration {
        self.deadline.map_or(slice, |at| slice.min(at.saturating_duration_since(Instant::now())))
    }
}

/// Sleeps on the bell, and looks when it rings.
pub(crate) fn listen(
    db: &Database,
    target: &Target,
    timeout: Option<Duration>,
    interrupted: impl FnMut() -> bool,
) -> Result<Event> {
    let shared = db.shared()?;
    Waiters::on(&shared)?.bunks.lend(|bunk| {
        let (end, done) = bunk.end();
        match start(db, target, timeout, done, |file| bunk.listen_to(file, target.bell()))? {
            Some((watcher, id)) => sleep_in(bunk, &shared, target, timeout, &end, (&watcher, id), interrupted),
            None => end.lock().take().unwrap_or(Err(Error::Closed)),
        }
    })
}

fn sleep_in(
    bunk: &mut Bunk,
    shared: &Arc<Shared>,
    target: &Target,
    timeout: Option<Duration>,
    end: &End,
    (watcher, id): (&Watcher, u64),
    mut interrupted: impl FnMut() -> bool,
) -> Result<Event> {
    let own = OwnTime::of(watcher.is_this_thread(), timeout);
    let mut limit = SLICE;
    loop {
        if let Some(result) = end.lock().take() {
            return result;
        }
        if interrupted() {
            drop(watcher.leave(id));
            watcher.wake();
            return Err(Error::Interrupted);
        }
        if own.is_over() && watcher.leave(id).is_some() {
            return Err(timed_out(target.name(), timeout));
        }
        bunk.sleep(end, own.slice(limit));
        if !bunk.heard() && limit == SLICE && !own.alone {
            continue;
        }
        limit = SLICE;
        // Not behind a long read of another thread's: there are a time-out and signals to see to.
        let result = match look_for(shared, target, RETRY) {
            Ok(Seen::Open(_)) => continue,
            Ok(Seen::Ended(result)) => result,
            Err(Error::Busy { .. }) => {
                limit = RETRY;
                continue;
            }
            Err(error) => Err(error),
        };
        // What is left to do about the lease is not worth waking the watcher now.
        if watcher.leave(id).is_some() {
            return result;
        }
    }
}
