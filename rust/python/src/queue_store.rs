//! `QueueStore` and `Wait`.

use std::path::PathBuf;

use bot_bottle_store as store;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use store::{Event, Questions, Word};

use crate::broker::{Broker, opened};
use crate::convert::{duration, given};
use crate::error::{ToPy, exception, interrupted};
use crate::exit::{begun, enter};
use crate::values::{InboxItem, InboxSummary, Message, Proposal, Response};

/// The queue of one bottle, as its sidecars use it.
///
/// Opens nothing yet.
///
/// Args:
///     queue_key: the bottle's slug: ``[a-z0-9][a-z0-9._-]{0,62}``.
///     broker: instead of ``db_path``; its token must speak for this bottle.
///     operator_keys: the file of the keys that a decision must be signed by (``Keys.keyring_file``). Then
///         everything that gives an answer raises ``AuditIntegrityError`` for one that none of them signed, for
///         just what was asked. Without it, what the file or the broker says is taken.
///
/// Raises:
///     InvalidProposalError: the key breaks that rule.
///     InvalidInputError: both ``db_path`` and ``broker``.
#[pyclass(frozen, module = "bot_bottle")]
pub struct QueueStore(store::QueueStore);

/// A wait under way without a thread of its own; see :meth:`QueueStore.begin_wait`.
#[pyclass(frozen, module = "bot_bottle")]
pub struct Wait(pub store::WaitHandle);

#[pymethods]
impl Wait {
    /// Ends it; its callback is not called any more. Idempotent.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.0.cancel());
    }
}

/// Runs a blocking wait without the GIL; an exception of a signal handler ends it and passes through.
pub fn blocking<T>(
    py: Python<'_>,
    wait: impl FnOnce(&mut (dyn FnMut() -> bool + Send)) -> store::Result<T> + Send,
) -> PyResult<T>
where
    T: Send,
{
    py.detach(|| wait(&mut interrupted)).to_py()
}

/// Hands a wait's end to a Python callable, unless the interpreter is ending.
pub fn deliver(callback: Py<PyAny>) -> impl FnOnce(store::Result<Event>) + Send + 'static {
    move |result| {
        enter(|py| {
            if begun() {
                return;
            }
            let value = match result {
                Ok(Event::Answer(response)) => {
                    Response(*response).into_pyobject(py).map(|value| value.into_any().unbind())
                }
                Ok(Event::Question(message)) => {
                    Message(*message).into_pyobject(py).map(|value| value.into_any().unbind())
                }
                Ok(Event::Changed) => Ok(py.None()),
                Err(error) => Ok(exception(py, &error).into_value(py).into_any()),
            };
            let called = value.and_then(|value| callback.call1(py, (value,)));
            if let Err(error) = called {
                error.write_unraisable(py, Some(callback.bind(py)));
            }
        });
    }
}

fn questions(wake: bool, after: Option<&str>) -> Questions {
    match after {
        Some(id) => Questions::After(id.to_owned()),
        None if wake => Questions::After(String::new()),
        None => Questions::Ignored,
    }
}

#[pymethods]
impl QueueStore {
    #[new]
    #[pyo3(signature = (queue_key, db_path = None, *, broker = None, operator_keys = None))]
    fn new(
        #[pyo3(from_py_with = given)] queue_key: &str,
        #[pyo3(from_py_with = given)] db_path: Option<PathBuf>,
        broker: Option<&Bound<'_, Broker>>,
        #[pyo3(from_py_with = given)] operator_keys: Option<PathBuf>,
    ) -> PyResult<Self> {
        let opened = opened(
            db_path,
            broker,
            |path| store::QueueStore::new(queue_key, path),
            |broker| store::QueueStore::over(queue_key, broker),
        );
        opened.map(|store| QueueStore(store.trusting(operator_keys.as_deref())))
    }

    /// The slug of the bottle whose queue it is.
    #[getter]
    fn queue_key(&self) -> &str {
        self.0.queue_key()
    }

    /// The file's path as given, absolute; over a broker its URL.
    #[getter]
    fn db_path(&self) -> String {
        self.0.location()
    }

    fn __repr__(&self) -> String {
        format!("QueueStore({:?}, {:?})", self.0.queue_key(), self.0.location())
    }

