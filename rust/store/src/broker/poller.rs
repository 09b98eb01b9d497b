//! How do all waits of a process share one thread?
//!
//! Each wait is a long poll on a connection of its own: asked, answered with "pending" after 50 s at the latest, asked
//! again; the broker sends a sign of life every 10 s meanwhile. One thread sleeps on all of them. A connection that
//! breaks or falls silent is made again, for as long as its wait lasts, so a broker may restart and a laptop sleep.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;

use super::connection::Connection;
use super::exchange::{Backoff, Exchange, PATIENCE, silent};
use super::problem::{self, Problem, Verdict};
use super::reply::Answer;
use crate::error::{Error, Result};
use crate::queue::message::Message;
use crate::queue::response::Response;
use crate::wait::{self, Done, Event, Waits};

/// The longest one request waits; the broker would cap it anyway.
const ROUND: Duration = Duration::from_secs(50);
/// Two signs of life and a half.
const SILENCE: Duration = Duration::from_secs(25);
/// For an answer on its way when a wait's own time is over, and for the first one of a wait that has hardly any.
const GRACE: Duration = Duration::from_secs(5);

/// The thread's shared side.
pub(super) struct Poller {
    shared: Mutex<State>,
    wake: PipeWriter,
    /// Kept open as long as the other end, which would otherwise break (SIGPIPE).
    woken: PipeReader,
    thread: OnceLock<ThreadId>,
}

#[derive(Default)]
struct State {
    /// Who is told, by wait: the handle it belongs to and its callback. A wait that is not here is over.
    waiting: BTreeMap<u64, (u64, Done)>,
    /// Those that the thread has not taken over yet.
    begun: Vec<Poll>,
    next: u64,
    stopping: bool,
}

/// One wait, as the thread has it.
struct Poll {
    wait: u64,
    id: String,
    path: String,
    timeout: Option<Duration>,
    begun: Instant,
    deadline: Option<Instant>,
    /// The broker has answered something. Before that it may not be there at all, and the wait ends if it stays so.
    heard: bool,
    asked: Instant,
    backoff: Backoff,
    /// Why it could not be asked.
    trouble: Option<Error>,
    stage: Stage,
    /// The socket has something to tell.
    ready: bool,
}

enum Stage {
    /// To be asked then.
    Due(Instant),
    Asked(Box<Connection>),
}

#[derive(Deserialize)]
struct Envelope {
    response: Option<Response>,
    question: Option<Message>,
    problem: Option<Problem>,
}

