//! `Inbox` and `Watch`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bot_bottle_store as store;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::convert::{Text, duration, given, json};
use crate::error::ToPy;
use crate::queue_store::{Wait, blocking, deliver};
use crate::values::{Change, InboxItem, InboxSummary, Message, Response, Review};

/// How many changes an iterator reads at once.
const BATCH: u32 = 256;

/// Counted before Python can run a signal's handler, which may ask for it.
static COMMITTED: AtomicU64 = AtomicU64::new(0);

/// How many decisions and questions this process has committed by :meth:`Inbox.decide` and :meth:`Inbox.ask`,
/// decisions among them whose managed file is not in effect yet. It counts before a signal's handler can run, so a
/// handler can tell whether it comes too late.
#[pyfunction]
pub fn committed_decisions() -> u64 {
    COMMITTED.load(Ordering::SeqCst)
}

/// How many writes this process has committed, to databases and keys. It counts before a signal's handler can
/// run.
#[pyfunction]
pub fn committed_writes() -> u64 {
    store::committed_writes()
}

/// The operator's view across all bottles. Opening it finishes managed files that a crash left half done.
#[pyclass(frozen, module = "bot_bottle")]
pub struct Inbox(Arc<store::Inbox>);

/// Iterator of :class:`Change`; a signal's exception passes through within 50 ms.
#[pyclass(frozen, module = "bot_bottle")]
pub struct Watch {
    inbox: Arc<store::Inbox>,
    timeout: Option<std::time::Duration>,
    state: Mutex<(i64, VecDeque<store::Change>)>,
}

#[pymethods]
impl Watch {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Change>> {
        loop {
            let since = {
                // Never held while something blocks.
                let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if let Some(change) = state.1.pop_front() {
                    state.0 = change.seq;
                    return Ok(Some(Change(change)));
                }
                state.0
            };
            let waited =
                blocking(py, |interrupted| match self.inbox.wait_for_change(since, self.timeout, interrupted) {
                    Err(store::Error::WaitTimeout { .. }) => Ok(false),
                    other => other.map(|()| true),
                })?;
            if !waited {
                return Ok(None);
            }
            let changes = py.detach(|| self.inbox.changes(since, BATCH)).to_py()?;
            let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if state.0 == since && state.1.is_empty() {
                state.1.extend(changes);
            }
        }
    }
}

#[pymethods]
impl Inbox {
    #[new]
    #[pyo3(signature = (db_path = None))]
    fn new(py: Python<'_>, #[pyo3(from_py_with = given)] db_path: Option<PathBuf>) -> PyResult<Self> {
        py.detach(|| store::Inbox::new(db_path.as_deref())).to_py().map(|inbox| Inbox(Arc::new(inbox)))
    }

    /// The file's path as given, absolute.
    #[getter]
    fn db_path(&self) -> String {
        self.0.database().path().display().to_string()
    }

    fn __repr__(&self) -> String {
        format!("Inbox({:?})", self.0.database().path())
    }

