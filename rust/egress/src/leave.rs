//! May this secret leave for that host? Asks the operator and remembers nothing but fingerprints.
//!
//! What is stored and shown is where a secret was found and its fingerprint: the host and a keyed hash, HMAC-SHA256 with
//! a key of this installation. A grant that the operator gave with an approval is about that fingerprint; the approval
//! itself is about one request, which its text names with all that makes it this one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bot_bottle_routes::Refusal;
use bot_bottle_store::{
    Error, Event, GrantStore, Proposal, QueueStore, Response, Result as StoreResult, Status, Tool, Vocabulary,
    WaitHandle,
};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;

use crate::authority::write_private;
use crate::settings::{Problem, strerror};

/// For so long a rejection answers the same question again.
const COOL_DOWN: Duration = Duration::from_secs(60);
/// Characters of a host in a fingerprint; the hash covers the whole name.
const HOST_SHOWN: usize = 120;
const KEY_BYTES: usize = 32;
/// Fingerprints of which it is known how often they were asked about.
const MAX_SEEN: usize = 4096;

/// A secret that a request would carry somewhere, as the operator is asked about it.
#[derive(Clone)]
pub struct Question {
    pub fingerprint: String,
    /// What the operator may have covered together with it.
    pub kind: Option<String>,
    /// What the operator reads. The same request gives the same text, so that its retries are one proposal.
    pub payload: String,
    pub justification: String,
}

pub struct Leave {
    slug: String,
    queue: QueueStore,
    grants: GrantStore,
    key: Vec<u8>,
    hold: Duration,
    memory: Mutex<Memory>,
    stopping: watch::Sender<bool>,
    /// Changes with every approval that came with a grant, which may cover what others are held for.
    given: watch::Sender<()>,
    /// Told to what blocks on the broker.
    stopped: Arc<AtomicBool>,
    /// Proposals that are written or withdrawn just now.
    busy: AtomicUsize,
}

#[derive(Default)]
struct Memory {
    rejected: HashMap<String, (Instant, Refusal)>,
    /// By the text of the question.
    asked: HashMap<String, Asked>,
    /// By proposal.
    approved: HashMap<String, (Instant, Arc<WithGrant>)>,
    /// By fingerprint: when it was first asked about, and how often.
    seen: HashMap<String, (String, u32)>,
}

/// Whether an approval came with a grant, once the first of its requests has looked.
type WithGrant = tokio::sync::Mutex<Option<bool>>;

/// A question whose answer the next try of its request waits for.
struct Asked {
    proposal_id: String,
    until: Instant,
    answer: watch::Receiver<Option<Result<(), Refusal>>>,
}

/// The key of this installation's fingerprints; made on first use, readable by its owner alone.
pub fn fingerprint_key(path: &Path) -> Result<Vec<u8>, Problem> {
    let cannot = |error: io::Error| format!("EGRESS_FINGERPRINT_KEY_FILE {}: {}.", path.display(), strerror(&error));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(cannot)?;
    }
    let mut fresh = [0; KEY_BYTES];
    getrandom::fill(&mut fresh).map_err(|error| format!("the system gives no random bytes: {error}."))?;
    match write_private(path, &fresh) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(error).into()),
        _ => {}
    }
    let key = fs::read(path).map_err(cannot)?;
    if key.len() < KEY_BYTES {
        let short = format!("{} holds less than {KEY_BYTES} bytes; remove it and a new key is made.", path.display());
        return Err(short.into());
    }
    Ok(key)
}

impl Leave {
    pub fn new(
        slug: &str,
        queue: QueueStore,
        grants: GrantStore,
        key: Vec<u8>,
        hold: Duration,
        stopped: Arc<AtomicBool>,
    ) -> Self {
        Leave {
            slug: slug.to_owned(),
            queue,
            grants,
            key,
            hold,
            memory: Mutex::default(),
            stopping: watch::Sender::new(false),
            given: watch::Sender::new(()),
            stopped,
            busy: AtomicUsize::new(0),
        }
    }

