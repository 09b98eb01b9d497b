//! `Database` and `Transaction`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bot_bottle_store as store;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::{dict, duration, given, rows};
use crate::error::{ToPy, exception};

/// The one SQLite file, as other programs and the ``db`` commands use it.
#[pyclass(frozen, module = "bot_bottle")]
pub struct Database(Arc<store::Database>);

/// A write transaction over another program's own tables in the same file; see :meth:`Database.transaction`.
#[pyclass(frozen, module = "bot_bottle")]
pub struct Transaction {
    db: Arc<store::Database>,
    under_way: Mutex<Option<store::ForeignTransaction>>,
}

#[pymethods]
impl Transaction {
    /// Runs one statement and returns its rows.
    ///
    /// Raises:
    ///     InvalidInputError: SQL that does not compile, returns two columns of one name, or writes to bot-bottle's own
    ///         tables.
    #[pyo3(signature = (sql, params = None))]
    fn execute<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given)] sql: &str,
        params: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let params = crate::convert::params(params)?;
        let found = py.detach(|| {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            under_way.as_mut().ok_or(store::Error::Closed)?.execute(sql, &params)
        });
        rows(py, found.to_py()?)
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let own = slf.get();
        let begin = || {
            let begun = own.db.transaction()?;
            *own.under_way.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
            Ok(())
        };
        slf.py().detach(begin).to_py()?;
        Ok(slf)
    }

    #[pyo3(signature = (exception_type = None, *_args))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exception_type: Option<&Bound<'_, PyAny>>,
        _args: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let failed = exception_type.is_some();
        py.detach(|| {
            let ended = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).take();
            match ended {
                Some(transaction) if !failed => transaction.commit(),
                _ => Ok(()), // dropped, and with it rolled back
            }
        })
        .to_py()
    }
}

#[pymethods]
impl Database {
    #[new]
    #[pyo3(signature = (db_path = None))]
    fn new(#[pyo3(from_py_with = given)] db_path: Option<PathBuf>) -> PyResult<Self> {
        store::Database::new(db_path.as_deref()).to_py().map(|db| Database(Arc::new(db)))
    }

    /// The path as given.
    #[getter]
    fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    /// The path with symlinks resolved; its directory is what sidecars mount.
    #[getter]
    fn real_path(&self) -> PyResult<String> {
        Ok(self.0.real_path().to_py()?.display().to_string())
    }

    fn __repr__(&self) -> String {
        format!("Database({:?})", self.0.path())
    }

