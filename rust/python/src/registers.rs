//! `GrantStore` and `BottleStore`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::broker::{Broker, opened};
use crate::error::ToPy;
use crate::values::{Bottle, Grant};

#[pyclass(frozen, module = "bot_bottle")]
pub struct GrantStore(store::GrantStore);

#[pymethods]
impl GrantStore {
    #[new]
    #[pyo3(signature = (db_path = None, *, broker = None, operator_keys = None))]
    fn new(
        db_path: Option<PathBuf>,
        broker: Option<&Bound<'_, Broker>>,
        operator_keys: Option<PathBuf>,
    ) -> PyResult<Self> {
        let opened = opened(db_path, broker, store::GrantStore::new, |broker| Ok(store::GrantStore::over(broker)));
        opened.map(|store| GrantStore(store.trusting(operator_keys.as_deref())))
    }

    fn __repr__(&self) -> String {
        format!("GrantStore({:?})", self.0.location())
    }

    fn use_grant(&self, py: Python<'_>, bottle_slug: &str, tool: &str, fingerprint: &str) -> PyResult<Option<Grant>> {
        Ok(py.detach(|| self.0.use_grant(bottle_slug, tool, fingerprint)).to_py()?.map(Grant))
    }

    #[pyo3(signature = (bottle_slug = None, *, live = true))]
    fn list_grants(&self, py: Python<'_>, bottle_slug: Option<&str>, live: bool) -> PyResult<Vec<Grant>> {
        Ok(py.detach(|| self.0.list_grants(bottle_slug, live)).to_py()?.into_iter().map(Grant).collect())
    }

    #[pyo3(signature = (grant_id, *, revoked_by = None, surface = "api"))]
    fn revoke_grant(&self, py: Python<'_>, grant_id: &str, revoked_by: Option<&str>, surface: &str) -> PyResult<Grant> {
        py.detach(|| self.0.revoke_grant(grant_id, revoked_by, surface)).to_py().map(Grant)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

#[pyclass(frozen, module = "bot_bottle")]
pub struct BottleStore(store::BottleStore);

#[pymethods]
impl BottleStore {
    #[new]
    #[pyo3(signature = (db_path = None))]
    fn new(db_path: Option<PathBuf>) -> PyResult<Self> {
        store::BottleStore::new(db_path.as_deref()).to_py().map(BottleStore)
    }

    fn __repr__(&self) -> String {
        format!("BottleStore({:?})", self.0.database().path())
    }

    #[pyo3(signature = (slug, *, backend, files = BTreeMap::new(), transport = "mount"))]
    fn register(
        &self,
        py: Python<'_>,
        slug: &str,
        backend: &str,
        files: BTreeMap<String, PathBuf>,
        transport: &str,
    ) -> PyResult<Bottle> {
        let files: Vec<(String, PathBuf)> = files.into_iter().collect();
        py.detach(|| self.0.register(slug, backend, transport, &files)).to_py().map(Bottle)
    }

    #[pyo3(signature = (slug, *, reason = "bottle stopped"))]
    fn stop(&self, py: Python<'_>, slug: &str, reason: &str) -> PyResult<usize> {
        py.detach(|| self.0.stop(slug, reason)).to_py()
    }

    fn issue_token(&self, py: Python<'_>, slug: &str) -> PyResult<String> {
        py.detach(|| self.0.issue_token(slug)).to_py()
    }

    fn check_token(&self, py: Python<'_>, token: &str) -> PyResult<Option<String>> {
        py.detach(|| self.0.check_token(token)).to_py()
    }

    #[pyo3(signature = (*, running = false))]
    fn list_bottles(&self, py: Python<'_>, running: bool) -> PyResult<Vec<Bottle>> {
        Ok(py.detach(|| self.0.list_bottles(running)).to_py()?.into_iter().map(Bottle).collect())
    }

    fn read_bottle(&self, py: Python<'_>, slug: &str) -> PyResult<Option<Bottle>> {
        Ok(py.detach(|| self.0.read_bottle(slug)).to_py()?.map(Bottle))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.database().close());
    }
}
