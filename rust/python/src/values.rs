//! The value types: frozen, compared and hashed by content, pickled as their fields.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bot_bottle_store as store;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::convert::{Moment, Text, dict, duration};
use crate::error::ToPy;

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

/// Declares a class over one of the core's values: its wrapper and the getters Python reads, of the value or its view.
macro_rules! value {
    ($name:ident, $inner:ty { $($fields:tt)* } $rest:tt) => {
        value! { $name, $inner, std::convert::identity { $($fields)* } $rest }
    };
    ($name:ident, $inner:ty, $view:path { $($field:ident: $kind:ty),* $(,)? } { $($rest:tt)* }) => {
        #[pyclass(frozen, module = "bot_bottle")]
        #[derive(Clone)]
        pub struct $name(pub $inner);

        #[pymethods]
        impl $name {
            $(#[getter]
            fn $field(&self) -> $kind {
                $view(&self.0).$field.read()
            })*

            fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                dict(py, &self.0)
            }

            fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (&'static str, String))> {
                let fields = serde_json::to_string(&self.0).map_err(|error| PyValueError::new_err(error.to_string()))?;
                Ok((py.import("bot_bottle._native")?.getattr("_rebuild")?, (stringify!($name), fields)))
            }

            $($rest)*
        }
    };
}

fn hash_of(content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// What a pickle calls: the value of this class with these fields, which `__reduce__` wrote.
#[pyfunction]
pub fn _rebuild<'py>(py: Python<'py>, class: &str, fields: &str) -> PyResult<Bound<'py, PyAny>> {
    match class {
        "Proposal" => from_fields(fields).map(Proposal)?.into_bound_py_any(py),
        "Response" => from_fields(fields).map(Response)?.into_bound_py_any(py),
        "AuditEntry" => from_fields(fields).map(AuditEntry)?.into_bound_py_any(py),
        "AuditReport" => from_fields(fields).map(AuditReport)?.into_bound_py_any(py),
        "InboxItem" => from_fields(fields).map(InboxItem)?.into_bound_py_any(py),
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

value!(Proposal, store::Proposal {
    id: &str, bottle_slug: &str, tool: &str, proposed_file: &str, justification: &str, arrival_timestamp: &str,
    current_file_hash: Option<&str>, expires_at: Option<&str>, fingerprint: Option<&str>, payload_sha256: &str,
} {
    #[new]
    #[pyo3(signature = (id, bottle_slug, tool, proposed_file, justification, arrival_timestamp, current_file_hash = None,
                        *, expires_at = None, fingerprint = None))]
    #[allow(clippy::too_many_arguments)] // they are the type's fields, in its order
    fn py_new(
        id: &str,
        bottle_slug: &str,
        tool: &str,
        proposed_file: Text,
        justification: &str,
        arrival_timestamp: Moment,
        current_file_hash: Option<&str>,
        expires_at: Option<Moment>,
        fingerprint: Option<&str>,
    ) -> PyResult<Self> {
        store::Proposal::checked(
            id, bottle_slug, tool, proposed_file.bytes(), justification, arrival_timestamp.as_str(), current_file_hash,
            expires_at.as_ref().map(Moment::as_str), fingerprint,
        )
        .to_py()
        .map(Proposal)
    }

    #[staticmethod]
    #[pyo3(signature = (bottle_slug, tool, proposed_file, justification = "", current_file_hash = None,
                        *, expires_in = None, fingerprint = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        bottle_slug: &str,
        tool: &str,
        proposed_file: Text,
        justification: &str,
        current_file_hash: Option<&str>,
        expires_in: Option<f64>,
        fingerprint: Option<&str>,
    ) -> PyResult<Self> {
        let expires_in = duration(py, "expires_in", expires_in)?;
        store::Proposal::new(
            bottle_slug, tool, proposed_file.bytes(), justification, current_file_hash, expires_in, fingerprint,
        )
        .to_py()
        .map(Proposal)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!(
            "Proposal(id={:?}, bottle_slug={:?}, tool={:?}, payload={} bytes, sha256={}…)",
            it.id, it.bottle_slug, it.tool, it.proposed_file.len(), &it.payload_sha256[..12],
        )
    }

});

