//! What does a thread sleep on until its wait ends?

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::file::bell::{self, Heard, Listener};
use crate::wait::{Done, Event};

/// How many threads of a process may listen for themselves: a user has 128 inotify instances by default.
const MOST: usize = 4;

/// How a wait ended, once it has.
pub(super) type End = Arc<Mutex<Option<Result<Event>>>>;

/// What a thread sleeps on: a pipe that the end of its wait writes to, and its bell.
pub(super) struct Bunk {
    /// Both ends live as long as anybody may write: a pipe without a reader would end the process (SIGPIPE).
    pipe: Arc<(PipeReader, PipeWriter)>,
    listener: Option<Listener>,
    /// What is listened to, where the kernel tells of it.
    bell: Option<(PathBuf, String)>,
}

impl Bunk {
    pub(super) fn new(listens: bool) -> Result<Self> {
        let no_pipe = |error| Error::unavailable(Path::new("a wait's pipe"), error);
        let pipe = std::io::pipe().map_err(no_pipe)?;
        rustix::io::ioctl_fionbio(&pipe.0, true).map_err(|error| no_pipe(error.into()))?;
        rustix::io::ioctl_fionbio(&pipe.1, true).map_err(|error| no_pipe(error.into()))?;
        Ok(Bunk { pipe: Arc::new(pipe), listener: listens.then(Listener::default), bell: None })
    }

    /// Where the end of a wait will be, and what puts it there.
    pub(super) fn end(&self) -> (End, Done) {
        let end = End::default();
        let (filled, pipe) = (end.clone(), self.pipe.clone());
        let done = move |result| {
            *filled.lock() = Some(result);
            let _ = (&pipe.1).write(&[1]); // a full pipe wakes as well
        };
        (end, Box::new(done))
    }

    /// Listens to this bell only. `false` where the kernel would not tell of it: the watcher glances at such ones.
    pub(super) fn listen_to(&mut self, database: &Path, bell: &str) -> bool {
        self.bell = None;
        let Some(listener) = &mut self.listener else { return false };
        listener.listen_only_to(database, bell);
        let told = listener.listens_to(bell) && listener.ear().is_told();
        self.bell = told.then(|| (database.to_owned(), bell.to_owned()));
        told
    }

    /// Returns early for a signal, and after an end that was put before.
    pub(super) fn sleep(&self, end: &End, limit: Duration) {
        while matches!((&self.pipe.0).read(&mut [0; 64]), Ok(64)) {} // what an earlier wait's end left
        if end.lock().is_none() {
            let ear = self.listener.as_ref().filter(|_| self.bell.is_some()).map(Listener::ear);
            bell::sleep(&ear.unwrap_or_default(), &self.pipe.0, Some(limit));
        }
    }

    /// Whether the bell rang since the last call, or may have.
    pub(super) fn heard(&mut self) -> bool {
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
    pub(super) fn lend<T>(&self, work: impl FnOnce(&mut Bunk) -> Result<T>) -> Result<T> {
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
