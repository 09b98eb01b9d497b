//! How does a wait on the file begin? It subscribes first, looks second and sleeps third, so that no answer falls between.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::file::database::Database;
use crate::file::shared::Shared;
use crate::patience::BUSY_TIMEOUT;
use crate::queue::changes;
use crate::wait::standing::{Seen, Target, answer_to, heed};
use crate::wait::waiters::Waiters;
use crate::wait::watcher::{Entry, Watcher};
use crate::wait::{Done, Event, WaitHandle, Waits, timed_out};

/// Calls the callback at once, or leaves the wait to the watcher.
pub(crate) fn begin(db: &Database, target: Target, timeout: Option<Duration>, done: Done) -> Result<WaitHandle> {
    let under_way = start(db, &target, timeout, done, |_| false)?;
    Ok(WaitHandle { under_way: under_way.map(|(watcher, id)| (watcher as Arc<dyn Waits>, id)) })
}

/// The same; `listen` is given the database, and says whether the caller hears the bell itself.
pub(crate) fn start(
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
    let watcher = Waiters::watcher(shared)?;
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

/// Waits for so long at most until no other thread reads.
pub(crate) fn look_for(shared: &Arc<Shared>, target: &Target, patience: Duration) -> Result<Seen> {
    match target {
        Target::Answer { queue_key, id, questions } => {
            let seen = shared.read_within(patience, |conn| heed(conn, questions, answer_to(conn, queue_key, id)?))?;
            if let Some(Seen::Ended(Err(Error::Expired { .. }))) = &seen {
                Waiters::watcher(shared)?.settle_expiries(shared, queue_key);
            }
            Ok(seen.unwrap_or_else(|| Seen::Ended(Err(Error::not_found("proposal", id)))))
        }
        Target::Change { after } => {
            let last = shared.read_within(patience, changes::last_change)?.unwrap_or(0);
            Ok(if last > *after { Seen::Ended(Ok(Event::Changed)) } else { Seen::Open(None) })
        }
    }
}