value!(Response, store::Response {
    proposal_id: &str, status: &str, notes: &str, final_file: Option<&str>, payload_sha256: Option<&str>, review_sha256: Option<&str>,
    final_sha256: Option<&str>, decided_by: Option<&str>, surface: Option<&str>, decided_at: Option<&str>, diff: Option<&str>, applied_at: Option<&str>,
} {
    #[getter]
    fn signed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &self.0.signed)
    }

    #[new]
    #[pyo3(signature = (proposal_id, status, notes = "", final_file = None, *, payload_sha256 = None, decided_by = None,
                        surface = None, decided_at = None, final_sha256 = None, diff = None, applied_at = None,
                        review_sha256 = None))]
    #[allow(clippy::too_many_arguments)] // they are the type's fields, in its order
    fn py_new(
        proposal_id: &str,
        status: &str,
        notes: &str,
        final_file: Option<Text>,
        payload_sha256: Option<String>,
        decided_by: Option<String>,
        surface: Option<String>,
        decided_at: Option<Moment>,
        final_sha256: Option<String>,
        diff: Option<String>,
        applied_at: Option<Moment>,
        review_sha256: Option<String>,
    ) -> PyResult<Self> {
        let final_file = final_file.map(Text::into_bytes);
        let mut response = store::Response::checked(proposal_id, status, notes, final_file.as_deref()).to_py()?;
        response.payload_sha256 = payload_sha256;
        response.review_sha256 = review_sha256;
        response.decided_by = decided_by;
        response.surface = surface;
        response.decided_at = decided_at.map(Moment::into_string);
        response.final_sha256 = final_sha256;
        response.diff = diff;
        response.applied_at = applied_at.map(Moment::into_string);
        response.check_rest().to_py().map(Response)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0.answer() == self.0.answer())
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.answer())
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        let by = it.decided_by.as_deref().unwrap_or("?");
        format!("Response(proposal_id={:?}, status={:?}, decided_by={by:?})", it.proposal_id, it.status)
    }

});

value!(AuditEntry, store::AuditEntry, store::AuditEntry::fields {
    timestamp: &str, bottle_slug: &str, component: &str, operator_action: &str, operator_notes: &str,
    justification: &str, diff: &str, decided_by: &str, surface: &str, proposal_id: Option<&str>, payload_sha256: Option<&str>,
    final_sha256: Option<&str>, seq: Option<i64>, prev_hash: Option<&str>, entry_hash: Option<&str>,
} {
    #[new]
    #[pyo3(signature = (timestamp, bottle_slug, component, operator_action, operator_notes = "", justification = "",
                        diff = "", *, decided_by = "", surface = "api", proposal_id = None, payload_sha256 = None,
                        final_sha256 = None, seq = None, prev_hash = None, entry_hash = None))]
    #[allow(clippy::too_many_arguments)] // they are the type's fields, in its order
    fn py_new(
        timestamp: Moment,
        bottle_slug: &str,
        component: &str,
        operator_action: &str,
        operator_notes: &str,
        justification: &str,
        diff: &str,
        decided_by: &str,
        surface: &str,
        proposal_id: Option<&str>,
        payload_sha256: Option<&str>,
        final_sha256: Option<&str>,
        seq: Option<i64>,
        prev_hash: Option<&str>,
        entry_hash: Option<&str>,
    ) -> PyResult<Self> {
        let entry = store::AuditEntry::from(store::AuditFields {
            timestamp: timestamp.as_str(), bottle_slug, component, operator_action, operator_notes, justification, diff,
            decided_by, surface, proposal_id, payload_sha256, final_sha256, seq, prev_hash, entry_hash,
        });
        entry.checked().to_py().map(AuditEntry)
    }

    #[staticmethod]
    #[pyo3(signature = (bottle_slug, component, operator_action, operator_notes = "", justification = "", diff = "",
                        *, decided_by = "", surface = "api", proposal_id = None, payload_sha256 = None,
                        final_sha256 = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        bottle_slug: &str,
        component: &str,
        operator_action: &str,
        operator_notes: &str,
        justification: &str,
        diff: &str,
        decided_by: &str,
        surface: &str,
        proposal_id: Option<&str>,
        payload_sha256: Option<&str>,
        final_sha256: Option<&str>,
    ) -> PyResult<Self> {
        let fields = store::AuditFields {
            bottle_slug, component, operator_action, operator_notes, justification, diff, decided_by, surface,
            proposal_id, payload_sha256, final_sha256, ..store::AuditFields::default()
        };
        store::AuditEntry::of_now(fields).to_py().map(AuditEntry)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0.content() == self.0.content())
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.content())
    }

    fn __repr__(&self) -> String {
        let it = self.0.fields();
        format!(
            "AuditEntry(seq={}, timestamp={:?}, bottle_slug={:?}, component={:?}, operator_action={:?}, decided_by={:?})",
            it.seq.map_or_else(|| "None".to_owned(), |seq| seq.to_string()),
            it.timestamp, it.bottle_slug, it.component, it.operator_action, it.decided_by,
        )
    }

});

