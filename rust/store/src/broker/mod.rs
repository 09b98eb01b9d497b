//! How does a process talk to its host's broker, through restarts of either end?
//!
//! The broker (`bot-bottle serve`) does for a bottle what the database's file does where both run under one kernel; this
//! is the other transport of [`QueueStore`](crate::QueueStore), [`AuditStore`](crate::AuditStore) and
//! [`GrantStore`](crate::GrantStore). A request that got no answer is made again, as none does harm twice: a proposal is
//! known by its id, withdrawing and archiving what has been is no change.
//!
//! | file | its question |
//! |---|---|
//! | `verbs` | What does a store ask of the broker? |
//! | `poller` | How do all waits of a process share one thread? |
//! | `problem` | What does an answer mean? |
//! | `connection`, `reply` | How does a request get there, where does its answer end? |
//! | `endpoint`, `tls` | Where is the broker, and is it ours? |

mod connection;
mod endpoint;
mod poller;
mod problem;
mod reply;
mod tls;
mod verbs;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, getpid};

use crate::error::{Error, Result};
use crate::rules::BUSY_TIMEOUT;
use crate::rules::SIGNAL_CHECK;
use connection::Connection;
use endpoint::Endpoint;
use poller::Poller;
use problem::Verdict;
use reply::Answer;

pub(crate) use verbs::Client;
pub use verbs::Probe;

/// For how long a verb looks for a broker that does not answer, or is busy: as long as it would wait for a busy file.
const PATIENCE: Duration = BUSY_TIMEOUT;
/// For how long a broker that has a request may say nothing. It may stand behind a writer for the busy timeout itself.
const SILENCE: Duration = Duration::from_secs(40);
/// How many connections are kept for the next request, and for how long: the broker closes them after 75 s.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The way to the host's broker for one bottle's sidecar. Cheap to clone; clones share their connections. Makes none
/// until it is used, and a forked child makes its own.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    token_file: PathBuf,
    interrupted: Box<dyn Fn() -> bool + Send + Sync>,
    links: ArcSwap<Links>,
}

/// What belongs to one process.
struct Links {
    pid: Pid,
    kept: Mutex<Vec<Connection>>,
    poller: Mutex<Option<Arc<Poller>>>,
    /// The bottle that the token speaks for, once the broker said so.
    slug: OnceLock<String>,
}

impl Broker {
    /// As a launch describes it: `SUPERVISE_URL`, `SUPERVISE_TOKEN_FILE`, for https also `SUPERVISE_TLS_CERT_FILE`.
    /// `interrupted` is asked every 40 ms while a verb blocks and ends it with its yes.
    pub fn new(
        url: &str,
        token_file: &Path,
        cert_file: Option<&Path>,
        interrupted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        Ok(Broker(Arc::new(Inner {
            endpoint: Endpoint::new(url, cert_file)?,
            token_file: token_file.to_owned(),
            interrupted: Box::new(interrupted),
            links: ArcSwap::from_pointee(Links::new()),
        })))
    }

    /// The URL as given.
    pub fn url(&self) -> &str {
        &self.0.endpoint.url
    }
}

impl Inner {
    fn links(&self) -> Arc<Links> {
        let links = self.links.load_full();
        if links.pid == getpid() {
            return links;
        }
        // A forked child: what it would write on its parent's connections would be read as the parent's. They are never
        // freed, as a thread of the parent may have been changing them. Of two threads that come here one wins.
        std::mem::forget(self.links.compare_and_swap(&links, Arc::new(Links::new())));
        std::mem::forget(links);
        self.links.load_full()
    }

    /// Asks until there is an answer that stands, as long as patience lasts; `stopped` may end that too.
    fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
        patience: Duration,
        stopped: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<u8>> {
        let end = Instant::now() + patience;
        let mut backoff = Backoff::default();
        loop {
            stopped()?;
            let (error, at_least) = match self.exchange(&self.request(method, path, body)?, stopped)? {
                Ok(answer) => match problem::judge(answer, &self.endpoint.url) {
                    Verdict::Good(body) => return Ok(body),
                    Verdict::Refused(error) => return Err(error),
                    Verdict::Later(error, at_least) => (error, at_least),
                },
                Err(failure) => (self.unreachable(&failure)?, Duration::ZERO),
            };
            let again = Instant::now() + backoff.next().max(at_least);
            if again > end {
                return Err(error);
            }
            while let Some(rest) = again.checked_duration_since(Instant::now()) {
                std::thread::sleep(rest.min(SIGNAL_CHECK));
                stopped()?;
                self.check_interrupt()?;
            }
        }
    }

