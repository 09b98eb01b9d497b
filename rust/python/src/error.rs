//! How does an error of the core become its Python exception? The only mapping: class by name, fields as attributes.

use std::cell::RefCell;

use bot_bottle_store::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::json;
use crate::exit::enter;

pub trait ToPy<T> {
    /// The value, or the exception.
    fn to_py(self) -> PyResult<T>;
}

impl<T> ToPy<T> for Result<T> {
    fn to_py(self) -> PyResult<T> {
        self.map_err(|error| Python::attach(|py| exception(py, &error)))
    }
}

pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    build(py, error).unwrap_or_else(|failure| failure)
}

thread_local! {
    /// What a signal handler raised while the core was blocked, until the core has returned.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Runs the handlers of signals that came; whether one raised, which ends what the core is doing.
pub fn interrupted() -> bool {
    match enter(|py| py.check_signals()) {
        None | Some(Ok(())) => false,
        Some(Err(raised)) => {
            RAISED.set(Some(raised));
            true
        }
    }
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    // Taken in any case: an error that is none of its own ends the call as well.
    let raised = RAISED.take();
    if error == &Error::Interrupted
        && let Some(raised) = raised
    {
        return Ok(raised);
    }
    let module = match error {
        Error::Interrupted => py.import("builtins")?,
        _ => py.import("bot_bottle.errors")?,
    };
    let class = module.getattr(error.class())?;
    let value = class.call((error.to_string(),), Some(&attributes(py, error)?))?;
    let built = PyErr::from_value(value);
    if raised.is_some() {
        built.set_cause(py, raised);
    }
    Ok(built)
}

fn attributes<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyDict>> {
    let data = PyDict::new(py);
    match error {
        Error::Ambiguous { matches, .. } => data.set_item("matches", matches)?,
        Error::NotFound { id, .. } => data.set_item("id", id)?,
        Error::AlreadyDecided { id, status, by, at, surface, archived } => {
            data.set_item("proposal_id", id)?;
            data.set_item("status", status)?;
            data.set_item("decided_by", by)?;
            data.set_item("decided_at", at)?;
            data.set_item("surface", surface)?;
            data.set_item("archived", archived)?;
        }
        Error::Expired { id, expires_at } => {
            data.set_item("proposal_id", id)?;
            data.set_item("expires_at", expires_at)?;
        }
        Error::Withdrawn { id, at, reason } => {
            data.set_item("proposal_id", id)?;
            data.set_item("withdrawn_at", at)?;
            data.set_item("reason", reason)?;
        }
        Error::StalePayload { id, expected, actual } | Error::StaleReview { id, expected, actual } => {
            data.set_item("proposal_id", id)?;
            data.set_item("expected", expected)?;
            data.set_item("actual", actual)?;
        }
        Error::StaleFile { id, expected, actual, path } => {
            data.set_item("proposal_id", id)?;
            data.set_item("expected", expected)?;
            data.set_item("actual", actual)?;
            data.set_item("path", path)?;
        }
        Error::WaitTimeout { id, .. } => data.set_item("proposal_id", id)?,
        Error::AuditIntegrity { seq, .. } => data.set_item("seq", seq)?,
        Error::Unverified { .. } => data.set_item("seq", py.None())?,
        Error::Key { path, .. } => data.set_item("path", path)?,
        Error::SchemaTooNew { module, found, compat, supported } => {
            data.set_item("module", module)?;
            data.set_item("found", found)?;
            data.set_item("compat", compat)?;
            data.set_item("supported", supported)?;
        }
        Error::MigrationFailed { module, version, .. } | Error::MigrationEdited { module, version } => {
            data.set_item("module", module)?;
            data.set_item("version", version)?;
        }
        Error::FileMount { path, filesystem } | Error::ForeignFilesystem { path, filesystem } => {
            data.set_item("path", path)?;
            data.set_item("filesystem", filesystem)?;
        }
        Error::Corrupt { path, .. }
        | Error::SchemaAltered { path, .. }
        | Error::Busy { path }
        | Error::WriteLost { path }
        | Error::Unavailable { path, .. }
        | Error::BellTimeout { path, .. } => data.set_item("path", path)?,
        Error::ManagedFile { id, path, .. } => {
            data.set_item("proposal_id", id)?;
            data.set_item("path", path)?;
        }
        Error::Unreachable { url, .. } => data.set_item("path", url)?,
        Error::Problem { data: told, .. } => {
            for (name, value) in told.iter() {
                data.set_item(name, json(py, value)?)?;
            }
        }
        Error::AccessDenied { .. }
        | Error::InvalidInput { .. }
        | Error::InvalidProposal { .. }
        | Error::QueryTimeout { .. }
        | Error::Closed
        | Error::Interrupted => {}
    }
    Ok(data)
}
