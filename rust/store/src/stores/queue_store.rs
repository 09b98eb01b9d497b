//! What does a sidecar do with its bottle's queue?

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::queue::asking;
use crate::queue::decide::{self, Decision};
use crate::queue::item::{InboxItem, InboxSummary};
use crate::queue::message::Message;
use crate::queue::proposal::Proposal;
use crate::queue::response::Response;
use crate::queue::review::Reviewed;
use crate::registration::record_damage;
use crate::rules::{MAX_NOTES_BYTES, check_name, check_text, new_id};
use crate::state::{ApplyState, Stored, Surface};
use crate::stores::transport::Transport;
use crate::stores::trust::Trust;
use crate::verbs::QueueVerbs;
use crate::wait::{Done, Event, Questions, WaitHandle};

/// What the operator says to whoever waits.
#[derive(Debug, Clone)]
pub enum Word {
    /// The answer, in effect.
    Answer(Box<Response>),
    /// What is asked back.
    Question(Box<Message>),
}

/// The queue of one bottle, as its sidecars use it.
pub struct QueueStore {
    pub(crate) transport: Transport,
    pub(crate) queue_key: String,
    trust: Arc<Trust>,
}

impl QueueStore {
    /// A handle on one queue; opens nothing.
    pub fn new(queue_key: &str, path: Option<&Path>) -> Result<Self> {
        check_name("queue_key", queue_key)?;
        Ok(QueueStore { transport: Transport::file(path)?, queue_key: queue_key.to_owned(), trust: Arc::default() })
    }

    /// A handle on the queue of the bottle that the broker's token speaks for, whose slug is the key; asks nothing yet.
    pub fn over(queue_key: &str, broker: &Broker) -> Result<Self> {
        check_name("queue_key", queue_key)?;
        let transport = Transport::broker(broker);
        Ok(QueueStore { transport, queue_key: queue_key.to_owned(), trust: Arc::default() })
    }

    /// The same, taking only answers that a key in this file signed; whoever can write to the database or is between it
    /// and here answers nothing.
    pub fn trusting(mut self, keyring: Option<&Path>) -> Self {
        self.trust = keyring.map_or_else(Arc::default, Trust::keys);
        self
    }

    /// Names the queue.
    pub fn queue_key(&self) -> &str {
        &self.queue_key
    }

    /// The path of the file it is in, or the broker's URL.
    pub fn location(&self) -> String {
        self.transport.location()
    }

    fn verbs(&self) -> &dyn QueueVerbs {
        match &self.transport {
            Transport::File(db) => db,
            Transport::Broker(broker) => broker,
        }
    }

    /// Ends its waits, and its use.
    pub fn close(&self) {
        self.transport.close();
    }

    /// Queues it, and returns the proposal that stands for it: itself, or an older pending one that asks the same.
    pub fn write_proposal(&self, proposal: &Proposal) -> Result<Proposal> {
        if proposal.bottle_slug != self.queue_key {
            let reason = format!("is {}, but this queue is that of {}", proposal.bottle_slug, self.queue_key);
            return Err(Error::proposal("bottle_slug", reason));
        }
        let written = self.verbs().write_proposal(&self.queue_key, proposal)?;
        self.trust.remember(proposal, &written);
        Ok(written)
    }

    /// The proposal with this id (or the one it coalesced with), archived ones included.
    pub fn read_proposal(&self, id: &str) -> Result<Option<Proposal>> {
        Ok(self.inspect(id)?.map(|item| item.proposal))
    }

    /// What can be decided now, in order of arrival, each with its payload: up to two hundred megabytes.
    pub fn list_pending_proposals(&self) -> Result<Vec<Proposal>> {
        self.verbs().pending_proposals(&self.queue_key)
    }

    /// What can be decided now, in order of arrival, without payloads.
    pub fn pending(&self) -> Result<Vec<InboxSummary>> {
        let items = self.verbs().pending(&self.queue_key)?;
        items.into_iter().map(|item| self.trust.listed(item)).collect()
    }

    /// The proposal and where it stands, if it is in this queue.
    pub fn inspect(&self, id: &str) -> Result<Option<InboxItem>> {
        let item = self.verbs().inspect(&self.queue_key, id)?.filter(|item| item.queue_key == self.queue_key);
        item.map(|item| self.noted(self.trust.item(id, item))).transpose()
    }

    /// This queue's newest proposals of any state, newest first.
    pub fn list_items(&self, limit: u32) -> Result<Vec<InboxSummary>> {
        let items = self.verbs().list_items(&self.queue_key, limit)?;
        items.into_iter().map(|item| self.trust.listed(item)).collect()
    }