    /// Queues it durably and returns the proposal that stands for it.
    ///
    /// That is ``proposal`` itself, or an older pending one with the same bottle, tool and content
    /// (and the same base file and fingerprint): then both ids lead to the one row and its one answer.
    /// Writing the same id and content again changes nothing. One that ``revises`` another is written as that
    /// one is withdrawn, for this requester, with the reason ``revised as <id>``.
    ///
    /// Raises:
    ///     InvalidProposalError: it is of another bottle, its id exists with other content, 200 are pending already, or
    ///         what it revises is for another tool or has the same content.
    ///     NotFoundError, AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: what it revises has ended.
    fn write_proposal(&self, py: Python<'_>, proposal: &Bound<'_, Proposal>) -> PyResult<Proposal> {
        let proposal = &proposal.get().0;
        py.detach(|| self.0.write_proposal(proposal)).to_py().map(Proposal)
    }

    /// The proposal in this queue, archived ones included, or ``None``.
    fn read_proposal(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
    ) -> PyResult<Option<Proposal>> {
        Ok(py.detach(|| self.0.read_proposal(proposal_id)).to_py()?.map(Proposal))
    }

    /// Undecided, unexpired, not withdrawn; oldest first. Each comes with its payload, of up to 1 MiB;
    /// to see what there is, :meth:`pending` takes a fraction of the time and memory.
    fn list_pending_proposals(&self, py: Python<'_>) -> PyResult<Vec<Proposal>> {
        let listed = py.detach(|| self.0.list_pending_proposals()).to_py()?;
        Ok(listed.into_iter().map(Proposal).collect())
    }

    /// The same, and where each stands, without payloads.
    fn pending(&self, py: Python<'_>) -> PyResult<Vec<InboxSummary>> {
        Ok(py.detach(|| self.0.pending()).to_py()?.into_iter().map(InboxSummary).collect())
    }

    /// The proposal and where it stands, for this queue only, or ``None``.
    fn inspect(&self, py: Python<'_>, #[pyo3(from_py_with = given)] proposal_id: &str) -> PyResult<Option<InboxItem>> {
        Ok(py.detach(|| self.0.inspect(proposal_id)).to_py()?.map(InboxItem))
    }

    /// The queue's newest proposals of any state, newest first, archived ones included, without payloads.
    #[pyo3(signature = (*, limit = 100))]
    fn list_items(&self, py: Python<'_>, #[pyo3(from_py_with = given)] limit: u32) -> PyResult<Vec<InboxSummary>> {
        Ok(py.detach(|| self.0.list_items(limit)).to_py()?.into_iter().map(InboxSummary).collect())
    }

    /// Decides as :meth:`Inbox.decide` does, with surface ``api`` unless the response says otherwise.
    ///
    /// Raises: as :meth:`Inbox.decide`.
    fn write_response(&self, py: Python<'_>, response: &Bound<'_, Response>) -> PyResult<Response> {
        let response = &response.get().0;
        py.detach(|| self.0.write_response(response)).to_py().map(Response)
    }

    /// The answer, after archiving too; ``None`` while there is none or its managed file is not yet written.
    fn read_response(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
    ) -> PyResult<Option<Response>> {
        Ok(py.detach(|| self.0.read_response(proposal_id)).to_py()?.map(Response))
    }

