//! The value types: frozen, compared and hashed by content, pickled as their fields.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bot_bottle_store as store;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::convert::given;

/// A field as Python reads it.
trait Read<'a> {
    type As;
    fn read(&'a self) -> Self::As;
}

impl<'a> Read<'a> for String {
    type As = &'a str;
    fn read(&'a self) -> &'a str {
        self
    }
}

impl<'a> Read<'_> for &'a str {
    type As = &'a str;
    fn read(&self) -> &'a str {
        self
    }
}

impl<'a> Read<'_> for Option<&'a str> {
    type As = Option<&'a str>;
    fn read(&self) -> Option<&'a str> {
        *self
    }
}

impl<'a> Read<'a> for Option<String> {
    type As = Option<&'a str>;
    fn read(&'a self) -> Option<&'a str> {
        self.as_deref()
    }
}

impl<'a, T: store::Vocabulary> Read<'a> for store::Stored<T> {
    type As = &'a str;
    fn read(&'a self) -> &'a str {
        self.as_str()
    }
}

impl<'a, T: store::Vocabulary + 'a> Read<'a> for Option<store::Stored<T>> {
    type As = Option<&'a str>;
    fn read(&'a self) -> Option<&'a str> {
        self.as_ref().map(store::Stored::as_str)
    }
}

impl Read<'_> for store::Role {
    type As = &'static str;
    fn read(&self) -> &'static str {
        self.name()
    }
}

/// Numbers and truths are read as they are.
macro_rules! read_as_is {
    ($($kind:ty),*) => { $(impl Read<'_> for $kind {
        type As = $kind;
        fn read(&self) -> $kind {
            *self
        }
    })* };
}
read_as_is!(i64, Option<i64>, bool, usize);

/// Declares a class over one of the core's values: its wrapper and the getters Python reads, of the value or its view;
/// with `compared by`, equality and hash of what that gives.
macro_rules! value {
    ($(#[$doc:meta])* $name:ident, $inner:ty { $($fields:tt)* } $($rest:tt)*) => {
        value! { $(#[$doc])* $name, $inner, std::convert::identity { $($fields)* } $($rest)* }
    };
    ($(#[$doc:meta])* $name:ident, $inner:ty, $view:path { $($(#[$of:meta])* $field:ident: $kind:ty),* $(,)? }
     $(compared by $by:path)? { $($rest:tt)* }) => {
        $(#[$doc])*
        #[pyclass(frozen, module = "bot_bottle")]
        #[derive(Clone)]
        pub struct $name(pub $inner);

        #[pymethods]
        impl $name {
            $($(#[$of])*
            #[getter]
            fn $field(&self) -> $kind {
                $view(&self.0).$field.read()
            })*

            /// All fields by name, JSON-ready.
            fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                dict(py, &self.0)
            }

            fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (&'static str, String))> {
                let fields = serde_json::to_string(&self.0).map_err(|error| PyValueError::new_err(error.to_string()))?;
                Ok((py.import("bot_bottle._native")?.getattr("_rebuild")?, (stringify!($name), fields)))
            }

            $(fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
                other.cast::<Self>().is_ok_and(|other| $by(&other.get().0) == $by(&self.0))
            }

            fn __hash__(&self) -> u64 {
                hash_of($by(&self.0))
            })?

            $($rest)*
        }
    };
}

mod queue;
mod records;
mod review;

pub use queue::*;
pub use records::*;
pub use review::*;

fn hash_of(content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// A pickled value again; what ``__reduce__`` names.
#[pyfunction]
pub fn _rebuild<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = given)] class: &str,
    #[pyo3(from_py_with = given)] fields: &str,
) -> PyResult<Bound<'py, PyAny>> {
    match class {
        "Proposal" => from_fields(fields).map(Proposal)?.into_bound_py_any(py),
        "Response" => from_fields(fields).map(Response)?.into_bound_py_any(py),
        "AuditEntry" => from_fields(fields).map(AuditEntry)?.into_bound_py_any(py),
        "AuditReport" => from_fields(fields).map(AuditReport)?.into_bound_py_any(py),
        "ProposalSummary" => from_fields(fields).map(ProposalSummary)?.into_bound_py_any(py),
        "ResponseSummary" => from_fields(fields).map(ResponseSummary)?.into_bound_py_any(py),
        "Message" => from_fields(fields).map(Message)?.into_bound_py_any(py),
        "Revised" => from_fields(fields).map(Revised)?.into_bound_py_any(py),
        "InboxItem" => from_fields(fields).map(InboxItem)?.into_bound_py_any(py),
        "InboxSummary" => from_fields(fields).map(InboxSummary)?.into_bound_py_any(py),
        "Review" => from_fields(fields).map(Review)?.into_bound_py_any(py),
        "Hunk" => from_fields(fields).map(Hunk)?.into_bound_py_any(py),
        "Part" => from_fields(fields).map(Part)?.into_bound_py_any(py),
        "Odd" => from_fields(fields).map(Odd)?.into_bound_py_any(py),
        "Change" => from_fields(fields).map(Change)?.into_bound_py_any(py),
        "Grant" => from_fields(fields).map(Grant)?.into_bound_py_any(py),
        "Bottle" => from_fields(fields).map(Bottle)?.into_bound_py_any(py),
        "TrustedKey" => from_fields(fields).map(TrustedKey)?.into_bound_py_any(py),
        _ => Err(PyValueError::new_err(format!("no value of bot_bottle is a {class:?}"))),
    }
}

fn from_fields<T: serde::de::DeserializeOwned>(fields: &str) -> PyResult<T> {
    serde_json::from_str(fields).map_err(|error| PyValueError::new_err(error.to_string()))
}