    /// Decides as the operator would, for a caller that is one.
    pub fn write_response(&self, response: &Response) -> Result<Response> {
        let db = self.transport.host_only("decide")?;
        let item = self.inspect(&response.proposal_id)?;
        let item = item.ok_or_else(|| Error::not_found("proposal", &response.proposal_id))?;
        decide::decide(
            db,
            &Decision {
                proposal_id: &response.proposal_id,
                status: response.status.as_str().parse()?,
                reviewed: match response.review_sha256.as_deref() {
                    Some(hash) => Reviewed::Review(hash),
                    None => {
                        let known = response.payload_sha256.as_deref();
                        Reviewed::Payload(known.unwrap_or(&item.proposal.payload_sha256))
                    }
                },
                notes: &response.notes,
                final_file: response.final_file.as_deref(),
                decided_by: response.decided_by.as_deref(),
                surface: response.surface.as_ref().map_or(Ok(Surface::Api), |surface| surface.as_str().parse())?,
                grant: None,
            },
        )
    }

    /// Answers what the operator asked about a proposal, for all who wait for it; once for each question.
    pub fn answer(&self, id: &str, text: &str) -> Result<Message> {
        self.answer_as(&new_id(), id, text)
    }

    /// The same under an id of the caller's, so that it can be tried again: it is written once.
    pub fn answer_as(&self, message_id: &str, id: &str, text: &str) -> Result<Message> {
        asking::check_words("answer", text)?;
        let message_id = asking::check_id(message_id)?;
        self.verbs().answer(&self.queue_key, id, &message_id, text)
    }

    /// The answer, once it is in effect.
    pub fn read_response(&self, id: &str) -> Result<Option<Response>> {
        Ok(self.inspect(id)?.and_then(|item| match item.apply_state {
            Some(Stored::Known(ApplyState::Intended | ApplyState::Failed)) => None,
            _ => item.response,
        }))
    }

    /// Takes it back, for this requester: identical requests of others keep the row.
    pub fn withdraw_proposal(&self, id: &str, reason: &str) -> Result<()> {
        check_text("reason", reason.as_bytes(), MAX_NOTES_BYTES)?;
        self.verbs().withdraw_proposal(&self.queue_key, id, reason)
    }

    /// Puts it away; a pending one is withdrawn first, so that nobody waits for what cannot come. One that others ask for
    /// too stays theirs.
    pub fn archive_proposal(&self, id: &str) -> Result<()> {
        self.verbs().archive_proposal(&self.queue_key, id)
    }

    /// Starts a wait; `done` is called once, from the watcher's thread or, where the answer is there, from this one.
    pub fn begin_wait(
        &self,
        id: &str,
        timeout: Option<Duration>,
        done: impl FnOnce(Result<Event>) + Send + 'static,
    ) -> Result<WaitHandle> {
        self.begin_wait_for_word(id, timeout, Questions::Ignored, done)
    }

    /// The same, which the operator's asking back ends too.
    pub fn begin_wait_for_word(
        &self,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        done: impl FnOnce(Result<Event>) + Send + 'static,
    ) -> Result<WaitHandle> {
        let (trust, queue_key, asked) = (self.trust.clone(), self.queue_key.clone(), id.to_owned());
        let done: Done = Box::new(move |ended| {
            done(ended.and_then(|event| match event {
                Event::Answer(response) => {
                    trust.answer(&queue_key, &asked, *response).map(|response| Event::Answer(Box::new(response)))
                }
                Event::Question(message) => {
                    trust.question(&queue_key, &asked, *message).map(|message| Event::Question(Box::new(message)))
                }
                Event::Changed => Ok(Event::Changed),
            }));
        });
        self.verbs().begin_wait(&self.queue_key, id, timeout, questions, done)
    }

    /// Leaves in the log of a database that is here that something did not verify.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && let Some(reason) = error.damage()
            && let Some(db) = self.transport.database()
        {
            // What is refused is refused, whether or not that can be written down.
            let _ = record_damage(db, &self.queue_key, &reason);
        }
        result
    }

    /// Blocks until the answer is in effect. `interrupted` is asked at every signal and five times a second, and ends the wait with its yes.
    pub fn wait_for_response(
        &self,
        id: &str,
        timeout: Option<Duration>,
        interrupted: impl FnMut() -> bool,
    ) -> Result<Response> {
        match self.wait_for_word(id, timeout, Questions::Ignored, interrupted)? {
            Word::Answer(response) => Ok(*response),
            Word::Question(_) => unreachable!("questions are ignored"),
        }
    }

    /// Blocks until the answer is in effect, or until the operator asks back.
    pub fn wait_for_word(
        &self,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        mut interrupted: impl FnMut() -> bool,
    ) -> Result<Word> {
        match self.verbs().wait(&self.queue_key, id, timeout, questions, &mut interrupted)? {
            Event::Answer(response) => {
                self.noted(self.trust.answer(&self.queue_key, id, *response)).map(|found| Word::Answer(Box::new(found)))
            }
            Event::Question(message) => self
                .noted(self.trust.question(&self.queue_key, id, *message))
                .map(|found| Word::Question(Box::new(found))),
            Event::Changed => unreachable!("a wait for an answer ends with one"),
        }
    }
}