value!(AuditReport, store::AuditReport {
    entries: i64, first_seq: Option<i64>, last_seq: Option<i64>, head: &str,
} {
    fn __repr__(&self) -> String {
        format!("AuditReport(entries={}, head={}…)", self.0.entries, &self.0.head[..12])
    }
});

value!(InboxItem, store::InboxItem {
    queue_key: &str, state: &str, waiting: bool, waiting_until: Option<&str>, requests: i64, withdrawn_at: Option<&str>,
    withdrawn_reason: Option<&str>, archived_at: Option<&str>, managed_file: Option<&str>, apply_state: Option<&str>, apply_error: Option<&str>, base_sha256: Option<&str>, damaged: Option<&str>,
} {
    #[getter]
    fn proposal(&self) -> Proposal {
        Proposal(self.0.proposal.clone())
    }

    #[getter]
    fn response(&self) -> Option<Response> {
        self.0.response.clone().map(Response)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("InboxItem(id={:?}, bottle_slug={:?}, tool={:?}, state={:?})", it.proposal.id, it.proposal.bottle_slug, it.proposal.tool, it.state)
    }
});

value!(Part, store::Part { kind: &str, text: &str } {
    #[getter]
    fn changed(&self) -> Vec<(usize, usize)> {
        self.0.changed.clone()
    }

    fn __repr__(&self) -> String {
        format!("Part(kind={:?}, text={} bytes)", self.0.kind, self.0.text.len())
    }
});

value!(Hunk, store::Hunk { before_line: usize, before_lines: usize, after_line: usize, after_lines: usize } {
    #[getter]
    fn parts(&self) -> Vec<Part> {
        self.0.parts.iter().cloned().map(Part).collect()
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Hunk(-{},{} +{},{})", it.before_line, it.before_lines, it.after_line, it.after_lines)
    }
});

value!(Odd, store::Odd { kind: &str, message: &str } {
    fn __repr__(&self) -> String {
        format!("Odd(kind={:?})", self.0.kind)
    }
});

value!(Review, store::Review {
    current_file: Option<&str>, current_sha256: Option<&str>, current_problem: Option<&str>, review_sha256: &str,
} {
    #[getter]
    fn item(&self) -> InboxItem {
        InboxItem(self.0.item.clone())
    }

    #[getter]
    fn hunks(&self) -> Option<Vec<Hunk>> {
        self.0.hunks.clone().map(|hunks| hunks.into_iter().map(Hunk).collect())
    }

    #[getter]
    fn odd(&self) -> Vec<Odd> {
        self.0.odd.iter().cloned().map(Odd).collect()
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Review(id={:?}, state={:?}, review_sha256={}…)", it.item.proposal.id, it.item.state, &it.review_sha256[..12])
    }
});

value!(Change, store::Change {
    seq: i64, kind: &str, proposal_id: &str, bottle_slug: &str, tool: &str, at: &str,
} {
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Change(seq={}, kind={:?}, proposal_id={:?}, bottle_slug={:?}, tool={:?})", it.seq, it.kind, it.proposal_id, it.bottle_slug, it.tool)
    }

});

value!(Grant, store::Grant {
    id: &str, bottle_slug: &str, tool: &str, fingerprint: &str, scope: &str, uses_left: Option<i64>,
    expires_at: Option<&str>, proposal_id: Option<&str>, created_at: &str, created_by: &str, last_used_at: Option<&str>,
    revoked_at: Option<&str>, revoked_by: Option<&str>, live: bool, uses: Option<i64>, key_id: &str, signature: &str,
    damaged: Option<&str>,
} {
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Grant(id={:?}, bottle_slug={:?}, tool={:?}, scope={:?}, live={})", it.id, it.bottle_slug, it.tool, it.scope, it.live)
    }
});

value!(Bottle, store::Bottle {
    slug: &str, backend: &str, started_at: &str, stopped_at: Option<&str>, pending: i64, damaged: Option<&str>,
} {
    #[getter]
    fn files(&self) -> BTreeMap<String, String> {
        self.0.files.clone()
    }

    fn __repr__(&self) -> String {
        format!("Bottle(slug={:?}, backend={:?}, running={})", self.0.slug, self.0.backend, self.0.stopped_at.is_none())
    }
});

value!(TrustedKey, store::TrustedKey {
    id: &str, role: &str, name: &str, public_key: &str, added_at: &str, rotated_at: Option<&str>, revoked_at: Option<&str>,
} {
    #[getter]
    fn current(&self) -> bool {
        self.0.is_current()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("TrustedKey(id={:?}, role={:?}, name={:?})", it.id, it.role.name(), it.name)
    }
});
