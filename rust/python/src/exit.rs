//! Which interpreter is entered, and which threads may still enter one that is ending? The main one; only the one that
//! ends it.
//!
//! A thread that waits without the GIL enters now and then, for signals or with an answer. Once `Py_FinalizeEx` has run,
//! `PyGILState_Ensure` reads a null pointer (CPython up to 3.13 at least), and whether it has cannot be asked without a race.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyImportError;
use pyo3::ffi::{PyInterpreterState_Get, PyInterpreterState_GetID};
use pyo3::prelude::*;

/// How long an exit waits for callbacks that run.
const GRACE: Duration = Duration::from_secs(1);

/// The thread that ends the interpreter, once it does.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// How many threads are in `enter`, under the process that counted: a fork leaves its parent's threads behind.
static INSIDE: AtomicU64 = AtomicU64::new(0);

/// `PyGILState_Ensure` always enters the main interpreter: a wait that was begun in another would end among objects that
/// are not its own. CPython from 3.12 on refuses to load this module in one that has a GIL of its own; not so the others.
pub fn refuse_sub_interpreter(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: this thread is attached to an interpreter, as `_py` shows, so there is a current one.
    let id = unsafe { PyInterpreterState_GetID(PyInterpreterState_Get()) };
    if id == 0 {
        return Ok(());
    }
    let reason =
        "bot_bottle does not support sub-interpreters; import it in the main interpreter, or in a process of its own";
    Err(PyImportError::new_err(reason))
}

/// Runs `with` inside the interpreter; not at all, and `None`, once another thread is ending it.
pub fn enter<T>(with: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _inside = Inside::new();
    match ENDING.get() {
        Some(&by) if by != thread::current().id() => None,
        _ => Python::try_attach(with),
    }
}

/// Whether the interpreter is ending: what the thread that ends it drops calls nobody back.
pub fn begun() -> bool {
    ENDING.get().is_some()
}

/// Closes the interpreter to other threads, at exit and before anything of it is gone.
#[pyfunction]
pub fn end(py: Python<'_>) {
    py.detach(|| {
        ENDING.get_or_init(|| thread::current().id());
        let end = Instant::now() + GRACE;
        while inside(INSIDE.load(Ordering::SeqCst)) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

struct Inside;

impl Inside {
    fn new() -> Self {
        count(|inside| inside + 1);
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        count(|inside| inside.saturating_sub(1));
    }
}

fn count(change: impl Fn(u64) -> u64) {
    let own = u64::from(process::id()) << 32;
    let counted = |packed| Some(own | change(inside(packed)));
    let _always = INSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted);
}

/// The count of this process.
fn inside(packed: u64) -> u64 {
    if packed >> 32 == u64::from(process::id()) { packed & u64::from(u32::MAX) } else { 0 }
}
