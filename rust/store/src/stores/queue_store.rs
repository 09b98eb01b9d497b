//! What does a sidecar do with its bottle's queue?

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::named_params;

use crate::broker::Broker;
use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::column::Fields;
use crate::file::database::Database;
use crate::queue::asking;
use crate::queue::changes;
use crate::queue::decide::{self, Decision};
use crate::queue::item::{self, InboxItem, InboxSummary, why_not};
use crate::queue::life::{
    Arrival, add_alias, check_cap, expire, find_in_queue, insert, known_by_id, leave, others_ask, pending_twin,
    withdraw,
};
use crate::queue::managed_file;
use crate::queue::message::Message;
use crate::queue::proposal::{Asked, PENDING, Proposal};
use crate::queue::response::Response;
use crate::queue::review::Reviewed;
use crate::queue::revision::revise;
use crate::registration::{Registration, record_damage};
use crate::rules::{MAX_NOTES_BYTES, check_name, check_text, new_id};
use crate::state::ChangeKind;
use crate::statement::Keys;
use crate::stores::transport::Transport;
use crate::stores::trust::Trust;
use crate::wait::standing::Target;
use crate::wait::{Done, Event, Questions, WaitHandle, on_file, sleeper};

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
        let written = match &self.transport {
            Transport::Broker(broker) => broker.write_proposal(&self.queue_key, proposal),
            Transport::File(db) => self.queue_in(db, proposal),
        }?;
        self.trust.remember(proposal, &written);
        Ok(written)
    }

    fn queue_in(&self, db: &Database, proposal: &Proposal) -> Result<Proposal> {
        // Who waits for what it revises goes on.
        let rings = || proposal.revises.as_ref().map_or_else(Rings::inbox, |_| Rings::queue(&self.queue_key));
        let mut looked = None;
        loop {
            let written = db.write_then_sync(|tx| {
                let now = clock::now();
                let Arrival { managed, clear } = Arrival::of(proposal, tx, &self.queue_key, &now)?;
                let base = match base_of(managed, proposal, looked.as_ref()) {
                    Base::Known(base) => base,
                    Base::Look(path) => return Ok((Err(path), Rings::NONE)),
                };
                let mut revision = 1;
                if !clear || proposal.revises.is_some() {
                    expire(tx, &self.queue_key, &now)?;
                    if let Some(known) = known_by_id(tx, &self.queue_key, proposal)? {
                        return Ok((Ok(known), Rings::NONE));
                    }
                    revision = revise(tx, &self.queue_key, proposal, base.as_deref())?;
                    if let Some((seq, twin)) = pending_twin(tx, &self.queue_key, proposal, base.as_deref())? {
                        add_alias(tx, seq, proposal)?;
                        return Ok((Ok(twin), rings()));
                    }
                    check_cap(tx, &self.queue_key)?;
                }
                insert(tx, &self.queue_key, proposal, base.as_deref(), revision)?;
                changes::record(tx, ChangeKind::Proposed, &proposal.id, &proposal.bottle_slug, &proposal.tool)?;
                Ok((Ok(proposal.clone()), rings()))
            })?;
            match written {
                Ok(proposal) => return Ok(proposal),
                // Between two transactions: a slow disk behind a managed file must not hold up other bottles' writes.
                Err(path) => looked = Some((self.look(db, proposal, &path)?, path)),
            }
        }
    }

    /// The hash of a managed file as it is, if it is the one that the host registered: no other path is opened.
    fn look(&self, db: &Database, proposal: &Proposal, path: &str) -> Result<Option<String>> {
        let keys = Keys::of(db);
        let registered = db.read(|conn| Registration::read_verified(conn, &keys, &proposal.bottle_slug));
        match registered {
            Ok(Some(Some(found))) if found.path_of(&proposal.tool) == Some(path) => Ok(managed_file::seen(path)),
            Ok(_) | Err(Error::Unverified { .. } | Error::Key { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The proposal with this id (or the one it coalesced with), archived ones included.
    pub fn read_proposal(&self, id: &str) -> Result<Option<Proposal>> {
        Ok(self.inspect(id)?.map(|item| item.proposal))
    }

    /// What can be decided now, in order of arrival, each with its payload: up to two hundred megabytes.
    pub fn list_pending_proposals(&self) -> Result<Vec<Proposal>> {
        let db = match &self.transport {
            Transport::Broker(broker) => {
                let mut listed = Vec::new();
                for item in broker.pending(&self.queue_key)? {
                    // One that has ended meanwhile is not listed.
                    let whole = broker.inspect(&self.queue_key, &item.proposal.id)?;
                    listed.extend(whole.filter(|item| item.state == "pending").map(|item| item.proposal));
                }
                return Ok(listed);
            }
            Transport::File(db) => db,
        };
        let sql = format!(
            "SELECT {} FROM {PENDING} AND p.queue_key = :queue_key
             AND (p.expires_at IS NULL OR p.expires_at > :now) ORDER BY p.seq",
            Proposal::COLUMNS
        );
        let listed = db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let asked = named_params! {":queue_key": self.queue_key, ":now": clock::now()};
            let rows = statement.query_map(asked, |row| Proposal::from_row(&Fields::of(row)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        Ok(listed.unwrap_or_default())
    }

    /// What can be decided now, in order of arrival, without payloads.
    pub fn pending(&self) -> Result<Vec<InboxSummary>> {
        let items = match &self.transport {
            Transport::Broker(broker) => broker.pending(&self.queue_key)?,
            Transport::File(db) => {
                db.read(|conn| item::pending(conn, Some(&self.queue_key), None))?.unwrap_or_default()
            }
        };
        items.into_iter().map(|item| self.trust.listed(item)).collect()
    }

    /// The proposal and where it stands, if it is in this queue.
    pub fn inspect(&self, id: &str) -> Result<Option<InboxItem>> {
        let item = match &self.transport {
            Transport::Broker(broker) => broker.inspect(&self.queue_key, id)?,
            Transport::File(db) => db.read(|conn| item::read(conn, id))?.flatten(),
        };
        let item = item.filter(|item| item.queue_key == self.queue_key);
        item.map(|item| self.noted(self.trust.item(id, item))).transpose()
    }

    /// This queue's newest proposals of any state, newest first.
    pub fn list_items(&self, limit: u32) -> Result<Vec<InboxSummary>> {
        let items = match &self.transport {
            Transport::Broker(broker) => broker.list_items(&self.queue_key, limit)?,
            Transport::File(db) => {
                db.read(|conn| item::newest_of_queue(conn, &self.queue_key, limit))?.unwrap_or_default()
            }
        };
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
                status: &response.status,
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
                surface: response.surface.as_deref().unwrap_or("api"),
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
        match &self.transport {
            Transport::Broker(broker) => broker.answer(&self.queue_key, id, &message_id, text),
            Transport::File(db) => db.write(|tx| {
                expire(tx, &self.queue_key, &clock::now())?;
                let found = find_in_queue(tx, &self.queue_key, id)?;
                Ok((asking::answer(tx, &found, &message_id, text)?, Rings::inbox()))
            }),
        }
    }

    /// The answer, once it is in effect.
    pub fn read_response(&self, id: &str) -> Result<Option<Response>> {
        Ok(self.inspect(id)?.and_then(|item| match item.apply_state.as_deref() {
            Some("intended" | "failed") => None,
            _ => item.response,
        }))
    }

    /// Takes it back, for this requester: identical requests of others keep the row.
    pub fn withdraw_proposal(&self, id: &str, reason: &str) -> Result<()> {
        check_text("reason", reason.as_bytes(), MAX_NOTES_BYTES)?;
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.withdraw_proposal(&self.queue_key, id, reason),
            Transport::File(db) => db,
        };
        db.write(|tx| {
            expire(tx, &self.queue_key, &clock::now())?;
            let found = find_in_queue(tx, &self.queue_key, id)?;
            match found.state.as_str() {
                "pending" => {}
                "withdrawn" => return Ok(((), Rings::NONE)),
                _ => return Err(why_not(tx, &found)?),
            }
            leave(tx, &found, id)?;
            if others_ask(tx, &found)? {
                // The leaver's own waits end; the row stays for the others.
                return Ok(((), Rings::queue(&self.queue_key)));
            }
            withdraw(tx, &found, reason)?;
            Ok(((), Rings::queue(&self.queue_key)))
        })
    }

    /// Puts it away; a pending one is withdrawn first, so that nobody waits for what cannot come. One that others ask for
    /// too stays theirs.
    pub fn archive_proposal(&self, id: &str) -> Result<()> {
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.archive_proposal(&self.queue_key, id),
            Transport::File(db) => db,
        };
        // One whose file is on its way is first ended, under the lock of whoever puts it in place.
        let mut called_off = None;
        while !self.archive_in(db, id, called_off.is_some())? {
            called_off = Some(managed_file::call_off(db, id)?);
        }
        Ok(())
    }

    /// `false`: its decision is still on its way, which `called_off` rules out.
    fn archive_in(&self, db: &Database, id: &str, called_off: bool) -> Result<bool> {
        db.write(|tx| {
            expire(tx, &self.queue_key, &clock::now())?;
            let found = find_in_queue(tx, &self.queue_key, id)?;
            if found.archived_at.is_some() {
                return Ok((true, Rings::NONE));
            }
            if !called_off && managed_file::is_intended(tx, found.seq)? {
                return Ok((false, Rings::NONE));
            }
            if found.state == "pending" {
                leave(tx, &found, id)?;
                if others_ask(tx, &found)? {
                    return Ok((true, Rings::queue(&self.queue_key)));
                }
                withdraw(tx, &found, "archived before a decision")?;
            }
            const ARCHIVE_SQL: &str =
                "UPDATE proposals SET archived_at = :now WHERE seq = :seq AND archived_at IS NULL";
            tx.prepare_cached(ARCHIVE_SQL)?.execute(named_params! {":seq": found.seq, ":now": clock::now()})?;
            changes::record(tx, ChangeKind::Archived, &found.id, &found.bottle_slug, &found.tool)?;
            Ok((true, Rings::queue(&self.queue_key)))
        })
    }
}

/// What the operator says to whoever waits.
#[derive(Debug, Clone)]
pub enum Word {
    /// The answer, in effect.
    Answer(Box<Response>),
    /// What is asked back.
    Question(Box<Message>),
}

/// What a proposal is written against, or the managed file to look at first.
enum Base {
    Known(Option<String>),
    Look(String),
}

/// As the proposal says; or the managed file as it is, or, where it cannot be seen, as the host last saw it.
fn base_of(managed: Option<(String, String)>, proposal: &Proposal, looked: Option<&(Option<String>, String)>) -> Base {
    if let Some(hash) = proposal.current_file_hash.as_ref().filter(|hash| !hash.is_empty()) {
        return Base::Known(Some(hash.clone()));
    }
    match (managed, looked) {
        (None, _) => Base::Known(None),
        (Some((path, known)), Some((seen, at))) if *at == path => Base::Known(Some(seen.clone().unwrap_or(known))),
        (Some((path, _)), _) => Base::Look(path),
    }
}

impl QueueStore {
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
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.begin_wait(&self.queue_key, id, timeout, questions, done),
            Transport::File(db) => db,
        };
        let target = Target::Answer { queue_key: self.queue_key.clone(), id: id.to_owned(), questions };
        on_file::begin(db, target, timeout, done)
    }

    /// Leaves in the log of a database that is here that something did not verify.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let (Err(error), Transport::File(db)) = (&result, &self.transport)
            && let Some(reason) = error.damage()
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
        interrupted: impl FnMut() -> bool,
    ) -> Result<Word> {
        let ended = match &self.transport {
            Transport::Broker(broker) => {
                let begin = |done| broker.begin_wait(&self.queue_key, id, timeout, questions, done);
                sleeper::block(id, timeout, begin, interrupted)
            }
            Transport::File(db) => {
                let target = Target::Answer { queue_key: self.queue_key.clone(), id: id.to_owned(), questions };
                sleeper::listen(db, &target, timeout, interrupted)
            }
        };
        match ended? {
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
