//! The extension module `bot_bottle._native`: converts arguments, releases the GIL, calls the core, converts results.
//! The docstrings here are the reference; `tests/house/stub_docs.py` copies them into the stub. One file per group of
//! classes.

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
use bot_bottle_store::{Status, Tool, Vocabulary};
use pyo3::prelude::*;

use crate::convert::{Text, given};
use crate::error::ToPy;

/// SHA-256 of ``data`` (text as UTF-8) as 64 lower-case hex digits.
#[pyfunction]
fn sha256_hex(data: Text) -> String {
    store::sha256_hex(data.bytes())
}

/// Unified diff (3 lines of context) with headers ``--- a/label`` and ``+++ b/label``; ``""`` if equal.
#[pyfunction]
#[pyo3(signature = (before, after, *, label = "file"))]
fn render_diff(
    py: Python<'_>,
    #[pyo3(from_py_with = given)] before: &str,
    #[pyo3(from_py_with = given)] after: &str,
    #[pyo3(from_py_with = given)] label: &str,
) -> String {
    py.detach(|| store::render_diff(before, after, label))
}

/// ``text`` with everything that could deceive a reader spelled out; the one sanitiser of all surfaces.
///
/// Control characters (ANSI escapes among them), bidi overrides, zero-width and other invisible
/// or blank look-alike characters, noncharacters, and combining marks from the fifth in a row on become
/// ``<U+XXXX>``. With ``multiline`` newline and tab stay. A word that mixes scripts no language mixes is
/// followed by ``<mixed scripts: Cyrillic, Latin>``; a line with letters written from right to left ends
/// with ``<right-to-left>``.
/// Source: Unicode ``Cc``, ``Cf``, ``Zl``, ``Zp``, ``Zs`` (but for U+0020), noncharacters, default-ignorable code
/// points, blank letters; UTS 39, "highly restrictive".
#[pyfunction]
#[pyo3(signature = (text, *, multiline = true))]
fn visible(text: Text, multiline: bool) -> String {
    // A lone surrogate, which UTF-8 cannot hold, arrives as the bytes of its code point and leaves as U+FFFD.
    store::visible(&String::from_utf8_lossy(text.bytes()), multiline).into_owned()
}

/// ``~/.bot-bottle``, or ``$BOT_BOTTLE_ROOT`` (absolute). Creates nothing.
///
/// Raises:
///     InvalidInputError: the variable is relative, or there is no home directory.
#[pyfunction]
fn bot_bottle_root() -> PyResult<String> {
    Ok(store::bot_bottle_root().to_py()?.display().to_string())
}

/// ``<root>/bot-bottle.db``, the only database on a host: a symlink to ``<root>/db/bot-bottle.db``.
#[pyfunction]
fn host_db_path() -> PyResult<String> {
    Ok(store::host_db_path().to_py()?.display().to_string())
}

/// A new UUIDv7, later ones sort after earlier ones of this process.
#[pyfunction]
fn new_id() -> String {
    store::new_id()
}

