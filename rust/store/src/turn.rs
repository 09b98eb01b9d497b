//! In which order do writers of several processes write?
//!
//! SQLite's busy handler sleeps in growing steps while rivals re-take the lock, so a writer can starve for seconds
//! (FACTS 3). Writers here take two advisory locks first, a turnstile: who comes holds `next` while it waits for `turn`,
//! so whoever has just written stands behind it. Both are `flock`s, which the kernel drops with a dying process.
//! They order, they do not protect: SQLite's own lock does that, and a writer that gets no turn goes on with it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::layout;

/// How long a writer stands in the queue before it leaves the order to SQLite (a stopped process may hold the turn).
const PATIENCE: Duration = Duration::from_secs(5);

/// The locks' files, opened once per connection.
pub(crate) struct Turns {
    next: Arc<File>,
    turn: Arc<File>,
}

/// Held while writing; empty where the order was left to SQLite.
pub(crate) struct Turn(#[allow(dead_code)] Option<Flock>);

/// An advisory lock on a file. Let go explicitly: a child forked meanwhile has the same open file, so closing it here
/// would leave the lock with the child.
pub(crate) struct Flock(Arc<File>);

impl Drop for Flock {
    fn drop(&mut self) {
        // It cannot fail on a lock that is held.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Turns {
    /// `None` where the files cannot be made: then SQLite's order is the order.
    pub(crate) fn beside(database: &Path) -> Option<Self> {
        let open = |suffix: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            layout::open_beside(path.as_ref()).ok().map(Arc::new)
        };
        Some(Turns { next: open("-next")?, turn: open("-turn")? })
    }

    /// Waits its turn.
    pub(crate) fn take(&self) -> Turn {
        let deadline = Instant::now() + PATIENCE;
        // Whoever is next polls closely, it is one; those behind it have time.
        let next = lock(&self.next, deadline, Duration::from_micros(250));
        let turn = next.as_ref().and_then(|_| lock(&self.turn, deadline, Duration::from_micros(50)));
        Turn(turn)
    }

    /// The turn if nobody has it, for work that can wait.
    pub(crate) fn try_take(&self) -> Option<Turn> {
        lock(&self.turn, Instant::now(), Duration::ZERO).map(|turn| Turn(Some(turn)))
    }
}

/// Polling, because `flock` has no deadline and a signal handler must not be needed to end it.
pub(crate) fn lock(file: &Arc<File>, deadline: Instant, step: Duration) -> Option<Flock> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(Flock(file.clone())),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(step);
            }
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_at_a_time_and_a_dropped_one_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Turns::beside(&dir.path().join("x")).unwrap(), Turns::beside(&dir.path().join("x")).unwrap());
        let held = one.take();
        assert!(two.try_take().is_none());
        drop(held);
        assert!(two.try_take().is_some());
    }

    #[test]
    fn a_writer_waits_behind_the_one_that_is_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let (one, two) = (Turns::beside(&path).unwrap(), Turns::beside(&path).unwrap());
        let held = one.take();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(two.take()));
            while lock(&Turns::beside(&path).unwrap().next, Instant::now(), Duration::ZERO).is_some() {
                std::thread::yield_now(); // until the other stands in the queue
            }
            drop(held);
            waiting.join().unwrap();
        });
    }
}
