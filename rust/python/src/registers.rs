//! `GrantStore` and `BottleStore`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::broker::{Broker, opened};
use crate::convert::given;
use crate::error::ToPy;
use crate::values::{Bottle, Grant};

/// Grants: what an approval allows again without asking.
///
/// A grant is for one bottle, one tool and one fingerprint: an opaque text made by the sidecar
/// (host + keyed hash of a token, rule + path + keyed hash of a secret), never the secret itself.
///
/// Opens nothing yet; ``operator_keys`` as for :class:`QueueStore`.
#[pyclass(frozen, module = "bot_bottle")]
pub struct GrantStore(store::GrantStore);

#[pymethods]
impl GrantStore {
    #[new]
    #[pyo3(signature = (db_path = None, *, broker = None, operator_keys = None))]
    fn new(
        #[pyo3(from_py_with = given)] db_path: Option<PathBuf>,
        broker: Option<&Bound<'_, Broker>>,
        #[pyo3(from_py_with = given)] operator_keys: Option<PathBuf>,
    ) -> PyResult<Self> {
        let opened = opened(db_path, broker, store::GrantStore::new, |broker| Ok(store::GrantStore::over(broker)));
        opened.map(|store| GrantStore(store.trusting(operator_keys.as_deref())))
    }

    fn __repr__(&self) -> String {
        format!("GrantStore({:?})", self.0.location())
    }

    /// Returns the live grant whose use would be spent next, or ``None``. Spends nothing.
    ///
    /// Raises:
    ///     AuditIntegrityError: there is one, and none of ``operator_keys`` signed it.
    fn find_grant(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] bottle_slug: &str,
        #[pyo3(from_py_with = given)] tool: &str,
        #[pyo3(from_py_with = given)] fingerprint: &str,
    ) -> PyResult<Option<Grant>> {
        Ok(py.detach(|| self.0.find_grant(bottle_slug, tool, fingerprint)).to_py()?.map(Grant))
    }

    /// Spends one use of a live grant and returns it, or ``None``. Two processes never spend the same use.
    ///
    /// Raises:
    ///     AuditIntegrityError: there is one, and none of ``operator_keys`` signed it.
    fn use_grant(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] bottle_slug: &str,
        #[pyo3(from_py_with = given)] tool: &str,
        #[pyo3(from_py_with = given)] fingerprint: &str,
    ) -> PyResult<Option<Grant>> {
        Ok(py.detach(|| self.0.use_grant(bottle_slug, tool, fingerprint)).to_py()?.map(Grant))
    }

    /// Grants, newest first; with ``live`` only those usable now.
    #[pyo3(signature = (bottle_slug = None, *, live = true))]
    fn list_grants(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] bottle_slug: Option<&str>,
        live: bool,
    ) -> PyResult<Vec<Grant>> {
        Ok(py.detach(|| self.0.list_grants(bottle_slug, live)).to_py()?.into_iter().map(Grant).collect())
    }

    /// Ends it (audited), by full id or unique prefix.
    ///
    /// Raises:
    ///     NotFoundError: none such. InvalidInputError: the prefix is ambiguous.
    #[pyo3(signature = (grant_id, *, revoked_by = None, surface = "api"))]
    fn revoke_grant(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] grant_id: &str,
        #[pyo3(from_py_with = given)] revoked_by: Option<&str>,
        #[pyo3(from_py_with = given)] surface: &str,
    ) -> PyResult<Grant> {
        let surface = surface.parse().to_py()?;
        py.detach(|| self.0.revoke_grant(grant_id, revoked_by, surface)).to_py().map(Grant)
    }

    /// Ends its use. Idempotent.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

/// Which bottles run, and their managed files. ``Supervise`` is the face for launching.
#[pyclass(frozen, module = "bot_bottle")]
pub struct BottleStore(store::BottleStore);

#[pymethods]
impl BottleStore {
    #[new]
    #[pyo3(signature = (db_path = None))]
    fn new(#[pyo3(from_py_with = given)] db_path: Option<PathBuf>) -> PyResult<Self> {
        store::BottleStore::new(db_path.as_deref()).to_py().map(BottleStore)
    }

    fn __repr__(&self) -> String {
        format!("BottleStore({:?})", self.0.database().path())
    }

    /// Records a bottle as running (again) with its managed files, signed with this host's key.
    ///
    /// A relative path is under ``<root>/bottles/<slug>/`` and may not leave it.
    ///
    /// Raises:
    ///     InvalidInputError: bad slug or tool; a path outside its directory, a symlink, or not a regular file.
    #[pyo3(signature = (slug, *, backend, files = BTreeMap::new(), transport = "mount"))]
    fn register(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] slug: &str,
        #[pyo3(from_py_with = given)] backend: &str,
        #[pyo3(from_py_with = given)] files: BTreeMap<String, PathBuf>,
        #[pyo3(from_py_with = given)] transport: &str,
    ) -> PyResult<Bottle> {
        let files: Vec<(String, PathBuf)> = files.into_iter().collect();
        py.detach(|| self.0.register(slug, backend, transport, &files)).to_py().map(Bottle)
    }

    /// Marks it stopped, withdraws its pending proposals and revokes its tokens; how many proposals.
    ///
    /// Raises:
    ///     NotFoundError: no such bottle.
    #[pyo3(signature = (slug, *, reason = "bottle stopped"))]
    fn stop(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] slug: &str,
        #[pyo3(from_py_with = given)] reason: &str,
    ) -> PyResult<usize> {
        py.detach(|| self.0.stop(slug, reason)).to_py()
    }

    /// A new token with which a running bottle's sidecars tell the broker which bottle they are.
    ///
    /// 256 random bits as 43 characters of base64url (RFC 4648). Only its SHA-256 is kept. Older ones stay valid until
    /// the bottle stops.
    ///
    /// Raises:
    ///     NotFoundError: no such bottle, or it has stopped.
    fn issue_token(&self, py: Python<'_>, #[pyo3(from_py_with = given)] slug: &str) -> PyResult<String> {
        py.detach(|| self.0.issue_token(slug)).to_py()
    }

    /// The slug of the running bottle that ``token`` was issued to, or ``None``.
    fn check_token(&self, py: Python<'_>, #[pyo3(from_py_with = given)] token: &str) -> PyResult<Option<String>> {
        py.detach(|| self.0.check_token(token)).to_py()
    }

    /// Bottles by slug; with ``running`` only those not stopped.
    #[pyo3(signature = (*, running = false))]
    fn list_bottles(&self, py: Python<'_>, running: bool) -> PyResult<Vec<Bottle>> {
        Ok(py.detach(|| self.0.list_bottles(running)).to_py()?.into_iter().map(Bottle).collect())
    }

    /// The bottle, running or not, or ``None``.
    fn read_bottle(&self, py: Python<'_>, #[pyo3(from_py_with = given)] slug: &str) -> PyResult<Option<Bottle>> {
        Ok(py.detach(|| self.0.read_bottle(slug)).to_py()?.map(Bottle))
    }

    /// Ends its use. Idempotent.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.database().close());
    }
}
