//! Are a store's rows in a mounted file, or behind the host's broker?

use std::path::Path;

use crate::broker::{Broker, Client};
use crate::error::{Error, Result};
use crate::file::database::Database;

/// One of the two; each verb of a sidecar works over both.
pub(crate) enum Transport {
    File(Database),
    Broker(Client),
}

impl Transport {
    pub(crate) fn file(path: Option<&Path>) -> Result<Self> {
        Database::new(path).map(Transport::File)
    }

    pub(crate) fn broker(broker: &Broker) -> Self {
        Transport::Broker(Client::new(broker))
    }

    /// The file's path or the broker's URL.
    pub(crate) fn location(&self) -> String {
        match self {
            Transport::File(db) => db.path().display().to_string(),
            Transport::Broker(broker) => broker.url().to_owned(),
        }
    }

    /// The file, if it is here.
    pub(crate) fn database(&self) -> Option<&Database> {
        match self {
            Transport::File(db) => Some(db),
            Transport::Broker(_) => None,
        }
    }

    /// The file, for what only the operator's side does.
    pub(crate) fn host_only(&self, what: &str) -> Result<&Database> {
        self.database().ok_or_else(|| Error::AccessDenied {
            reason: format!("a bottle's sidecar cannot {what} over the broker; it is done on the host"),
        })
    }

    pub(crate) fn close(&self) {
        match self {
            Transport::File(db) => db.close(),
            Transport::Broker(broker) => broker.close(),
        }
    }
}
