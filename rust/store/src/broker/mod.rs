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
//! | `exchange` | How does a request get its answer, through restarts of either end? |
//! | `connection`, `reply` | How does a request get there, where does its answer end? |
//! | `endpoint`, `tls` | Where is the broker, and is it ours? |

mod connection;
mod endpoint;
mod exchange;
mod poller;
mod problem;
mod reply;
mod tls;
mod verbs;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{Error, Reason, Result};
use crate::process::{Own, PerProcess};
use exchange::Exchange;
use poller::Poller;

pub(crate) use verbs::Client;
pub use verbs::Probe;

/// The way to the host's broker for one bottle's sidecar. Cheap to clone; clones share their connections. Makes none
/// until it is used, and a forked child makes its own.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    exchange: Arc<Exchange>,
    links: PerProcess<Links>,
}

/// What belongs to one process.
#[derive(Default)]
struct Links {
    poller: Mutex<Option<Arc<Poller>>>,
    /// The bottle that the token speaks for, once the broker said so.
    slug: OnceLock<String>,
}

impl Broker {
    /// As a launch describes it: `SUPERVISE_URL`, `SUPERVISE_TOKEN_FILE`, for https also `SUPERVISE_TLS_CERT_FILE`.
    pub fn new(url: &str, token_file: &Path, cert_file: Option<&Path>) -> Result<Self> {
        let exchange = Arc::new(Exchange::new(url, token_file, cert_file)?);
        Ok(Broker(Arc::new(Inner { exchange, links: PerProcess::new(Links::default()) })))
    }

    /// The URL as given.
    pub fn url(&self) -> &str {
        &self.0.exchange.endpoint.url
    }
}

impl Inner {
    fn links(&self) -> Arc<Own<Links>> {
        self.links.get(|_| Links::default())
    }

    /// The process's poller, started with its first wait.
    fn poller(&self) -> Result<Arc<Poller>> {
        let links = self.links();
        let mut slot = links.poller.lock();
        if let Some(poller) = slot.as_ref() {
            return Ok(poller.clone());
        }
        let started = Poller::start(Arc::downgrade(&self.exchange));
        let url = &self.exchange.endpoint.url;
        let poller = started.map_err(|error| Error::Unreachable { url: url.clone(), reason: error.words() })?;
        Ok(slot.insert(poller).clone())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(poller) = self.poller.get_mut().take() {
            poller.stop();
        }
    }
}