    /// Everything that can be decided now, oldest first, without payloads, at a cost that no archive raises.
    #[pyo3(signature = (bottle_slug = None))]
    fn pending(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] bottle_slug: Option<&str>,
    ) -> PyResult<Vec<InboxSummary>> {
        Ok(py.detach(|| self.0.pending(bottle_slug)).to_py()?.into_iter().map(InboxSummary).collect())
    }

    /// Decided, but the managed file is not in effect (``apply_state`` is ``failed`` or ``intended``).
    fn failed(&self, py: Python<'_>) -> PyResult<Vec<InboxSummary>> {
        Ok(py.detach(|| self.0.failed()).to_py()?.into_iter().map(InboxSummary).collect())
    }

    /// One proposal of any state, by its full id or a unique prefix of at least 4 characters.
    ///
    /// Raises:
    ///     NotFoundError: none. InvalidInputError: several (``matches`` lists them), or too short.
    fn read(&self, py: Python<'_>, #[pyo3(from_py_with = given)] proposal_id: &str) -> PyResult<InboxItem> {
        py.detach(|| self.0.read(proposal_id)).to_py().map(InboxItem)
    }

    /// The same as a list has it, without its payload.
    ///
    /// Raises: as :meth:`read`.
    fn summary(&self, py: Python<'_>, #[pyo3(from_py_with = given)] proposal_id: &str) -> PyResult<InboxSummary> {
        py.detach(|| self.0.summary(proposal_id)).to_py().map(InboxSummary)
    }

    /// All that must be seen of one proposal before it is decided; ``proposal_id`` as for :meth:`read`.
    ///
    /// Reads the managed file, of at most 4 MiB, and compares, for at most half a second.
    fn review(&self, py: Python<'_>, #[pyo3(from_py_with = given)] proposal_id: &str) -> PyResult<Review> {
        py.detach(|| self.0.review(proposal_id)).to_py().map(Review)
    }

    /// Proposals of any state, newest first, without payloads; ``before`` (an id) pages on.
    #[pyo3(signature = (*, bottle_slug = None, limit = 100, before = None))]
    fn history(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] bottle_slug: Option<&str>,
        #[pyo3(from_py_with = given)] limit: u32,
        #[pyo3(from_py_with = given)] before: Option<&str>,
    ) -> PyResult<Vec<InboxSummary>> {
        Ok(py.detach(|| self.0.history(bottle_slug, limit, before)).to_py()?.into_iter().map(InboxSummary).collect())
    }

    /// Decides, audits, makes the grant (one transaction), writes the managed file, wakes the waiters.
    ///
    /// Args:
    ///     status: ``approved``, ``modified`` (with ``final_file``) or ``rejected``.
    ///     review_sha256: :attr:`Review.review_sha256` of what the operator looked at.
    ///     payload_sha256: instead of it, the hash of the payload alone, for a program that decides without a screen.
    ///         It does not say where an approval writes to.
    ///     decided_by: who; ``None`` is the operating system's user name.
    ///     grant: ``once``, ``uses:N``, ``until:<RFC 3339>``, ``for:<seconds>`` or ``bottle`` (until it stops);
    ///         needs an approval of a proposal with a fingerprint. After ``kind:``: for all of
    ///         :attr:`Proposal.kind`. As ``prefix:for:<seconds> git status``: for commands that begin with these
    ///         words, which are the first ones of :attr:`Proposal.words`.
    ///
    /// Raises:
    ///     NotFoundError, AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: not to be decided.
    ///     StaleReviewError: it is not what was reviewed, or the managed file changed since it was proposed.
    ///     TypeError: neither hash is given, or both.
    ///     InvalidInputError: nothing to modify for this tool, or it needs notes (``gitleaks-allow``,
    ///         ``egress-token-allow``).
    ///     ManagedFileError: decided, but the file could not be written.
    #[pyo3(signature = (proposal_id, status, *, review_sha256 = None, payload_sha256 = None, notes = "", final_file = None,
                        decided_by = None, surface = "api", grant = None))]
    #[allow(clippy::too_many_arguments)] // they are the decision's parts
    fn decide(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
        #[pyo3(from_py_with = given)] status: &str,
        #[pyo3(from_py_with = given)] review_sha256: Option<&str>,
        #[pyo3(from_py_with = given)] payload_sha256: Option<&str>,
        #[pyo3(from_py_with = given)] notes: &str,
        final_file: Option<Text>,
        #[pyo3(from_py_with = given)] decided_by: Option<&str>,
        #[pyo3(from_py_with = given)] surface: &str,
        #[pyo3(from_py_with = given)] grant: Option<&str>,
    ) -> PyResult<Response> {
        let reviewed = match (review_sha256, payload_sha256) {
            (Some(hash), None) => store::Reviewed::Review(hash),
            (None, Some(hash)) => store::Reviewed::Payload(hash),
            _ => {
                let message = "decide() takes either review_sha256, of Inbox.review(), or payload_sha256";
                return Err(PyTypeError::new_err(message));
            }
        };
        let (status, surface) = (status.parse().to_py()?, surface.parse().to_py()?);
        let final_file = final_file.map(Text::into_bytes);
        // Checked as bytes, for the offset; what passes is text.
        store::Response::checked(proposal_id, status, notes, final_file.as_deref()).to_py()?;
        let final_file = final_file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let decision = store::Decision {
            proposal_id,
            status,
            reviewed,
            notes,
            final_file: final_file.as_deref(),
            decided_by,
            surface,
            grant,
        };
        let decided = py.detach(|| self.0.decide(&decision));
        if matches!(decided, Ok(_) | Err(store::Error::ManagedFile { .. })) {
            COMMITTED.fetch_add(1, Ordering::SeqCst);
        }
        decided.to_py().map(Response)
    }

    /// Asks back: whoever waits is told at once; the proposal stays pending, to be answered or revised.
    ///
    /// The question is signed, and its audit entry is written with it. A review of before the answer is stale.
    ///
    /// Args:
    ///     proposal_id: the full id.
    ///     text: up to 16 KiB, not blank; 16 questions about one proposal at most.
    ///     asked_by: who; ``None`` is the operating system's user name.
    ///     message_id: a UUID for it: the same question under the same id again changes nothing. ``None`` makes one.
    ///
    /// Raises:
    ///     NotFoundError, AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: nobody waits for it.
    ///     InvalidInputError: nobody can answer for this tool (``egress-token-allow``, ``run-command``), there were 16
    ///         questions already, or the text breaks its rule.
    #[pyo3(signature = (proposal_id, text, *, asked_by = None, surface = "api", message_id = None))]
    fn ask(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
        #[pyo3(from_py_with = given)] text: &str,
        #[pyo3(from_py_with = given)] asked_by: Option<&str>,
        #[pyo3(from_py_with = given)] surface: &str,
        #[pyo3(from_py_with = given)] message_id: Option<&str>,
    ) -> PyResult<Message> {
        let question =
            store::Question { proposal_id, text, asked_by, surface: surface.parse().to_py()?, id: message_id };
        let asked = py.detach(|| self.0.ask(&question));
        if asked.is_ok() {
            COMMITTED.fetch_add(1, Ordering::SeqCst);
        }
        asked.to_py().map(Message)
    }

    /// An iterator of changes after ``since`` (a ``Change.seq``; ``None``: from now on, ``0``: all there are).
    ///
    /// It blocks between changes; with ``timeout`` it ends after that many seconds without one.
    #[pyo3(signature = (since = None, *, timeout = None))]
    fn watch(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] since: Option<i64>,
        #[pyo3(from_py_with = given)] timeout: Option<f64>,
    ) -> PyResult<Watch> {
        let timeout = duration(py, "timeout", timeout)?;
        let since = match since {
            Some(since) => since,
            None => self.last_change(py)?,
        };
        Ok(Watch { inbox: self.0.clone(), timeout, state: Mutex::new((since, VecDeque::new())) })
    }

    /// ``seq`` of the newest change, 0 if there is none.
    fn last_change(&self, py: Python<'_>) -> PyResult<i64> {
        py.detach(|| self.0.last_change()).to_py()
    }

    /// Changes after ``since``, oldest first, without blocking.
    #[pyo3(signature = (since = 0, *, limit = 1000))]
    fn changes(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] since: i64,
        #[pyo3(from_py_with = given)] limit: u32,
    ) -> PyResult<Vec<Change>> {
        Ok(py.detach(|| self.0.changes(since, limit)).to_py()?.into_iter().map(Change).collect())
    }

    /// Calls ``callback`` once as soon as there is a change after ``since``; from the watcher thread.
    fn begin_watch(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] since: i64,
        callback: Py<PyAny>,
    ) -> PyResult<Wait> {
        py.detach(|| self.0.begin_watch(since, None, deliver(callback))).to_py().map(Wait)
    }

    /// Counts by state, bottle, tool, ``waiting`` now; seconds of the oldest pending and newest 100 decisions.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = py.detach(|| self.0.stats()).to_py()?;
        json(py, &stats)
    }

    /// Finishes interrupted managed files now; how many. Opening the inbox does this.
    fn recover(&self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| self.0.recover()).to_py()
    }

    /// Ends its use. Idempotent.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.database().close());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyAny>) {
        self.close(py);
    }
}