    /// One request and its answer, on a kept connection or a new one. What the outer result says is final.
    fn exchange(&self, request: &[u8], stopped: &dyn Fn() -> Result<()>) -> Result<io::Result<Answer>> {
        loop {
            let mut connection = match self.connection() {
                Ok(connection) => connection,
                Err(failure) => return Ok(Err(failure)),
            };
            match self.drive(&mut connection, request, stopped)? {
                Ok(answer) => {
                    self.keep(connection, &answer);
                    return Ok(Ok(answer));
                }
                Err(_) if connection.was_stale() => {} // kept too long; the next one is newer, or new
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    fn drive(
        &self,
        connection: &mut Connection,
        request: &[u8],
        stopped: &dyn Fn() -> Result<()>,
    ) -> Result<io::Result<Answer>> {
        let mut progress = connection.send(request.to_vec()).and_then(|()| connection.progress());
        loop {
            match progress {
                Ok(None) if connection.patience_ends(SILENCE) <= Instant::now() => return Ok(Err(silent())),
                Ok(None) => {}
                Ok(Some(answer)) => return Ok(Ok(answer)),
                Err(failure) => return Ok(Err(failure)),
            }
            let slice = Timespec { tv_sec: 0, tv_nsec: i64::from(SIGNAL_CHECK.subsec_nanos()) };
            // A failed sleep (a signal came) is as good as one that is over.
            if !matches!(poll(&mut [connection.poll_fd()], Some(&slice)), Ok(1..)) {
                stopped()?;
                self.check_interrupt()?;
            }
            progress = connection.progress();
        }
    }

    fn check_interrupt(&self) -> Result<()> {
        if (self.interrupted)() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// A kept connection, or one that is being made.
    fn connection(&self) -> io::Result<Connection> {
        let links = self.links();
        loop {
            let kept = links.kept.lock().pop();
            match kept {
                None => return Connection::dial(&self.endpoint),
                Some(mut connection) => {
                    if connection.idle_for() < KEPT_FOR && connection.is_quiet() {
                        return Ok(connection);
                    }
                }
            }
        }
    }

    /// Keeps a connection for the next request, if it is good for one.
    fn keep(&self, connection: Connection, last: &Answer) {
        let links = self.links();
        let mut kept = links.kept.lock();
        if connection.can_go_on(last) && kept.len() < KEPT {
            kept.push(connection);
        }
    }

    /// The request's bytes. The token is read for each, so that a bottle that is started again goes on with its new one.
    fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n\
             User-Agent: bot-bottle/{}\r\n",
            self.endpoint.host,
            self.token()?,
            env!("CARGO_PKG_VERSION"),
        );
        if let Some(body) = body {
            request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body.unwrap_or_default());
        Ok(request)
    }

    fn token(&self) -> Result<String> {
        let denied = |why: &str| {
            let file = self.token_file.display();
            Error::AccessDenied { reason: format!("the token file {file} {why}; start the bottle again to get one") }
        };
        let text = fs::read_to_string(&self.token_file).map_err(|error| denied(&format!("cannot be read: {error}")))?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(denied("holds no token"));
        }
        Ok(token.to_owned())
    }

    /// The error for a failed connection, or at once the one that trying again would not change.
    fn unreachable(&self, failure: &io::Error) -> Result<Error> {
        let url = self.endpoint.url.clone();
        if tls::is_impostor(failure) {
            let reason = format!(
                "what answers at {url} does not have the certificate of this bottle's launch; start the bottle again if the host has a new one"
            );
            return Err(Error::AccessDenied { reason });
        }
        self.endpoint.forget_addresses();
        Ok(Error::Unreachable { url, reason: failure.to_string() })
    }

    fn unreadable(&self, error: &serde_json::Error) -> Error {
        let reason = format!("this release cannot read its answer ({error})");
        Error::Unreachable { url: self.endpoint.url.clone(), reason }
    }

    /// The process's poller, started with its first wait.
    fn poller(self: &Arc<Self>) -> Result<Arc<Poller>> {
        let links = self.links();
        let mut slot = links.poller.lock();
        if let Some(poller) = slot.as_ref() {
            return Ok(poller.clone());
        }
        let started = Poller::start(Arc::downgrade(self));
        let poller = started
            .map_err(|error| Error::Unreachable { url: self.endpoint.url.clone(), reason: error.to_string() })?;
        Ok(slot.insert(poller).clone())
    }
}

impl Links {
    fn new() -> Self {
        Links { pid: getpid(), kept: Mutex::default(), poller: Mutex::default(), slug: OnceLock::new() }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(poller) = self.poller.get_mut().take() {
            poller.stop();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.links.load().pid != getpid() {
            // Inherited by a fork that never used it: see `Inner::links`.
            std::mem::forget(self.links.load_full());
        }
    }
}

fn silent() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "it does not answer")
}

/// How long to leave a broker alone that could not be asked: soon again at first, then once a second.
#[derive(Default)]
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(Duration::from_millis(20), Duration::from_secs(1));
        self.0
    }

    fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }
}
