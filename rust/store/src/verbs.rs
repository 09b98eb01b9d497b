//! What does a sidecar do with its bottle's queue, whether that is in a file or behind the host's broker?

use std::time::Duration;

use crate::error::Result;
use crate::queue::item::{InboxItem, InboxSummary};
use crate::queue::message::Message;
use crate::queue::proposal::Proposal;
use crate::wait::{Done, Event, Questions, WaitHandle};

/// The verbs of a [`QueueStore`](crate::QueueStore), as each transport does them; what they take was checked by the store.
pub(crate) trait QueueVerbs {
    fn write_proposal(&self, queue_key: &str, proposal: &Proposal) -> Result<Proposal>;

    fn pending(&self, queue_key: &str) -> Result<Vec<InboxSummary>>;

    fn pending_proposals(&self, queue_key: &str) -> Result<Vec<Proposal>>;

    /// The proposal and where it stands; the store looks whether it is in this queue.
    fn inspect(&self, queue_key: &str, id: &str) -> Result<Option<InboxItem>>;

    fn list_items(&self, queue_key: &str, limit: u32) -> Result<Vec<InboxSummary>>;

    fn answer(&self, queue_key: &str, id: &str, message_id: &str, text: &str) -> Result<Message>;

    fn withdraw_proposal(&self, queue_key: &str, id: &str, reason: &str) -> Result<()>;

    fn archive_proposal(&self, queue_key: &str, id: &str) -> Result<()>;

    /// Starts a wait without blocking; `done` is called once.
    fn begin_wait(
        &self,
        queue_key: &str,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        done: Done,
    ) -> Result<WaitHandle>;

    /// Blocks until it ends, or `interrupted` says so.
    fn wait(
        &self,
        queue_key: &str,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Event>;
}