impl Poller {
    pub(super) fn start(broker: Weak<Exchange>) -> io::Result<Arc<Self>> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        let poller =
            Arc::new(Poller { shared: Mutex::default(), wake: writer, woken: reader, thread: OnceLock::new() });
        let own = poller.clone();
        thread::Builder::new()
            .name("bot-bottle-wait".to_owned())
            .stack_size(512 << 10)
            .spawn(move || own.run(&broker))?;
        Ok(poller)
    }

    /// Takes over a wait of a handle; its number.
    pub(super) fn begin(&self, handle: u64, id: &str, path: String, timeout: Option<Duration>, done: Done) -> u64 {
        let now = Instant::now();
        let wait = {
            let mut state = self.shared.lock();
            let wait = state.next;
            state.next += 1;
            state.waiting.insert(wait, (handle, done));
            state.begun.push(Poll {
                wait,
                id: id.to_owned(),
                path,
                timeout,
                begun: now,
                deadline: timeout.and_then(|timeout| now.checked_add(timeout)),
                heard: false,
                asked: now,
                backoff: Backoff::default(),
                trouble: None,
                stage: Stage::Due(now),
                ready: false,
            });
            wait
        };
        self.wake();
        wait
    }

    /// Ends the waits of one handle.
    pub(super) fn end_all(&self, handle: u64) {
        let ended: Vec<Done> = {
            let waiting = &mut self.shared.lock().waiting;
            let ids: Vec<u64> = waiting.iter().filter(|(_, (of, _))| *of == handle).map(|(id, _)| *id).collect();
            ids.into_iter().filter_map(|id| waiting.remove(&id)).map(|(_, done)| done).collect()
        };
        self.wake();
        for done in ended {
            done(Err(Error::Closed));
        }
    }

    pub(super) fn stop(&self) {
        self.shared.lock().stopping = true;
        self.wake();
    }

    fn wake(&self) {
        // A full pipe wakes as well as a byte more would.
        let _ = (&self.wake).write(&[1]);
    }

    fn run(&self, broker: &Weak<Exchange>) {
        self.thread.get_or_init(|| thread::current().id());
        let mut polls: Vec<Poll> = Vec::new();
        loop {
            {
                let mut state = self.shared.lock();
                if state.stopping {
                    return;
                }
                polls.append(&mut state.begun);
                polls.retain(|poll| state.waiting.contains_key(&poll.wait));
            }
            let ended = {
                let Some(broker) = broker.upgrade() else { return };
                let ended = polls.iter_mut().filter_map(|poll| Some((poll.wait, poll.step(&broker)?)));
                ended.collect::<Vec<_>>()
            };
            if ended.is_empty() {
                self.sleep(&mut polls);
            }
            for (wait, result) in ended {
                let waiting = self.shared.lock().waiting.remove(&wait);
                if let Some((_, done)) = waiting {
                    done(result);
                }
            }
        }
    }

    /// Until a socket has something to tell, somebody wakes the thread, or the next moment that matters.
    fn sleep(&self, polls: &mut [Poll]) {
        let soonest = polls.iter().filter_map(Poll::next_event).min();
        let limit = soonest.map(|at| at.saturating_duration_since(Instant::now()));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let sockets: Vec<usize> = (0..polls.len()).filter(|&at| polls[at].socket().is_some()).collect();
        let mut sources = vec![PollFd::new(&self.woken, PollFlags::IN)];
        sources.extend(polls.iter().filter_map(Poll::socket));
        // A sleep that was cut short by a signal is followed by a look like any other.
        let _ = poll(&mut sources, limit.as_ref());
        let ready: Vec<bool> = sources[1..].iter().map(|source| !source.revents().is_empty()).collect();
        for (at, ready) in sockets.into_iter().zip(ready) {
            polls[at].ready = ready;
        }
        let mut wakes = [0; 64];
        while matches!((&self.woken).read(&mut wakes), Ok(64)) {}
    }
}

impl Waits for Poller {
    fn cancel(&self, wait: u64) {
        let waiting = self.shared.lock().waiting.remove(&wait);
        self.wake();
        drop(waiting); // last and without the lock: what the callback holds may have a drop of its own
    }

    fn is_this_thread(&self) -> bool {
        self.thread.get() == Some(&thread::current().id())
    }
}

impl Poll {
    /// Gets on as far as is possible without blocking; what the wait ends with, if it does.
    fn step(&mut self, broker: &Exchange) -> Option<Result<Event>> {
        match self.advance(broker).transpose() {
            None => self.time_is_up(broker),
            ended => ended,
        }
    }

    fn advance(&mut self, broker: &Exchange) -> Result<Option<Event>> {
        loop {
            match &mut self.stage {
                Stage::Due(at) if *at <= Instant::now() => {
                    let request = self.request(broker)?;
                    match broker.connection().and_then(|mut to| to.send(request).map(|()| to)) {
                        Ok(connection) => self.stage = Stage::Asked(Box::new(connection)),
                        Err(failure) => self.lose(broker, &failure, false)?,
                    }
                    self.asked = Instant::now();
                    self.ready = true; // to be sent
                }
                Stage::Asked(connection) if self.ready => {
                    self.ready = false;
                    match connection.progress() {
                        Ok(None) => self.heard |= connection.is_answering(),
                        Ok(Some(answer)) => {
                            if let Some(event) = self.understand(broker, answer)? {
                                return Ok(Some(event));
                            }
                        }
                        Err(failure) => {
                            let stale = connection.was_stale();
                            self.lose(broker, &failure, stale)?;
                        }
                    }
                }
                _ => return Ok(None),
            }
        }
    }

