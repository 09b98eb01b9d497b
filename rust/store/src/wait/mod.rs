//! How does a waiter learn of its answer at once, and how does the operator learn that somebody waits?
//!
//! One watcher thread per process and database serves all waits (`watcher`); a thread that has nothing to do but wait
//! listens to its bell itself beside it (`sleeper`). Who waits subscribes first, looks second and sleeps third, so that
//! no answer falls between.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::queue::message::Message;
use crate::queue::response::Response;

mod bunk;
pub(crate) mod on_file;
pub(crate) mod sleeper;
pub(crate) mod standing;
mod waiters;
mod watcher;

/// What a wait ends with.
#[derive(Debug, Clone)]
pub enum Event {
    /// The answer, in effect.
    Answer(Box<Response>),
    /// What the operator asks back, where the wait was to end with that.
    Question(Box<Message>),
    /// There is a change after the one given.
    Changed,
}

/// Whether a wait for an answer ends with what the operator asks back, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Questions {
    /// It goes on.
    #[default]
    Ignored,
    /// It ends with the first one that is not answered, of those that came after the message with this id; empty: of all.
    After(String),
}

pub(crate) type Done = Box<dyn FnOnce(Result<Event>) + Send>;

/// A wait under way; dropping it lets it go on.
pub struct WaitHandle {
    under_way: Option<(Arc<dyn Waits>, u64)>,
}

/// Who serves waits: the watcher of a file, the poller of a broker.
pub(crate) trait Waits: Send + Sync {
    /// Ends one; its callback is not called any more.
    fn cancel(&self, id: u64);

    /// Whether this is its thread, in a callback: nobody else sees to waits meanwhile.
    fn is_this_thread(&self) -> bool;
}

impl WaitHandle {
    pub(crate) fn new(waits: Arc<dyn Waits>, id: u64) -> Self {
        WaitHandle { under_way: Some((waits, id)) }
    }

    /// Whether it was begun in a callback, so that nobody serves it until that has returned.
    pub(crate) fn is_alone(&self) -> bool {
        self.under_way.as_ref().is_some_and(|(waits, _)| waits.is_this_thread())
    }

    /// Ends it; its callback is not called any more.
    pub fn cancel(&self) {
        if let Some((waits, id)) = &self.under_way {
            waits.cancel(*id);
        }
    }
}

pub(crate) fn timed_out(id: &str, timeout: Option<Duration>) -> Error {
    Error::WaitTimeout { id: id.to_owned(), seconds: timeout.unwrap_or_default().as_secs_f64().to_string() }
}
