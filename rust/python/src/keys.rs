//! `Keys`.

use std::path::PathBuf;

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::convert::Moment;
use crate::error::ToPy;
use crate::values::TrustedKey;

#[pyclass(frozen, module = "bot_bottle")]
pub struct Keys(store::Keys);

#[pymethods]
impl Keys {
    #[new]
    #[pyo3(signature = (db_path = None))]
    fn new(db_path: Option<PathBuf>) -> PyResult<Self> {
        store::Keys::new(db_path.as_deref()).to_py().map(Keys)
    }

    fn __repr__(&self) -> String {
        format!("Keys({:?})", self.0.dir())
    }

    #[getter]
    fn host_file(&self) -> PathBuf {
        self.0.host_file()
    }

    #[getter]
    fn keyring_file(&self) -> PathBuf {
        self.0.keyring_file()
    }

    fn all(&self, py: Python<'_>) -> PyResult<Vec<TrustedKey>> {
        let keyring = py.detach(|| self.0.keyring()).to_py()?;
        Ok(keyring.keys().iter().cloned().map(TrustedKey).collect())
    }

    fn rotate(&self, py: Python<'_>) -> PyResult<TrustedKey> {
        py.detach(|| self.0.rotate()).to_py().map(TrustedKey)
    }

    fn trust(&self, py: Python<'_>, name: &str, public_key: PathBuf) -> PyResult<TrustedKey> {
        py.detach(|| self.0.trust(name, &public_key)).to_py().map(TrustedKey)
    }

    #[pyo3(signature = (key_id, *, at = None))]
    fn revoke(&self, py: Python<'_>, key_id: &str, at: Option<Moment>) -> PyResult<TrustedKey> {
        let at = at.as_ref().map(Moment::as_str);
        py.detach(|| self.0.revoke(key_id, at)).to_py().map(TrustedKey)
    }

    fn add_operator(&self, py: Python<'_>, name: &str, public_key: PathBuf) -> PyResult<TrustedKey> {
        py.detach(|| self.0.add_operator(name, &public_key)).to_py().map(TrustedKey)
    }

    fn make_operator(&self, py: Python<'_>, name: &str) -> PyResult<(TrustedKey, PathBuf)> {
        py.detach(|| self.0.make_operator(name)).to_py().map(|(key, file)| (TrustedKey(key), file))
    }

    fn remove_operator(&self, py: Python<'_>, name: &str) -> PyResult<TrustedKey> {
        py.detach(|| self.0.remove_operator(name)).to_py().map(TrustedKey)
    }
}