    fn request(&self, broker: &Exchange) -> Result<Vec<u8>> {
        let rest = self.deadline.map_or(ROUND, |at| at.saturating_duration_since(Instant::now()).min(ROUND));
        // Rounded up to a millisecond, so that it is not over before the wait is.
        let millis = rest.as_micros().div_ceil(1000);
        let more = if self.path.contains('?') { '&' } else { '?' };
        broker.request("GET", &format!("{}{more}wait={}.{:03}", self.path, millis / 1000, millis % 1000), None)
    }

    /// The answer to one request; its connection is kept for the next.
    fn understand(&mut self, broker: &Exchange, answer: Answer) -> Result<Option<Event>> {
        self.heard = true;
        let now = Instant::now();
        if let Stage::Asked(connection) = std::mem::replace(&mut self.stage, Stage::Due(now)) {
            broker.keep(*connection, &answer);
        }
        let body = match problem::judge(answer, &broker.endpoint.url) {
            Verdict::Good(body) => body,
            Verdict::Refused(error) => return Err(error),
            Verdict::Later(_, pause) => {
                self.stage = Stage::Due(now + self.backoff.next().max(pause));
                return Ok(None);
            }
        };
        let envelope: Envelope = serde_json::from_slice(&body).map_err(|error| broker.unreadable(&error))?;
        match envelope {
            Envelope { response: Some(response), .. } => Ok(Some(Event::Answer(Box::new(response)))),
            Envelope { question: Some(question), .. } => Ok(Some(Event::Question(Box::new(question)))),
            Envelope { problem: Some(problem), .. } => Err(problem.into()),
            // Pending.
            _ if self.deadline.is_some_and(|at| at <= now) => Err(wait::timed_out(&self.id, self.timeout)),
            _ => {
                if now.duration_since(self.asked) > Duration::from_secs(1) {
                    self.backoff.reset();
                } else {
                    // A broker that has no time is about to stop: its successor is asked after a moment.
                    self.stage = Stage::Due(now + self.backoff.next());
                }
                Ok(None)
            }
        }
    }

    /// The connection broke: it is made again, at once if it was only kept too long.
    fn lose(&mut self, broker: &Exchange, failure: &io::Error, stale: bool) -> Result<()> {
        self.ready = false;
        self.trouble = Some(broker.unreachable(failure)?);
        let pause = if stale { Duration::ZERO } else { self.backoff.next() };
        self.stage = Stage::Due(Instant::now() + pause);
        Ok(())
    }

    fn time_is_up(&mut self, broker: &Exchange) -> Option<Result<Event>> {
        let now = Instant::now();
        if matches!(&self.stage, Stage::Asked(connection) if connection.patience_ends(SILENCE) <= now)
            && let Err(error) = self.lose(broker, &silent(), false)
        {
            return Some(Err(error));
        }
        if self.ends().is_none_or(|ends| now < ends) {
            return None;
        }
        Some(Err(match self.trouble.take() {
            _ if self.heard => wait::timed_out(&self.id, self.timeout),
            Some(trouble) => trouble,
            None => broker.unreachable(&silent()).unwrap_or_else(|error| error),
        }))
    }

    /// When the wait is over if nothing comes. A request under way is left to the broker, which ends it by the deadline.
    fn ends(&self) -> Option<Instant> {
        match self.stage {
            _ if !self.heard => {
                Some(self.begun + self.timeout.map_or(PATIENCE, |timeout| timeout.clamp(GRACE, PATIENCE)))
            }
            Stage::Asked(_) => self.deadline.and_then(|at| at.checked_add(GRACE)),
            Stage::Due(_) => self.deadline,
        }
    }

    fn next_event(&self) -> Option<Instant> {
        let next = match &self.stage {
            Stage::Due(at) => *at,
            Stage::Asked(connection) => connection.patience_ends(SILENCE),
        };
        Some(self.ends().map_or(next, |ends| ends.min(next)))
    }

    fn socket(&self) -> Option<PollFd<'_>> {
        match &self.stage {
            Stage::Asked(connection) => Some(connection.poll_fd()),
            Stage::Due(_) => None,
        }
    }
}