    /// Blocks until the answer is in effect and returns it, at once if it already is.
    ///
    /// While it blocks it keeps a lease, so that the operator sees somebody waiting. Woken by the
    /// writer's bell (well below a millisecond), or within a second where nobody rang.
    ///
    /// Args:
    ///     timeout: seconds; ``None`` waits for ever, ``0`` only looks.
    ///     wake_on_question: return, too, once the operator asks back: the first :class:`Message` that is not
    ///         answered, at once if there is one. :meth:`answer` it and wait again, or wait for what comes
    ///         ``after_question``, the id of a message that was seen.
    ///
    /// Raises:
    ///     NotFoundError: no such proposal in this queue.
    ///     ProposalExpiredError, ProposalWithdrawnError: it ended without an answer.
    ///     StaleReviewError: decided, but its managed file had changed and was left alone.
    ///     WaitTimeoutError: undecided after ``timeout``; it stays pending.
    ///     DatabaseUnavailableError: its broker was never reached, for ``timeout`` but 5 s at least and 30 s at most.
    ///         One that was reached and went away is waited for.
    ///     ClosedError: :meth:`close` was called meanwhile.
    ///     Exception: whatever a signal handler raised, within 50 ms (main thread).
    #[pyo3(signature = (proposal_id, timeout = None, *, wake_on_question = false, after_question = None))]
    fn wait_for_response<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
        #[pyo3(from_py_with = given)] timeout: Option<f64>,
        wake_on_question: bool,
        #[pyo3(from_py_with = given)] after_question: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeout = duration(py, "timeout", timeout)?;
        let questions = questions(wake_on_question, after_question);
        let word = blocking(py, |interrupted| self.0.wait_for_word(proposal_id, timeout, questions, interrupted))?;
        match word {
            Word::Answer(response) => Response(*response).into_bound_py_any(py),
            Word::Question(message) => Message(*message).into_bound_py_any(py),
        }
    }

    /// Starts the same wait without blocking; ``callback`` is called once with what it would return or raise.
    ///
    /// The call comes from the process's one watcher thread, or from this one if the answer is
    /// there already; it must be short. A blocking wait inside it ends like any other, but all other waits of
    /// the process stand still meanwhile, and over a broker it needs a timeout. Once the interpreter ends
    /// (``atexit``) nobody is called, and a call that runs is given a second; before Python 3.14 one that takes
    /// longer aborts the process.
    /// ``AsyncQueueStore`` builds on this.
    #[pyo3(signature = (proposal_id, callback, timeout = None, *, wake_on_question = false, after_question = None))]
    fn begin_wait(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
        callback: Py<PyAny>,
        #[pyo3(from_py_with = given)] timeout: Option<f64>,
        wake_on_question: bool,
        #[pyo3(from_py_with = given)] after_question: Option<&str>,
    ) -> PyResult<Wait> {
        let timeout = duration(py, "timeout", timeout)?;
        let questions = questions(wake_on_question, after_question);
        let begun = py.detach(|| self.0.begin_wait_for_word(proposal_id, timeout, questions, deliver(callback)));
        begun.to_py().map(Wait)
    }

    /// Answers what the operator asked back about a proposal; it stays pending, and the operator sees the answer.
    ///
    /// There is one answer to all that was asked so far, whoever of several requesters gives it.
    ///
    /// Args:
    ///     text: up to 16 KiB, not blank.
    ///     message_id: a UUID for it: the same answer under the same id again changes nothing. ``None`` makes one.
    ///
    /// Raises:
    ///     NotFoundError: no such proposal in this queue.
    ///     AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: it has ended.
    ///     InvalidInputError: nothing was asked, or it is answered already; or the text breaks its rule.
    #[pyo3(signature = (proposal_id, text, *, message_id = None))]
    fn answer(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
        #[pyo3(from_py_with = given)] text: &str,
        #[pyo3(from_py_with = given)] message_id: Option<&str>,
    ) -> PyResult<Message> {
        let answered = py.detach(|| match message_id {
            Some(id) => self.0.answer_as(id, proposal_id, text),
            None => self.0.answer(proposal_id, text),
        });
        answered.to_py().map(Message)
    }

    /// Takes it back; its waiters end with ``ProposalWithdrawnError``. One of several identical
    /// requests leaves the row to the others. Withdrawing twice is no error.
    ///
    /// Raises:
    ///     NotFoundError, AlreadyDecidedError, ProposalExpiredError: it is not there to withdraw.
    #[pyo3(signature = (proposal_id, reason = "withdrawn by the requester"))]
    fn withdraw_proposal(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given)] proposal_id: &str,
        #[pyo3(from_py_with = given)] reason: &str,
    ) -> PyResult<()> {
        py.detach(|| self.0.withdraw_proposal(proposal_id, reason)).to_py()
    }

    /// Puts it away (a pending one is withdrawn first). Twice is no error.
    ///
    /// Raises:
    ///     NotFoundError: no such proposal in this queue.
    fn archive_proposal(&self, py: Python<'_>, #[pyo3(from_py_with = given)] proposal_id: &str) -> PyResult<()> {
        py.detach(|| self.0.archive_proposal(proposal_id)).to_py()
    }

    /// Ends this store's waits with ``ClosedError`` and releases it. Idempotent.
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
