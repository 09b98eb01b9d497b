//! What does a store ask of the broker? The verbs of a bottle, each one request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Broker;
use super::exchange::PATIENCE;
use crate::audit::entry::AuditEntry;
use crate::clock;
use crate::error::{Error, Result};
use crate::grant::Grant;
use crate::queue::item::{InboxItem, InboxSummary};
use crate::queue::message::Message;
use crate::queue::proposal::Proposal;
use crate::state::State;
use crate::verbs::QueueVerbs;
use crate::wait::{Done, Event, Questions, WaitHandle, sleeper};

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

/// A store's handle on the broker, as [`Database`](crate::Database) is one on the file.
pub(crate) struct Client {
    broker: Broker,
    id: u64,
    closed: AtomicBool,
}

#[derive(Deserialize)]
struct Bottle {
    slug: String,
    version: String,
    time: String,
}

#[derive(Deserialize)]
struct Queued {
    proposal: Proposal,
}

#[derive(Deserialize)]
struct Items {
    items: Vec<InboxSummary>,
}

#[derive(Serialize, Deserialize)]
struct Entries<T> {
    entries: T,
}

impl Client {
    pub(crate) fn new(broker: &Broker) -> Self {
        let id = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        Client { broker: broker.clone(), id, closed: AtomicBool::new(false) }
    }

    pub(crate) fn url(&self) -> &str {
        self.broker.url()
    }

    /// Ends this handle's waits with [`Error::Closed`] and its use; a verb under way ends with it too.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let poller = self.broker.0.links().poller.lock().clone();
        if let Some(poller) = poller {
            poller.end_all(self.id);
        }
    }

    /// Appends all or none. If the answer is lost they are sent again, and may be in the log twice, never not at all.
    pub(crate) fn write_audit_entries(&self, entries: &[AuditEntry]) -> Result<Vec<AuditEntry>> {
        for entry in entries {
            self.speak_for(entry.fields().bottle_slug)?;
        }
        let written: Entries<Vec<AuditEntry>> = self.post("/v1/audit", &Entries { entries })?;
        if written.entries.len() != entries.len() {
            let error = serde::de::Error::invalid_length(written.entries.len(), &"one entry for each that was sent");
            return Err(self.broker.0.exchange.unreadable(&error));
        }
        Ok(written.entries)
    }

    /// The live grant whose use would be spent next.
    pub(crate) fn find_grant(&self, bottle_slug: &str, tool: &str, fingerprint: &str) -> Result<Option<Grant>> {
        self.speak_for(bottle_slug)?;
        found(self.post("/v1/grants/find", &json!({"tool": tool, "fingerprint": fingerprint})))
    }

    /// Spends a use, or finds none. One whose answer was lost is spent all the same: fewer uses than given, never more.
    pub(crate) fn use_grant(&self, bottle_slug: &str, tool: &str, fingerprint: &str) -> Result<Option<Grant>> {
        self.speak_for(bottle_slug)?;
        found(self.post("/v1/grants/use", &json!({"tool": tool, "fingerprint": fingerprint})))
    }

    /// A token speaks for one bottle, whose slug is its queue's key: any other key must not lead to that queue.
    fn speak_for(&self, queue_key: &str) -> Result<()> {
        self.check_open()?;
        let links = self.broker.0.links();
        if let Some(slug) = links.slug.get() {
            return check_slug(slug, queue_key);
        }
        let bottle: Bottle = self.get("/v1/bottle")?;
        check_slug(links.slug.get_or_init(|| bottle.slug), queue_key)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.read(&self.ask("GET", path, None::<&()>)?)
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.read(&self.ask("POST", path, Some(body))?)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&impl Serialize>) -> Result<Vec<u8>> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| Error::input("request", error.to_string()))?,
            None => Vec::new(),
        };
        let body = (method == "POST").then_some(body);
        self.broker.0.exchange.ask(method, path, body.as_deref(), PATIENCE, &|| self.check_open())
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T> {
        self.broker.read(body)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }
}

impl QueueVerbs for Client {
    fn write_proposal(&self, queue_key: &str, proposal: &Proposal) -> Result<Proposal> {
        self.speak_for(queue_key)?;
        let queued: Queued = self.post("/v1/proposals", proposal)?;
        Ok(queued.proposal)
    }

    fn pending(&self, queue_key: &str) -> Result<Vec<InboxSummary>> {
        self.speak_for(queue_key)?;
        let listed: Items = self.get("/v1/proposals?pending=true")?;
        Ok(listed.items)
    }

    fn pending_proposals(&self, queue_key: &str) -> Result<Vec<Proposal>> {
        let mut listed = Vec::new();
        for item in self.pending(queue_key)? {
            // One that has ended meanwhile is not listed.
            let whole = self.inspect(queue_key, &item.proposal.id)?;
            listed.extend(whole.filter(|item| item.state == State::Pending).map(|item| item.proposal));
        }
        Ok(listed)
    }