/// What the Rust extension offers.
///
/// Conventions: timestamps are ``str``, UTC RFC 3339 with microseconds and ``Z``
/// (``2026-01-31T12:00:00.000000Z``); where one is given, a ``datetime`` that says its time zone does as
/// well. Durations are ``float`` seconds. Hashes are lower-case hex SHA-256 of the UTF-8 bytes. Ids are
/// UUIDv7 (RFC 9562). ``db_path=None`` means the host's database,
/// :func:`host_db_path`; an explicit path is for sidecars and tests, and its directory must exist.
/// Every method that touches the database may raise ``DatabaseBusyError`` (after 30 s behind another
/// writer), ``DatabaseCorruptError``, ``DatabaseUnavailableError``, ``SchemaTooNewError``,
/// ``MigrationError``, ``UnsafeMountError`` or ``ClosedError``; these are not repeated below. A read on
/// a database that does not exist returns nothing and creates nothing; the first write creates it. No
/// call holds the GIL while it blocks or runs SQL. All that one call waits for takes 30 s at most. Signals are
/// seen to at least every 100 ms meanwhile, and an exception that a handler raises ends the call, which has
/// then written nothing. A handler that uses the same database inside the call that it interrupts is refused
/// (``InvalidInputError``), as is a write inside the thread's own :meth:`Database.transaction`. A forked child
/// is refused (``DatabaseUnavailableError``) what its parent had open: SQLite's locks do not survive a fork.
///
/// A sidecar's stores also work over the host's broker (``broker=``, see :class:`Broker`), with the same
/// verbs, types, errors and waits. There a method may also raise ``AccessDeniedError``, at once for what only
/// the host does (``write_response``, reading the log, listing and revoking grants), and
/// ``DatabaseUnavailableError`` after 30 s without a broker. A verb tries again until then, through a restart
/// of the broker; what it had done already is not done twice, but for an audit entry and a grant's use whose
/// acknowledgement was lost.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    exit::refuse_sub_interpreter(module.py())?;
    store::ask_while_waiting(error::interrupted);
    module.py().import("atexit")?.call_method1("register", (wrap_pyfunction!(exit::end, module)?,))?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DB_PATH_IN_CONTAINER", store::DB_PATH_IN_CONTAINER)?;
    module.add("MAX_PAYLOAD_BYTES", store::MAX_PAYLOAD_BYTES)?;
    module.add("MAX_JUSTIFICATION_BYTES", store::MAX_JUSTIFICATION_BYTES)?;
    module.add("MAX_MESSAGE_BYTES", store::MAX_MESSAGE_BYTES)?;
    module.add("MAX_NOTES_BYTES", store::MAX_NOTES_BYTES)?;
    module.add("MAX_PENDING_PER_BOTTLE", store::MAX_PENDING_PER_BOTTLE)?;
    for (name, tool) in [
        ("TOOL_EGRESS_ALLOW", Tool::EgressAllow),
        ("TOOL_EGRESS_BLOCK", Tool::EgressBlock),
        ("TOOL_CAPABILITY_BLOCK", Tool::CapabilityBlock),
        ("TOOL_GITLEAKS_ALLOW", Tool::GitleaksAllow),
        ("TOOL_EGRESS_TOKEN_ALLOW", Tool::EgressTokenAllow),
    ] {
        module.add(name, tool.as_str())?;
    }
    for (name, status) in [
        ("STATUS_APPROVED", Status::Approved),
        ("STATUS_MODIFIED", Status::Modified),
        ("STATUS_REJECTED", Status::Rejected),
    ] {
        module.add(name, status.as_str())?;
    }
    module.add_function(wrap_pyfunction!(sha256_hex, module)?)?;
    module.add_function(wrap_pyfunction!(render_diff, module)?)?;
    module.add_function(wrap_pyfunction!(visible, module)?)?;
    module.add_function(wrap_pyfunction!(bot_bottle_root, module)?)?;
    module.add_function(wrap_pyfunction!(host_db_path, module)?)?;
    module.add_function(wrap_pyfunction!(new_id, module)?)?;
    module.add_function(wrap_pyfunction!(inbox::committed_decisions, module)?)?;
    module.add_function(wrap_pyfunction!(inbox::committed_writes, module)?)?;
    module.add_function(wrap_pyfunction!(values::_rebuild, module)?)?;
    module.add_class::<values::Proposal>()?;
    module.add_class::<values::Response>()?;
    module.add_class::<values::AuditEntry>()?;
    module.add_class::<values::AuditReport>()?;
    module.add_class::<values::ProposalSummary>()?;
    module.add_class::<values::ResponseSummary>()?;
    module.add_class::<values::InboxItem>()?;
    module.add_class::<values::InboxSummary>()?;
    module.add_class::<values::Message>()?;
    module.add_class::<values::Revised>()?;
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
