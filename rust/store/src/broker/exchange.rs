//! How does a request get its answer, through restarts of either end and with a way out?

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{Timespec, poll};

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::problem::{self, Verdict};
use super::reply::Answer;
use super::tls;
use crate::error::{Error, Reason, Result};
use crate::patience::{self, BUSY_TIMEOUT, SIGNAL_CHECK};
use crate::process::{Own, PerProcess};

/// For how long a verb looks for a broker that does not answer, or is busy: as long as it would wait for a busy file.
pub(super) const PATIENCE: Duration = BUSY_TIMEOUT;
/// For how long a broker that has a request may say nothing. It may stand behind a writer for the busy timeout itself.
const SILENCE: Duration = Duration::from_secs(40);
/// How many connections are kept for the next request, and for how long: the broker closes them after 75 s.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Where a broker is, who asks, and the connections to it that are kept.
pub(super) struct Exchange {
    pub(super) endpoint: Endpoint,
    token_file: PathBuf,
    /// A forked child makes its own: what it would write on its parent's would be read as the parent's.
    kept: PerProcess<Mutex<Vec<Connection>>>,
}

impl Exchange {
    pub(super) fn new(url: &str, token_file: &Path, cert_file: Option<&Path>) -> Result<Self> {
        Ok(Exchange {
            endpoint: Endpoint::new(url, cert_file)?,
            token_file: token_file.to_owned(),
            kept: PerProcess::new(Mutex::default()),
        })
    }

    fn kept(&self) -> Arc<Own<Mutex<Vec<Connection>>>> {
        self.kept.get(|_| Mutex::default())
    }

    /// Asks until there is an answer that stands, as long as patience lasts; `stopped` may end that too.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
        patience: Duration,
        stopped: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<u8>> {
        // The last request may begin as that ends, and stand behind a writer.
        let _limit = patience::limit(patience + SILENCE);
        let end = Instant::now() + patience.min(patience::left());
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
                check_interrupt()?;
            }
        }
    }

    /// One request and its answer, on a kept connection or a new one. What the outer result says is final.
    fn exchange(&self, request: &[u8], stopped: &dyn Fn() -> Result<()>) -> Result<io::Result<Answer>> {
        loop {
            let mut connection = match self.connection() {
                Ok(connection) => connection,
                Err(_) if patience::was_interrupted() => return Err(Error::Interrupted),
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
                Ok(None) if connection.patience_ends(SILENCE) <= Instant::now() || patience::left().is_zero() => {
                    return Ok(Err(silent()));
                }
                Ok(None) => {}
                Ok(Some(answer)) => return Ok(Ok(answer)),
                Err(failure) => return Ok(Err(failure)),
            }
            let slice = Timespec { tv_sec: 0, tv_nsec: i64::from(SIGNAL_CHECK.subsec_nanos()) };
            // A failed sleep (a signal came) is as good as one that is over.
            if !matches!(poll(&mut [connection.poll_fd()], Some(&slice)), Ok(1..)) {
                stopped()?;
                check_interrupt()?;
            }
            progress = connection.progress();
        }
    }

    /// A kept connection, or one that is being made.
    pub(super) fn connection(&self) -> io::Result<Connection> {
        let all = self.kept();
        loop {
            let kept = all.lock().pop();
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
    pub(super) fn keep(&self, connection: Connection, last: &Answer) {
        let all = self.kept();
        let mut kept = all.lock();
        if connection.can_go_on(last) && kept.len() < KEPT {
            kept.push(connection);
        }
    }

    /// The request's bytes. The token is read for each, so that a bottle that is started again goes on with its new one.
    pub(super) fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Vec<u8>> {
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
        let text = fs::read_to_string(&self.token_file)
            .map_err(|error| denied(&format!("cannot be read: {}", error.words())))?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(denied("holds no token"));
        }
        Ok(token.to_owned())
    }

    /// The error for a failed connection, or at once the one that trying again would not change.
    pub(super) fn unreachable(&self, failure: &io::Error) -> Result<Error> {
        let url = self.endpoint.url.clone();
        if tls::is_impostor(failure) {
            let reason = format!(
                "what answers at {url} does not have the certificate of this bottle's launch; start the bottle again if the host has a new one"
            );
            return Err(Error::AccessDenied { reason });
        }
        self.endpoint.forget_addresses();
        Ok(Error::Unreachable { url, reason: failure.words() })
    }

    pub(super) fn unreadable(&self, error: &serde_json::Error) -> Error {
        let reason = format!("this release cannot read its answer ({error})");
        Error::Unreachable { url: self.endpoint.url.clone(), reason }
    }
}

fn check_interrupt() -> Result<()> {
    if patience::is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

pub(super) fn silent() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "it does not answer")
}

/// How long to leave a broker alone that could not be asked: soon again at first, then once a second.
#[derive(Default)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(Duration::from_millis(20), Duration::from_secs(1));
        self.0
    }

    pub(super) fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }
}
