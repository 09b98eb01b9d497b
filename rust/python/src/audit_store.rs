//! `AuditStore`.

use std::path::PathBuf;

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::broker::{Broker, opened};
use crate::convert::{Moment, given};
use crate::error::ToPy;
use crate::values::{AuditEntry, AuditReport};

/// The append-only audit log.
#[pyclass(frozen, module = "bot_bottle")]
pub struct AuditStore(store::AuditStore);

#[pymethods]
impl AuditStore {
    #[new]
    #[pyo3(signature = (db_path = None, *, broker = None))]
    fn new(
        #[pyo3(from_py_with = given)] db_path: Option<PathBuf>,
        broker: Option<&Bound<'_, Broker>>,
    ) -> PyResult<Self> {
        opened(db_path, broker, store::AuditStore::new, |broker| Ok(store::AuditStore::over(broker))).map(AuditStore)
    }

    /// The file's path as given, absolute; over a broker its URL.
    #[getter]
    fn db_path(&self) -> String {
        self.0.location()
    }

    fn __repr__(&self) -> String {
        format!("AuditStore({:?})", self.0.location())
    }

    /// Appends durably; returns it with ``seq`` and the chain's hashes.
    fn write_audit_entry(&self, py: Python<'_>, entry: &Bound<'_, AuditEntry>) -> PyResult<AuditEntry> {
        let entry = &entry.get().0;
        py.detach(|| self.0.write_audit_entry(entry)).to_py().map(AuditEntry)
    }

    /// Appends all or none, in one transaction.
    fn write_audit_entries(&self, py: Python<'_>, entries: Vec<Py<AuditEntry>>) -> PyResult<Vec<AuditEntry>> {
        let entries: Vec<store::AuditEntry> = entries.iter().map(|entry| entry.get().0.clone()).collect();
        let written = py.detach(|| self.0.write_audit_entries(&entries)).to_py()?;
        Ok(written.into_iter().map(AuditEntry).collect())
    }

    /// Entries in order of writing. ``since``: only with a timestamp from it on; ``limit``: the newest so many.
    #[pyo3(signature = (component = None, bottle_slug = None, *, since = None, limit = None))]
    fn read_audit_entries(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] component: Option<&str>,
        #[pyo3(from_py_with = given)] bottle_slug: Option<&str>,
        since: Option<Moment>,
        #[pyo3(from_py_with = given)] limit: Option<u32>,
    ) -> PyResult<Vec<AuditEntry>> {
        let since = since.as_ref().map(Moment::as_str);
        let entries = py.detach(|| self.0.read_audit_entries(component, bottle_slug, since, limit)).to_py()?;
        Ok(entries.into_iter().map(AuditEntry).collect())
    }

    /// Recomputes the whole chain and holds it against the decisions, grants and applied files, in one snapshot.
    ///
    /// Args:
    ///     head: a head noted earlier; it must be the hash of an entry in the log (detects a cut tail or a rebuilt
    ///         chain).
    ///
    /// Raises:
    ///     AuditIntegrityError: at the first entry that does not fit, ``seq`` names it; or rows and log do not say the
    ///         same, and the message has the first difference.
    #[pyo3(signature = (*, head = None))]
    fn verify(&self, py: Python<'_>, #[pyo3(from_py_with = given)] head: Option<&str>) -> PyResult<AuditReport> {
        py.detach(|| self.0.verify(head)).to_py().map(AuditReport)
    }

    /// Hash of the last entry, 64 zeros for an empty log.
    fn head(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.0.head()).to_py()
    }

    /// Ends its use. Idempotent.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyAny>) {
        self.close(py);
    }
}
