//! `Routes`: a `routes.yaml` as the egress proxy reads it.

use bot_bottle_routes as routes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::{Text, given, json};

/// A ``routes.yaml`` as the egress proxy reads it; ``bot_bottle.documents.routes`` is the form to use.
///
/// Raises:
///     InvalidInputError: it is not valid; the message names the line, which is also the attribute ``line``.
#[pyclass(frozen, module = "bot_bottle._native")]
pub struct Routes(routes::Routes);

#[pymethods]
impl Routes {
    #[new]
    fn new(py: Python<'_>, text: Text) -> PyResult<Self> {
        // What is no text has no line that could be named; the replacement is not printable either.
        let text = String::from_utf8(text.into_bytes()).unwrap_or_else(|_| "\u{ffff}".to_owned());
        match py.detach(|| routes::load(&text)) {
            Ok(found) => Ok(Routes(found)),
            Err(error) => {
                let line = PyDict::new(py);
                line.set_item("line", error.line)?;
                let class = py.import("bot_bottle.errors")?.getattr("InvalidInputError")?;
                Err(PyErr::from_value(class.call((error.to_string(),), Some(&line))?))
            }
        }
    }

    /// Each route in the file's own shape, defaults spelled out, and the line it begins on.
    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyAny>, usize)>> {
        self.0.routes().iter().map(|route| Ok((json(py, &route.to_json())?, route.line))).collect()
    }

    /// The place in the list of the route for this host, the most specific one; ``None``: denied.
    fn find(&self, host: Text) -> Option<usize> {
        std::str::from_utf8(host.bytes()).ok().and_then(|host| self.0.position(host))
    }

    /// Whether the route at this place lets the request through; ``path`` as sent, without query.
    fn allows(
        &self,
        #[pyo3(from_py_with = given)] at: usize,
        method: Text,
        path: Text,
        headers: Vec<(Text, Text)>,
    ) -> bool {
        // What is no UTF-8 is in no rule, so its place may be taken by what is in none either.
        let [method, path] = [method, path].map(|text| String::from_utf8_lossy(text.bytes()).into_owned());
        let names: Vec<_> = headers.iter().map(|(name, _)| String::from_utf8_lossy(name.bytes())).collect();
        let headers: Vec<_> =
            names.iter().zip(&headers).map(|(name, (_, value))| (name.as_ref(), value.bytes())).collect();
        self.0.routes().get(at).is_some_and(|route| route.allows(&method, &path, &headers))
    }
}

/// ``host`` as names are compared: lower case, no final dot, IPv6 without brackets and shortened.
///
/// Raises:
///     ValueError: it is neither an ASCII host name nor an IP address.
#[pyfunction]
pub fn canonical_host(#[pyo3(from_py_with = given)] host: &str) -> PyResult<String> {
    routes::canonical_host(host).map_err(PyValueError::new_err)
}
