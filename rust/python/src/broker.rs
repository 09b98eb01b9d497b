//! `Broker`, and which of the two transports a store is opened over.

use std::path::{Path, PathBuf};

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::convert::{dict, given};
use crate::error::ToPy;

/// The way to the host's broker (``bot-bottle serve``), for the stores of one bottle's sidecar.
///
/// Stores that are given the same one share its connections, and all their waits one thread.
///
/// Connects to nothing yet.
///
/// Args:
///     url: ``http://host:port``, ``https://host:port`` or ``http+unix:///path/of/the.sock``.
///     token_file: holds the bottle's token; read for each request, so a new token counts at once.
///     cert_file: PEM. An https broker must have one of its certificates; names, dates and authorities do not
///         count.
///
/// Raises:
///     InvalidInputError: no such URL, or https without a certificate that can be read.
#[pyclass(frozen, module = "bot_bottle")]
pub struct Broker(store::Broker);

#[pymethods]
impl Broker {
    #[new]
    #[pyo3(signature = (url, token_file, cert_file = None))]
    fn new(
        #[pyo3(from_py_with = given)] url: &str,
        #[pyo3(from_py_with = given)] token_file: PathBuf,
        #[pyo3(from_py_with = given)] cert_file: Option<PathBuf>,
    ) -> PyResult<Self> {
        store::Broker::new(url, &token_file, cert_file.as_deref()).to_py().map(Broker)
    }

    /// The URL as given.
    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

    /// Asks once, without patience, and measures.
    ///
    /// ``url, bottle, version, round_trip_ms, clock_ahead_seconds``.
    /// ``clock_ahead_seconds`` is by how much this clock is ahead of the host's, which judges expiries.
    ///
    /// Raises:
    ///     AccessDeniedError, DatabaseUnavailableError
    fn probe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &py.detach(|| self.0.probe()).to_py()?)
    }

    fn __repr__(&self) -> String {
        format!("Broker({:?})", self.0.url())
    }
}

/// A store over the broker, or in the file where none is given.
pub fn opened<T>(
    db_path: Option<PathBuf>,
    broker: Option<&Bound<'_, Broker>>,
    in_file: impl FnOnce(Option<&Path>) -> store::Result<T>,
    over: impl FnOnce(&store::Broker) -> store::Result<T>,
) -> PyResult<T> {
    match (db_path, broker) {
        (path, None) => in_file(path.as_deref()).to_py(),
        (None, Some(broker)) => over(&broker.get().0).to_py(),
        (Some(_), Some(_)) => {
            let reason = "and broker exclude each other; a store is in a file or behind a broker".to_owned();
            Err(store::Error::InvalidInput { what: "db_path", reason }).to_py()
        }
    }
}
