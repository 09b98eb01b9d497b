//! `QueueStore` and `Wait`.

use std::path::PathBuf;

use bot_bottle_store as store;
use pyo3::prelude::*;
use store::Event;

use crate::broker::{Broker, opened};
use crate::convert::duration;
use crate::error::{ToPy, exception, interrupted};
use crate::exit::{begun, enter};
use crate::values::{InboxItem, Proposal, Response};

#[pyclass(frozen, module = "bot_bottle")]
pub struct QueueStore(store::QueueStore);

#[pyclass(frozen, module = "bot_bottle")]
pub struct Wait(pub store::WaitHandle);

#[pymethods]
impl Wait {
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

#[pymethods]
impl QueueStore {
    #[new]
    #[pyo3(signature = (queue_key, db_path = None, *, broker = None, operator_keys = None))]
    fn new(
        queue_key: &str,
        db_path: Option<PathBuf>,
        broker: Option<&Bound<'_, Broker>>,
        operator_keys: Option<PathBuf>,
    ) -> PyResult<Self> {
        let opened = opened(
            db_path,
            broker,
            |path| store::QueueStore::new(queue_key, path),
            |broker| store::QueueStore::over(queue_key, broker),
        );
        opened.map(|store| QueueStore(store.trusting(operator_keys.as_deref())))
    }

    #[getter]
    fn queue_key(&self) -> &str {
        self.0.queue_key()
    }

    #[getter]
    fn db_path(&self) -> String {
        self.0.location()
    }

    fn __repr__(&self) -> String {
        format!("QueueStore({:?}, {:?})", self.0.queue_key(), self.0.location())
    }

    fn write_proposal(&self, py: Python<'_>, proposal: &Bound<'_, Proposal>) -> PyResult<Proposal> {
        let proposal = &proposal.get().0;
        py.detach(|| self.0.write_proposal(proposal)).to_py().map(Proposal)
    }

    fn read_proposal(&self, py: Python<'_>, proposal_id: &str) -> PyResult<Option<Proposal>> {
        Ok(py.detach(|| self.0.read_proposal(proposal_id)).to_py()?.map(Proposal))
    }

    fn list_pending_proposals(&self, py: Python<'_>) -> PyResult<Vec<Proposal>> {
        let listed = py.detach(|| self.0.list_pending_proposals()).to_py()?;
        Ok(listed.into_iter().map(Proposal).collect())
    }

    fn inspect(&self, py: Python<'_>, proposal_id: &str) -> PyResult<Option<InboxItem>> {
        Ok(py.detach(|| self.0.inspect(proposal_id)).to_py()?.map(InboxItem))
    }

    #[pyo3(signature = (*, limit = 100))]
    fn list_items(&self, py: Python<'_>, limit: u32) -> PyResult<Vec<InboxItem>> {
        Ok(py.detach(|| self.0.list_items(limit)).to_py()?.into_iter().map(InboxItem).collect())
    }

    fn write_response(&self, py: Python<'_>, response: &Bound<'_, Response>) -> PyResult<Response> {
        let response = &response.get().0;
        py.detach(|| self.0.write_response(response)).to_py().map(Response)
    }

    fn read_response(&self, py: Python<'_>, proposal_id: &str) -> PyResult<Option<Response>> {
        Ok(py.detach(|| self.0.read_response(proposal_id)).to_py()?.map(Response))
    }

    #[pyo3(signature = (proposal_id, timeout = None))]
    fn wait_for_response(&self, py: Python<'_>, proposal_id: &str, timeout: Option<f64>) -> PyResult<Response> {
        let timeout = duration(py, "timeout", timeout)?;
        blocking(py, |interrupted| self.0.wait_for_response(proposal_id, timeout, interrupted)).map(Response)
    }

    #[pyo3(signature = (proposal_id, callback, timeout = None))]
    fn begin_wait(
        &self,
        py: Python<'_>,
        proposal_id: &str,
        callback: Py<PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Wait> {
        let timeout = duration(py, "timeout", timeout)?;
        py.detach(|| self.0.begin_wait(proposal_id, timeout, deliver(callback))).to_py().map(Wait)
    }

    #[pyo3(signature = (proposal_id, reason = "withdrawn by the requester"))]
    fn withdraw_proposal(&self, py: Python<'_>, proposal_id: &str, reason: &str) -> PyResult<()> {
        py.detach(|| self.0.withdraw_proposal(proposal_id, reason)).to_py()
    }

    fn archive_proposal(&self, py: Python<'_>, proposal_id: &str) -> PyResult<()> {
        py.detach(|| self.0.archive_proposal(proposal_id)).to_py()
    }

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
