//! `Keys`.

use std::path::PathBuf;

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::convert::{Moment, given};
use crate::error::ToPy;
use crate::values::TrustedKey;

/// The keys that this host signs with and trusts, in ``<root>/keys``; docs/statements.md has the formats.
///
/// A database at another path (``db_path``) has its own, in ``<db_path>-keys``.
#[pyclass(frozen, module = "bot_bottle")]
pub struct Keys(store::Keys);

#[pymethods]
impl Keys {
    #[new]
    #[pyo3(signature = (db_path = None))]
    fn new(#[pyo3(from_py_with = given)] db_path: Option<PathBuf>) -> PyResult<Self> {
        store::Keys::new(db_path.as_deref()).to_py().map(Keys)
    }

    fn __repr__(&self) -> String {
        format!("Keys({:?})", self.0.dir())
    }

    /// This host's private key (0600), made when something is first signed.
    #[getter]
    fn host_file(&self) -> PathBuf {
        self.0.host_file()
    }

    /// The public keys; sidecars get its directory read-only.
    #[getter]
    fn keyring_file(&self) -> PathBuf {
        self.0.keyring_file()
    }

    /// Every key, the former and the revoked too; empty before anything was signed. Creates nothing.
    ///
    /// Raises:
    ///     KeyUnusableError: the keyring is not one, or not readable.
    fn all(&self, py: Python<'_>) -> PyResult<Vec<TrustedKey>> {
        let keyring = py.detach(|| self.0.keyring()).to_py()?;
        Ok(keyring.keys().iter().cloned().map(TrustedKey).collect())
    }

    /// Makes a new key for this host. The old private key is deleted; what it signed stands.
    fn rotate(&self, py: Python<'_>) -> PyResult<TrustedKey> {
        py.detach(|| self.0.rotate()).to_py().map(TrustedKey)
    }

    /// Trusts another host's decisions and grants. ``public_key`` is a file as for :meth:`add_operator`.
    fn trust(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] name: &str,
        #[pyo3(from_py_with = given)] public_key: PathBuf,
    ) -> PyResult<TrustedKey> {
        py.detach(|| self.0.trust(name, &public_key)).to_py().map(TrustedKey)
    }

    /// From ``at`` on (RFC 3339; ``None``: now) nothing the key signs counts. An id may be shortened to 4 digits.
    ///
    /// Raises:
    ///     NotFoundError: no such key. InvalidInputError: several, or this host's current one (rotate it first).
    #[pyo3(signature = (key_id, *, at = None))]
    fn revoke(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] key_id: &str,
        at: Option<Moment>,
    ) -> PyResult<TrustedKey> {
        let at = at.as_ref().map(Moment::as_str);
        py.detach(|| self.0.revoke(key_id, at)).to_py().map(TrustedKey)
    }

    /// Trusts a person's key: what it signs is decided by ``name``.
    ///
    /// Args:
    ///     public_key: a file with the public key as PEM or as OpenSSH writes it (``ssh-ed25519 …``).
    ///
    /// Raises:
    ///     InvalidInputError: the name or the key is in use. KeyUnusableError: no such key in the file.
    fn add_operator(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] name: &str,
        #[pyo3(from_py_with = given)] public_key: PathBuf,
    ) -> PyResult<TrustedKey> {
        py.detach(|| self.0.add_operator(name, &public_key)).to_py().map(TrustedKey)
    }

    /// Makes a person's key pair; with the file (0600) of the private key, for ``$BOT_BOTTLE_OPERATOR_KEY``.
    fn make_operator(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] name: &str,
    ) -> PyResult<(TrustedKey, PathBuf)> {
        py.detach(|| self.0.make_operator(name)).to_py().map(|(key, file)| (TrustedKey(key), file))
    }

    /// Revokes the key of ``name`` now; earlier decisions stand.
    ///
    /// Raises:
    ///     NotFoundError: no such operator.
    fn remove_operator(&self, py: Python<'_>, #[pyo3(from_py_with = given)] name: &str) -> PyResult<TrustedKey> {
        py.detach(|| self.0.remove_operator(name)).to_py().map(TrustedKey)
    }
}
