//! How does a thread sleep until its wait ends?
//!
//! Woken by the watcher it would be the second one that a processor has to get out of its sleep. So it listens to the
//! bell itself, looks itself, and leaves to the watcher what has no bell: heartbeat, lease, expiry and time-out.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::on_file::{look_for, start};
use super::standing::{Seen, Target};
use super::watcher::Watcher;
use super::{Done, Event, WaitHandle};
use crate::error::{Error, Result};
use crate::file::bell::{self, Heard, Listener};
use crate::file::database::{Database, Shared};

/// How often a thread that sleeps on its wait asks whether a signal came that did not wake it.
const SLICE: Duration = Duration::from_millis(200);
/// How soon a look that found the database busy is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// How many threads of a process may listen for themselves: a user has 128 inotify instances by default.
const MOST: usize = 4;

/// Sleeps until `begin`'s callback was called. Signals end a `poll` at once; the slices are for one that came before it.
pub(crate) fn block(
    begin: impl FnOnce(Done) -> Result<WaitHandle>,
    mut interrupted: impl FnMut() -> bool,
) -> Result<Event> {
    let bunk = Bunk::new(false)?;
    let (end, done) = bunk.end();
    let handle = begin(done)?;
    loop {
        if let Some(result) = end.lock().take() {
            return result;
        }
        if interrupted() {
            handle.cancel();
            return Err(Error::Interrupted);
        }
        bunk.sleep(&end, SLICE);
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
    shared.bunks.lend(|bunk| {
        let (end, done) = bunk.end();
        match start(db, target, timeout, done, |file| bunk.listen_to(file, target.bell()))? {
            Some((watcher, id)) => sleep_in(bunk, &shared, target, &end, (&watcher, id), interrupted),
            None => end.lock().take().unwrap_or(Err(Error::Closed)),
        }
    })
}

fn sleep_in(
    bunk: &mut Bunk,
    shared: &Arc<Shared>,
    target: &Target,
    end: &End,
    (watcher, id): (&Watcher, u64),
    mut interrupted: impl FnMut() -> bool,
) -> Result<Event> {
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
        bunk.sleep(end, limit);
        if !bunk.heard() && limit == SLICE {
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

/// How a wait ended, once it has.
type End = Arc<Mutex<Option<Result<Event>>>>;

/// What a thread sleeps on: a pipe that the end of its wait writes to, and its bell.
struct Bunk {
    /// Both ends live as long as anybody may write: a pipe without a reader would end the process (SIGPIPE).
    pipe: Arc<(PipeReader, PipeWriter)>,
    listener: Option<Listener>,
    /// What is listened to, where the kernel tells of it.
    bell: Option<(PathBuf, String)>,
}

impl Bunk {
    fn new(listens: bool) -> Result<Self> {
        let no_pipe = |error| Error::unavailable(Path::new("a wait's pipe"), error);
        let pipe = std::io::pipe().map_err(no_pipe)?;
        rustix::io::ioctl_fionbio(&pipe.0, true).map_err(|error| no_pipe(error.into()))?;
        rustix::io::ioctl_fionbio(&pipe.1, true).map_err(|error| no_pipe(error.into()))?;
        Ok(Bunk { pipe: Arc::new(pipe), listener: listens.then(Listener::default), bell: None })
    }

    /// Where the end of a wait will be, and what puts it there.
    fn end(&self) -> (End, Done) {
        let end = End::default();
        let (filled, pipe) = (end.clone(), self.pipe.clone());
        let done = move |result| {
            *filled.lock() = Some(result);
            let _ = (&pipe.1).write(&[1]); // a full pipe wakes as well
        };
        (end, Box::new(done))
    }

    /// Listens to this bell only. `false` where the kernel would not tell of it: the watcher glances at such ones.
    fn listen_to(&mut self, database: &Path, bell: &str) -> bool {
        self.bell = None;
        let Some(listener) = &mut self.listener else { return false };
        listener.listen_only_to(database, bell);
        let told = listener.listens_to(bell) && listener.ear().is_told();
        self.bell = told.then(|| (database.to_owned(), bell.to_owned()));
        told
    }

    /// Returns early for a signal, and after an end that was put before.
    fn sleep(&self, end: &End, limit: Duration) {
        while matches!((&self.pipe.0).read(&mut [0; 64]), Ok(64)) {} // what an earlier wait's end left
        if end.lock().is_none() {
            let ear = self.listener.as_ref().filter(|_| self.bell.is_some()).map(Listener::ear);
            bell::sleep(&ear.unwrap_or_default(), &self.pipe.0, Some(limit));
        }
    }

    /// Whether the bell rang since the last call, or may have.
    fn heard(&mut self) -> bool {
        let Some((listener, (database, bell))) = self.listener.as_mut().zip(self.bell.as_ref()) else { return false };
        let heard = !matches!(listener.heard(), Heard::Bells(rung) if rung.is_empty());
        if !listener.listens_to(bell) {
            listener.add(database, bell); // somebody deleted it
        }
        heard
    }
}

/// Bunks for threads to borrow. Those that listen are never closed, as that takes the kernel 10 ms and more.
#[derive(Default)]
pub(crate) struct Bunks(Mutex<Free>);

#[derive(Default)]
struct Free {
    bunks: Vec<Bunk>,
    made: usize,
}

impl Bunks {
    fn lend<T>(&self, work: impl FnOnce(&mut Bunk) -> Result<T>) -> Result<T> {
        let free = self.0.lock().bunks.pop();
        let mut bunk = match free {
            Some(bunk) => bunk,
            None => {
                let mut free = self.0.lock();
                let bunk = Bunk::new(free.made < MOST)?;
                free.made += usize::from(bunk.listener.is_some());
                bunk
            }
        };
        let result = work(&mut bunk);
        if bunk.listener.is_some() {
            self.0.lock().bunks.push(bunk);
        }
        result
    }
}