    fn inspect(&self, queue_key: &str, id: &str) -> Result<Option<InboxItem>> {
        self.speak_for(queue_key)?;
        found(path_of(id, "").and_then(|path| self.get(&path)))
    }

    fn list_items(&self, queue_key: &str, limit: u32) -> Result<Vec<InboxSummary>> {
        self.speak_for(queue_key)?;
        if limit == 0 {
            return Ok(Vec::new());
        }
        let listed: Items = self.get(&format!("/v1/proposals?limit={limit}"))?;
        Ok(listed.items)
    }

    fn withdraw_proposal(&self, queue_key: &str, id: &str, reason: &str) -> Result<()> {
        self.speak_for(queue_key)?;
        self.ask("POST", &path_of(id, "/withdraw")?, Some(&json!({"reason": reason}))).map(drop)
    }

    /// Answers a question. If the answer to that is lost it is sent again, and is in the thread once, by its id.
    fn answer(&self, queue_key: &str, id: &str, message_id: &str, text: &str) -> Result<Message> {
        self.speak_for(queue_key)?;
        self.post(&path_of(id, "/answer")?, &json!({"id": message_id, "text": text}))
    }

    fn archive_proposal(&self, queue_key: &str, id: &str) -> Result<()> {
        self.speak_for(queue_key)?;
        self.ask("POST", &path_of(id, "/archive")?, None::<&()>).map(drop)
    }

    /// `done` is called from the poller's thread.
    fn begin_wait(
        &self,
        queue_key: &str,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        done: Done,
    ) -> Result<WaitHandle> {
        self.check_open()?;
        // Not looked up, for that would block; whose a proposal is, the broker knows anyway.
        if let Some(slug) = self.broker.0.links().slug.get() {
            check_slug(slug, queue_key)?;
        }
        let mut path = path_of(id, "/response")?;
        if let Questions::After(id) = questions {
            if !id.is_empty() {
                path_of(&id, "")?;
            }
            path.push_str(&format!("?questions_after={id}"));
        }
        let poller = self.broker.0.poller()?;
        let wait = poller.begin(self.id, id, path, timeout, done);
        if self.closed.load(Ordering::Acquire) {
            poller.end_all(self.id); // closed meanwhile, which has ended its other waits already
        }
        Ok(WaitHandle::new(poller, wait))
    }

    fn wait(
        &self,
        queue_key: &str,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Event> {
        let begin = |done| self.begin_wait(queue_key, id, timeout, questions, done);
        sleeper::block(id, timeout, begin, interrupted)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// What one finds who looks whether the broker can be worked with.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
#[allow(missing_docs)] // the rest is named for what it is
pub struct Probe {
    pub url: String,
    pub bottle: String,
    pub version: String,
    /// Median of a request and its answer, in milliseconds.
    pub round_trip_ms: f64,
    /// By how much this clock is ahead of the host's, in seconds: expiries are stamped here and judged there.
    pub clock_ahead_seconds: f64,
}

impl Broker {
    /// Asks once, without patience for one that is away, and measures.
    pub fn probe(&self) -> Result<Probe> {
        let mut round_trips = Vec::new();
        loop {
            let start = Instant::now();
            let body = self.0.exchange.ask("GET", "/v1/bottle", None, Duration::ZERO, &|| Ok(()))?;
            round_trips.push(start.elapsed());
            // The first connects.
            if round_trips.len() > 10 {
                let bottle: Bottle = self.read(&body)?;
                round_trips.remove(0);
                round_trips.sort_unstable();
                return Ok(Probe {
                    url: self.url().to_owned(),
                    bottle: bottle.slug,
                    version: bottle.version,
                    round_trip_ms: round_trips[round_trips.len() / 2].as_secs_f64() * 1e3,
                    clock_ahead_seconds: clock::seconds_between(&bottle.time, &clock::now()),
                });
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|error| self.0.exchange.unreadable(&error))
    }
}

fn check_slug(slug: &str, queue_key: &str) -> Result<()> {
    if slug == queue_key {
        return Ok(());
    }
    let reason = format!("the token speaks for bottle {slug}, not for {queue_key}; a sidecar works for its own bottle");
    Err(Error::AccessDenied { reason })
}

/// Only what may be an id becomes part of a path; what may not is nowhere.
fn path_of(id: &str, rest: &str) -> Result<String> {
    if !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(format!("/v1/proposals/{id}{rest}"));
    }
    Err(Error::not_found("proposal", id))
}

fn found<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.class() == "NotFoundError" => Ok(None),
        read => read.map(Some),
    }
}
