//! `Broker`, and which of the two transports a store is opened over.

use std::path::{Path, PathBuf};

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::convert::dict;
use crate::error::{ToPy, interrupted};

#[pyclass(frozen, module = "bot_bottle")]
pub struct Broker(store::Broker);

#[pymethods]
impl Broker {
    #[new]
    #[pyo3(signature = (url, token_file, cert_file = None))]
    fn new(url: &str, token_file: PathBuf, cert_file: Option<PathBuf>) -> PyResult<Self> {
        store::Broker::new(url, &token_file, cert_file.as_deref(), interrupted).to_py().map(Broker)
    }

    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

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