    /// One read-only statement over the whole file; rows as dicts by column name.
    ///
    /// SQLite itself refuses writes, ``ATTACH`` and pragmas that set something.
    ///
    /// Raises:
    ///     InvalidInputError: it does not compile, is not read-only, or returns two columns of one name.
    ///     WaitTimeoutError: it ran for longer than ``timeout`` seconds.
    #[pyo3(signature = (sql, params = None, *, timeout = 5.0))]
    fn query<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given)] sql: &str,
        params: Option<&Bound<'py, PyAny>>,
        #[pyo3(from_py_with = given)] timeout: f64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let values = crate::convert::params(params)?;
        let limit = duration(py, "timeout", Some(timeout))?.unwrap_or(std::time::Duration::MAX);
        let found = py.detach(|| self.0.query(sql, &values, limit)).to_py()?;
        rows(py, found)
    }

    /// Brings another program's own ``module`` to version ``len(steps)``, or leaves it at a later one that suits.
    ///
    /// Each step is (up SQL, down SQL). ``compat`` is the oldest version whose programs may go on using the file once
    /// these steps are applied; without it, only those that know all of them. Give the version before a step that only
    /// adds something. Returns the version the module is at.
    ///
    /// Raises:
    ///     MigrationError: a step failed, or an applied one was edited.
    ///     SchemaTooNewError: the file is ahead, and needs a program that knows more than these steps.
    ///     InvalidInputError: the module's name is one of bot-bottle's, or ``compat`` is no version of these steps.
    #[pyo3(signature = (module, steps, *, compat = None))]
    fn migrate(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] module: &str,
        #[pyo3(from_py_with = given)] steps: Vec<(String, String)>,
        #[pyo3(from_py_with = given)] compat: Option<i64>,
    ) -> PyResult<i64> {
        let steps: Vec<store::Step> = steps.into_iter().map(|(up, down)| store::Step { up, down }).collect();
        py.detach(|| self.0.migrate(module, &steps, compat)).to_py()
    }

    /// A write transaction over other programs' tables: ``with`` commits at its end, rolls back on an error.
    ///
    /// A write by a store, or another transaction, inside it and on its thread would wait for itself, and is refused
    /// at once (``InvalidInputError``).
    fn transaction(&self) -> Transaction {
        Transaction { db: self.0.clone(), under_way: Mutex::new(None) }
    }

    /// Creates or brings the file to this release's schema; module → version.
    fn migrate_all(&self, py: Python<'_>) -> PyResult<BTreeMap<String, i64>> {
        Ok(py.detach(|| self.0.migrate_all()).to_py()?.into_iter().collect())
    }

    /// Takes one of bot-bottle's modules back to version ``to``; returns the path of the backup it took first.
    #[pyo3(signature = (module, *, to))]
    fn rollback(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] module: &str,
        #[pyo3(from_py_with = given)] to: i64,
    ) -> PyResult<String> {
        Ok(py.detach(|| self.0.rollback(module, to)).to_py()?.display().to_string())
    }

    /// Where and what it is, without writing.
    ///
    /// ``exists, path, real_path, filesystem, mount_safe, size_bytes, wal_bytes, sqlite_version`` and ``modules``
    /// (module → ``{found, compat, supported}``: its version, the oldest one whose programs may use it, and the one
    /// this release knows, ``None`` for another program's).
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &py.detach(|| self.0.status()).to_py()?)
    }

    /// What is wrong, in sentences; empty if sound.
    ///
    /// SQLite's integrity and foreign-key checks, the schema, the audit chain, rows against log in both directions, and
    /// each registration, decision and grant whose signature does not verify. What is wrong with rows is left in the
    /// audit log, once.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.0.check()).to_py()
    }

    /// Online copy (0600) while others write; returns its bytes.
    ///
    /// Raises:
    ///     InvalidInputError: the destination exists.
    fn backup(&self, py: Python<'_>, #[pyo3(from_py_with = given)] destination: PathBuf) -> PyResult<u64> {
        py.detach(|| self.0.backup(&destination)).to_py()
    }

    /// Replaces the content with a sound backup's, after one more backup whose path it returns.
    fn restore(&self, py: Python<'_>, #[pyo3(from_py_with = given)] source: PathBuf) -> PyResult<String> {
        Ok(py.detach(|| self.0.restore(&source)).to_py()?.display().to_string())
    }

    /// Deletes proposals archived or ended more than ``older_than`` seconds ago; how many. Never the audit log.
    #[pyo3(signature = (*, older_than))]
    fn prune(&self, py: Python<'_>, #[pyo3(from_py_with = given)] older_than: f64) -> PyResult<usize> {
        let age = age(py, older_than)?;
        py.detach(|| self.0.prune(age)).to_py()
    }

    /// How many proposals ``prune`` would delete now.
    #[pyo3(signature = (*, older_than))]
    fn prunable(&self, py: Python<'_>, #[pyo3(from_py_with = given)] older_than: f64) -> PyResult<usize> {
        let age = age(py, older_than)?;
        py.detach(|| self.0.prunable(age)).to_py()
    }

    /// Rings a bell of its own and returns the seconds until this process heard it.
    ///
    /// Raises:
    ///     WaitTimeoutError: it never did: waits here rely on the one-second heartbeat.
    #[pyo3(signature = (*, timeout = 2.0))]
    fn ring_test(&self, py: Python<'_>, #[pyo3(from_py_with = given)] timeout: f64) -> PyResult<f64> {
        let limit = duration(py, "timeout", Some(timeout))?.unwrap_or(std::time::Duration::from_secs(3600));
        Ok(py.detach(|| self.0.ring_test(limit)).to_py()?.as_secs_f64())
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

fn age(py: Python<'_>, older_than: f64) -> PyResult<std::time::Duration> {
    duration(py, "older_than", Some(older_than))?.ok_or_else(|| {
        let reason = "must be a number of seconds, not infinity".to_owned();
        exception(py, &store::Error::InvalidInput { what: "older_than", reason })
    })
}
