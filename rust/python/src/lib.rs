//! The extension module `bot_bottle._native`: converts arguments, releases the GIL, calls the core, converts results.
//! What each function means is in `python/bot_bottle/_native.pyi`; one file per group of classes.

mod audit_store;
mod broker;
mod convert;
mod database;
mod error;
mod exit;
mod inbox;
mod keys;
mod queue_store;
mod registers;
mod routes;
mod scan;
mod values;

use bot_bottle_store as store;
use pyo3::prelude::*;

use crate::convert::Text;
use crate::error::ToPy;

#[pyfunction]
fn sha256_hex(data: Text) -> String {
    store::sha256_hex(data.bytes())
}

#[pyfunction]
#[pyo3(signature = (before, after, *, label = "file"))]
fn render_diff(py: Python<'_>, before: &str, after: &str, label: &str) -> String {
    py.detach(|| store::render_diff(before, after, label))
}

#[pyfunction]
#[pyo3(signature = (text, *, multiline = true))]
fn visible(text: Text, multiline: bool) -> String {
    // A lone surrogate, which UTF-8 cannot hold, arrives as the bytes of its code point and leaves as U+FFFD.
    store::visible(&String::from_utf8_lossy(text.bytes()), multiline).into_owned()
}

#[pyfunction]
fn bot_bottle_root() -> PyResult<String> {
    Ok(store::bot_bottle_root().to_py()?.display().to_string())
}

#[pyfunction]
fn host_db_path() -> PyResult<String> {
    Ok(store::host_db_path().to_py()?.display().to_string())
}

#[pyfunction]
fn new_id() -> String {
    store::new_id()
}

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.py().import("atexit")?.call_method1("register", (wrap_pyfunction!(exit::end, module)?,))?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DB_PATH_IN_CONTAINER", store::DB_PATH_IN_CONTAINER)?;
    module.add("MAX_PAYLOAD_BYTES", store::MAX_PAYLOAD_BYTES)?;
    module.add("MAX_JUSTIFICATION_BYTES", store::MAX_JUSTIFICATION_BYTES)?;
    module.add("MAX_NOTES_BYTES", store::MAX_NOTES_BYTES)?;
    module.add("MAX_PENDING_PER_BOTTLE", store::MAX_PENDING_PER_BOTTLE)?;
    module.add("TOOL_EGRESS_ALLOW", store::TOOL_EGRESS_ALLOW)?;
    module.add("TOOL_EGRESS_BLOCK", store::TOOL_EGRESS_BLOCK)?;
    module.add("TOOL_CAPABILITY_BLOCK", store::TOOL_CAPABILITY_BLOCK)?;
    module.add("TOOL_GITLEAKS_ALLOW", store::TOOL_GITLEAKS_ALLOW)?;
    module.add("TOOL_EGRESS_TOKEN_ALLOW", store::TOOL_EGRESS_TOKEN_ALLOW)?;
    module.add("STATUS_APPROVED", store::STATUS_APPROVED)?;
    module.add("STATUS_MODIFIED", store::STATUS_MODIFIED)?;
    module.add("STATUS_REJECTED", store::STATUS_REJECTED)?;
    module.add_function(wrap_pyfunction!(sha256_hex, module)?)?;
    module.add_function(wrap_pyfunction!(render_diff, module)?)?;
    module.add_function(wrap_pyfunction!(visible, module)?)?;
    module.add_function(wrap_pyfunction!(bot_bottle_root, module)?)?;
    module.add_function(wrap_pyfunction!(host_db_path, module)?)?;
    module.add_function(wrap_pyfunction!(new_id, module)?)?;
    module.add_function(wrap_pyfunction!(values::_rebuild, module)?)?;
    module.add_class::<values::Proposal>()?;
    module.add_class::<values::Response>()?;
    module.add_class::<values::AuditEntry>()?;
    module.add_class::<values::AuditReport>()?;
    module.add_class::<values::InboxItem>()?;
    module.add_class::<values::Review>()?;
    module.add_class::<values::Hunk>()?;
    module.add_class::<values::Part>()?;
    module.add_class::<values::Odd>()?;
    module.add_class::<values::Change>()?;
    module.add_class::<values::Grant>()?;
    module.add_class::<values::Bottle>()?;
    module.add_class::<values::TrustedKey>()?;
    module.add_class::<broker::Broker>()?;
    module.add_class::<queue_store::QueueStore>()?;
    module.add_class::<queue_store::Wait>()?;
    module.add_class::<inbox::Inbox>()?;
    module.add_class::<inbox::Watch>()?;
    module.add_class::<audit_store::AuditStore>()?;
    module.add_class::<registers::GrantStore>()?;
    module.add_class::<registers::BottleStore>()?;
    module.add_class::<routes::Routes>()?;
    module.add_function(wrap_pyfunction!(routes::canonical_host, module)?)?;
    module.add_class::<scan::SecretFinding>()?;
    module.add_function(wrap_pyfunction!(scan::scan_bytes, module)?)?;
    module.add_class::<keys::Keys>()?;
    module.add_class::<database::Database>()?;
    module.add_class::<database::Transaction>()?;
    Ok(())
}