    /// A keyed hash of some parts, none of which can be taken for a piece of another.
    pub fn keyed_hash(&self, parts: &[&[u8]]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                mac.update(b"\0");
            }
            mac.update(part);
        }
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What grants and proposals say instead of the secret.
    pub fn fingerprint(&self, host: &str, secret: &[u8]) -> String {
        let shown: String = host.chars().take(HOST_SHOWN).collect();
        format!("{shown}:{}", self.keyed_hash(&[host.as_bytes(), secret]))
    }

    /// Whether it may go without being asked about: an earlier try of its request was answered with yes, or a grant covers
    /// it. What lets it go is used up by that.
    pub async fn lets(self: &Arc<Self>, question: &Question) -> bool {
        {
            let mut memory = self.memory();
            if let Some(asked) = memory.asked.get(&question.payload).filter(|asked| Instant::now() < asked.until) {
                // The answer comes before grants: a use of one that came with it is spent on this request by then.
                let Some(answer) = asked.answer.borrow().clone() else { return false };
                memory.asked.remove(&question.payload); // one approval, one request
                if answer.is_ok() {
                    return true;
                }
            }
        }
        self.granted(question).await
    }

    /// Whether a grant covers it, or all of its kind; one use is spent.
    async fn granted(self: &Arc<Self>, question: &Question) -> bool {
        for about in [Some(&question.fingerprint), question.kind.as_ref()].into_iter().flatten() {
            let (leave, about) = (self.clone(), about.clone());
            let used =
                spawn_blocking(move || leave.grants.use_grant(&leave.slug, Tool::EgressTokenAllow.as_str(), &about));
            // An error is no leave: then it is asked, which says what is wrong.
            if matches!(used.await, Ok(Ok(Some(_)))) {
                return true;
            }
        }
        false
    }

    /// When this was asked about for the first time since the start, and how often it has been, this time included.
    fn seen(&self, fingerprint: &str) -> (String, u32) {
        let mut memory = self.memory();
        if memory.seen.len() >= MAX_SEEN && !memory.seen.contains_key(fingerprint) {
            memory.seen.clear();
        }
        let seen = memory.seen.entry(fingerprint.to_owned()).or_insert_with(|| (bot_bottle_store::now(), 0));
        seen.1 = seen.1.saturating_add(1);
        seen.clone()
    }

    /// Waits until every secret may leave (`None`) or one may not. Dropped before that, it withdraws what it asked.
    ///
    /// `hold`: whether the request can wait; otherwise it is refused, and the answer awaits its next try.
    pub async fn ask(self: &Arc<Self>, questions: Vec<Question>, hold: bool) -> Option<Refusal> {
        let mut asks: FuturesUnordered<_> = questions.into_iter().map(|each| self.ask_one(each, hold)).collect();
        while let Some(answer) = asks.next().await {
            if let Err(refusal) = answer {
                // One no is enough: nobody needs to decide about the others.
                return Some(refusal);
            }
        }
        None
    }

    /// Withdraws what is being asked; the requests held are refused.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            // The held ones notice the stop first, and then begin to withdraw.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.busy.load(Ordering::SeqCst) == 0 || Instant::now() > deadline {
                break;
            }
        }
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn ask_one(self: &Arc<Self>, question: Question, hold: bool) -> Result<(), Refusal> {
        if let Some(refusal) = self.rejected(&question) {
            return Err(refusal);
        }
        if hold {
            return self.propose(&question, None).await;
        }
        let refused = |proposal_id: &str| {
            let reason = "The request carries a secret and is too large to be held while the operator decides; \
                          send it again once the proposal is approved.";
            let more = vec![("proposal_id", proposal_id.to_owned()), ("fingerprint", question.fingerprint.clone())];
            Refusal { more, ..Refusal::new("secret_pending", reason) }
        };
        let mut memory = self.memory();
        memory.asked.retain(|_, asked| Instant::now() < asked.until);
        if let Some(asked) = memory.asked.get(&question.payload) {
            return Err(refused(&asked.proposal_id));
        }
        let id = bot_bottle_store::new_id();
        let (sender, answer) = watch::channel(None);
        let until = Instant::now() + 2 * self.hold;
        memory.asked.insert(question.payload.clone(), Asked { proposal_id: id.clone(), until, answer });
        drop(memory);
        let (leave, asked, given) = (self.clone(), question.clone(), id.clone());
        tokio::spawn(async move {
            let answer = leave.propose(&asked, Some(&given)).await;
            sender.send_replace(Some(answer));
        });
        Err(refused(&id))
    }

    /// A rejection of the same secret that still counts.
    fn rejected(&self, question: &Question) -> Option<Refusal> {
        let memory = self.memory();
        let (until, refusal) = memory.rejected.get(&question.fingerprint)?;
        (Instant::now() < *until).then(|| refusal.clone())
    }

    async fn propose(self: &Arc<Self>, question: &Question, id: Option<&str>) -> Result<(), Refusal> {
        let proposal = match self.proposal(question, id) {
            Ok(proposal) => proposal,
            Err(error) => return Err(self.refusal(&error, id.unwrap_or_default(), question)),
        };
        let id = proposal.id.clone();
        let life = Arc::new(Life { leave: self.clone(), id: id.clone(), state: Mutex::default() });
        let guard = Guard(life.clone());
        let written = self.blocking(move || life.write(&proposal)).await;
        let stands_for = written.map_err(|error| self.refusal(&error, &id, question))?;
        let response = match self.wait(&id, question).await {
            Ok(Some(response)) => {
                guard.0.end();
                response
            }
            Ok(None) => {
                guard.0.end();
                let (leave, covered) = (self.clone(), id.clone());
                let reason = "a grant that was given meanwhile covers it";
                // Decided by now is as good.
                let _ = self.blocking(move || leave.queue.withdraw_proposal(&covered, reason)).await;
                return Ok(());
            }
            Err(error) => {
                if !matches!(error, Error::Closed) {
                    guard.0.end();
                }
                return Err(self.refusal(&error, &id, question));
            }
        };
        if response.status != Status::Approved {
            let notes = if response.notes.is_empty() { "no reason given" } else { &response.notes };
            let refusal = Refusal {
                more: vec![("proposal_id", id), ("fingerprint", question.fingerprint.clone())],
                ..Refusal::new("secret_rejected", format!("The operator said no: {notes}"))
            };
            let mut memory = self.memory();
            memory.rejected.retain(|_, (until, _)| Instant::now() < *until);
            memory.rejected.insert(question.fingerprint.clone(), (Instant::now() + COOL_DOWN, refusal.clone()));
            return Err(refusal);
        }
        self.spend(&stands_for, question, id).await
    }

    /// If the approval came with a grant, this is a use of it: of requests that joined, only as many go on.
    async fn spend(self: &Arc<Self>, stands_for: &str, question: &Question, id: String) -> Result<(), Refusal> {
        let cell = {
            let mut memory = self.memory();
            memory.approved.retain(|_, (until, _)| Instant::now() < *until);
            let fresh = || (Instant::now() + COOL_DOWN, Arc::default());
            memory.approved.entry(stands_for.to_owned()).or_insert_with(fresh).1.clone()
        };
        let mut with_grant = cell.lock().await;
        let used = self.granted(question).await;
        if used {
            self.given.send_replace(());
        }
        if *with_grant.get_or_insert(used) && !used {
            let reason = "The operator's approval was for fewer requests than were waiting for it; send it again.";
            let more = vec![("proposal_id", id), ("fingerprint", question.fingerprint.clone())];
            return Err(Refusal { more, ..Refusal::new("secret_approval_spent", reason) });
        }
        Ok(())
    }

    fn proposal(&self, question: &Question, id: Option<&str>) -> StoreResult<Proposal> {
        let (first, count) = self.seen(&question.fingerprint);
        let before = match count {
            1 => "It was not asked about before.".to_owned(),
            _ => format!("It was first asked about at {first}, and {count} times so far."),
        };
        let about = match &question.kind {
            Some(kind) => format!("{} | {kind}", question.fingerprint),
            None => question.fingerprint.clone(),
        };
        let made = Proposal::new(
            &self.slug,
            Tool::EgressTokenAllow.as_str(),
            question.payload.as_bytes(),
            &format!("{} {before}", question.justification),
            None,
            Some(self.hold),
            Some(&about),
        )?;
        match id {
            None => Ok(made),
            Some(id) => Proposal::checked(
                id,
                &made.bottle_slug,
                &made.tool,
                made.proposed_file.as_bytes(),
                &made.justification,
                &made.arrival_timestamp,
                None,
                made.expires_at.as_deref(),
                made.fingerprint.as_deref(),
            ),
        }
    }

    /// The answer; `None` if a grant covers the question before somebody answers it.
    async fn wait(self: &Arc<Self>, id: &str, question: &Question) -> StoreResult<Option<Response>> {
        let (mut stopping, mut given) = (self.stopping.subscribe(), self.given.subscribe());
        // One may have been given since it was last looked for.
        given.mark_changed();
        let (sender, mut answer) = oneshot::channel();
        let (leave, id) = (self.clone(), id.to_owned());
        let timeout = Some(self.hold + Duration::from_secs(1));
        let begun = self.blocking(move || {
            leave.queue.begin_wait(&id, timeout, move |ended| {
                let _ = sender.send(ended);
            })
        });
        let _handle = Waiting(begun.await?);
        loop {
            tokio::select! {
                biased;
                ended = &mut answer => return match ended {
                    Ok(Ok(Event::Answer(response))) => Ok(Some(*response)),
                    Ok(Ok(Event::Changed | Event::Question(_))) | Err(_) => Err(Error::Closed),
                    Ok(Err(error)) => Err(error),
                },
                () = async { let _ = stopping.wait_for(|stopping| *stopping).await; } => return Err(Error::Closed),
                Ok(()) = given.changed() => {}
            }
            if self.granted(question).await {
                return Ok(None);
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        spawn_blocking(work).await.unwrap_or(Err(Error::Closed))
    }

    fn refusal(&self, error: &Error, id: &str, question: &Question) -> Refusal {
        let said = error.to_string();
        let said = said.trim_end_matches('.');
        let (name, reason, status) = match error.class() {
            "ProposalExpiredError" | "WaitTimeoutError" => {
                let seconds = self.hold.as_secs_f64();
                ("secret_expired", format!("Nobody decided within {seconds} s; nothing was sent."), 403)
            }
            "ProposalWithdrawnError" => ("secret_withdrawn", format!("{said}; nothing was sent."), 403),
            "ClosedError" => ("secret_withdrawn", "The egress proxy is stopping; nothing was sent.".to_owned(), 403),
            _ => {
                let reason = format!("The request carries a secret and the operator cannot be asked: {said}.");
                ("secret_not_asked", reason, 503)
            }
        };
        let more = vec![("proposal_id", id.to_owned()), ("fingerprint", question.fingerprint.clone())];
        Refusal { more, ..Refusal::new(name, reason) }.status(status)
    }
}

/// Cancels the wait when it is dropped.
struct Waiting(WaitHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A proposal from its writing to its end; whoever leaves in between withdraws it, whichever comes first.
struct Life {
    leave: Arc<Leave>,
    id: String,
    state: Mutex<State>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Unwritten,
    Written,
    Left,
    Ended,
}

impl Life {
    fn set(&self, new: State) -> State {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::replace(&mut *state, new)
    }

    fn write(&self, proposal: &Proposal) -> StoreResult<String> {
        self.leave.busy.fetch_add(1, Ordering::SeqCst);
        let written = self.leave.queue.write_proposal(proposal);
        if written.is_ok() && self.set(State::Written) == State::Left {
            self.withdraw();
        }
        self.leave.busy.fetch_sub(1, Ordering::SeqCst);
        Ok(written?.head.id)
    }

    fn end(&self) {
        self.set(State::Ended);
    }

    fn withdraw(&self) {
        let stopping = *self.leave.stopping.borrow();
        let reason = if stopping { "the egress proxy is stopping" } else { "the request ended" };
        // Decided, expired or gone by now is as good.
        let _ = self.leave.queue.withdraw_proposal(&self.id, reason);
    }
}

struct Guard(Arc<Life>);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.set(State::Left) == State::Written {
            let life = self.0.clone();
            life.leave.busy.fetch_add(1, Ordering::SeqCst);
            spawn_blocking(move || {
                life.withdraw();
                life.leave.busy.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}
