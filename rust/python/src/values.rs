//! The value types: frozen, compared and hashed by content, pickled as their fields.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bot_bottle_store as store;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::convert::{Moment, Text, dict, duration, given};
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
    ($(#[$doc:meta])* $name:ident, $inner:ty { $($fields:tt)* } $rest:tt) => {
        value! { $(#[$doc])* $name, $inner, std::convert::identity { $($fields)* } $rest }
    };
    ($(#[$doc:meta])* $name:ident, $inner:ty, $view:path { $($(#[$of:meta])* $field:ident: $kind:ty),* $(,)? }
     { $($rest:tt)* }) => {
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

            $($rest)*
        }
    };
}

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

value!(
/// What a sidecar asks of the operator; its content never changes once written.
///
/// Frozen, comparable by content, hashable, picklable; ``repr`` shows no payload.
///
/// Args:
///     proposed_file: the whole payload, text; ``bytes`` must be UTF-8. 1 byte to 1 MiB, no NUL.
///     justification: the agent's words, up to 16 KiB.
///     current_file_hash: SHA-256 of the managed file the payload was written against; ``None`` or ``""``: unknown.
///     expires_at: from then on undecided means expired; ``None``: never.
///     fingerprint: what a grant made from its approval is about (see :class:`GrantStore`), at most 512 bytes.
///     revises: the id of a pending proposal of the same bottle and tool in whose place this one is put: that one is
///         withdrawn as this one is written.
///
/// Raises:
///     InvalidProposalError: a field breaks its rule; the message names it (for bytes, the offset).
Proposal, store::Proposal {
    /// UUIDv7.
    id: &str,
    /// The bottle that asks.
    bottle_slug: &str,
    /// What it asks for, such as ``egress-allow``.
    tool: &str,
    /// The whole payload.
    proposed_file: &str,
    /// The agent's own words.
    justification: &str,
    /// When it was made; over a broker, when the host received it.
    arrival_timestamp: &str,
    /// SHA-256 of the managed file that the payload was written against, if that is known.
    current_file_hash: Option<&str>,
    /// From then on undecided means expired; ``None``: never.
    expires_at: Option<&str>,
    /// What a grant made from its approval is about; see :class:`GrantStore`.
    fingerprint: Option<&str>,
    /// The id of the proposal in whose place it was put, if it was.
    revises: Option<&str>,
    /// SHA-256 of ``proposed_file``: what a decision names.
    payload_sha256: &str,
} {
    /// How many bytes of UTF-8 ``proposed_file`` has.
    #[getter]
    fn payload_bytes(&self) -> usize {
        self.0.proposed_file.len()
    }

    #[new]
    #[pyo3(signature = (id, bottle_slug, tool, proposed_file, justification, arrival_timestamp, current_file_hash = None,
                        *, expires_at = None, fingerprint = None, revises = None))]
    #[allow(clippy::too_many_arguments)] // they are the type's fields, in its order
    fn py_new(
        #[pyo3(from_py_with = given)] id: &str,
        #[pyo3(from_py_with = given)] bottle_slug: &str,
        #[pyo3(from_py_with = given)] tool: &str,
        proposed_file: Text,
        #[pyo3(from_py_with = given)] justification: &str,
        arrival_timestamp: Moment,
        #[pyo3(from_py_with = given)] current_file_hash: Option<&str>,
        expires_at: Option<Moment>,
        #[pyo3(from_py_with = given)] fingerprint: Option<&str>,
        #[pyo3(from_py_with = given)] revises: Option<&str>,
    ) -> PyResult<Self> {
        store::Proposal::checked(
            id, bottle_slug, tool, proposed_file.bytes(), justification, arrival_timestamp.as_str(), current_file_hash,
            expires_at.as_ref().map(Moment::as_str), fingerprint,
        )
        .and_then(|proposal| proposal.revising(revises))
        .to_py()
        .map(Proposal)
    }

    /// A proposal with a new id that arrives now and, with ``expires_in`` (seconds), expires then.
    ///
    /// Raises:
    ///     InvalidProposalError: as the constructor.
    #[staticmethod]
    #[pyo3(signature = (bottle_slug, tool, proposed_file, justification = "", current_file_hash = None,
                        *, expires_in = None, fingerprint = None, revises = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = given)] bottle_slug: &str,
        #[pyo3(from_py_with = given)] tool: &str,
        proposed_file: Text,
        #[pyo3(from_py_with = given)] justification: &str,
        #[pyo3(from_py_with = given)] current_file_hash: Option<&str>,
        #[pyo3(from_py_with = given)] expires_in: Option<f64>,
        #[pyo3(from_py_with = given)] fingerprint: Option<&str>,
        #[pyo3(from_py_with = given)] revises: Option<&str>,
    ) -> PyResult<Self> {
        let expires_in = duration(py, "expires_in", expires_in)?;
        store::Proposal::new(
            bottle_slug, tool, proposed_file.bytes(), justification, current_file_hash, expires_in, fingerprint,
        )
        .and_then(|proposal| proposal.revising(revises))
        .to_py()
        .map(Proposal)
    }

    /// What a grant with ``kind:`` would be about, where the fingerprint names a kind; else ``None``.
    #[getter]
    fn kind(&self) -> Option<&str> {
        self.0.kind()
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

value!(
/// The operator's answer. Equality and hash cover ``proposal_id, status, notes, final_file``: the
/// answer itself; who gave it and when is carried beside it and filled in by the store.
///
/// Args:
///     status: ``approved``, ``modified`` or ``rejected``.
///     notes: the operator's words, up to 16 KiB.
///     final_file: for ``modified`` the text that runs instead; otherwise ``None``.
///     payload_sha256: hash of the payload that was reviewed.
///     review_sha256: hash of all that was reviewed, :attr:`Review.review_sha256`.
///
/// Raises:
///     InvalidProposalError: unknown status, over-size notes, ``final_file`` missing or out of place.
Response, store::Response {
    /// The proposal that it answers.
    proposal_id: &str,
    /// ``approved``, ``modified`` or ``rejected``.
    status: &str,
    /// The operator's words.
    notes: &str,
    /// For ``modified`` the text that runs instead; otherwise ``None``.
    final_file: Option<&str>,
    /// Hash of the payload that was reviewed.
    payload_sha256: Option<&str>,
    /// The hash of what was reviewed, payload and all.
    review_sha256: Option<&str>,
    /// Hash of the payload that runs; ``None`` for a rejection.
    final_sha256: Option<&str>,
    /// Who decided.
    decided_by: Option<&str>,
    /// Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``.
    surface: Option<&str>,
    /// When it was decided.
    decided_at: Option<&str>,
    /// When the managed file was in effect; ``None`` where the tool has no managed file.
    applied_at: Option<&str>,
} {
    /// For ``modified``: unified diff from the proposed to the final file.
    #[getter]
    fn diff(&self, py: Python<'_>) -> Option<&str> {
        let diff = self.0.diff.as_ref()?;
        Some(py.detach(|| diff.text()))
    }

    /// How many bytes of UTF-8 ``final_file`` has, if there is one.
    #[getter]
    fn final_bytes(&self) -> Option<usize> {
        self.0.final_file.as_ref().map(String::len)
    }

    /// ``bottle_slug``, ``tool``, ``scope``, ``key_id`` and ``signature`` of the statement; with the other fields
    /// all that a verifier needs (docs/statements.md).
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
        #[pyo3(from_py_with = given)] proposal_id: &str,
        #[pyo3(from_py_with = given)] status: &str,
        #[pyo3(from_py_with = given)] notes: &str,
        final_file: Option<Text>,
        #[pyo3(from_py_with = given)] payload_sha256: Option<String>,
        #[pyo3(from_py_with = given)] decided_by: Option<String>,
        #[pyo3(from_py_with = given)] surface: Option<String>,
        decided_at: Option<Moment>,
        #[pyo3(from_py_with = given)] final_sha256: Option<String>,
        #[pyo3(from_py_with = given)] diff: Option<String>,
        applied_at: Option<Moment>,
        #[pyo3(from_py_with = given)] review_sha256: Option<String>,
    ) -> PyResult<Self> {
        let final_file = final_file.map(Text::into_bytes);
        let mut response = store::Response::checked(proposal_id, status, notes, final_file.as_deref()).to_py()?;
        response.diff = diff.map(Into::into);
        let head = &mut response.head;
        head.payload_sha256 = payload_sha256;
        head.review_sha256 = review_sha256;
        head.decided_by = decided_by;
        head.surface = surface;
        head.decided_at = decided_at.map(Moment::into_string);
        head.final_sha256 = final_sha256;
        head.applied_at = applied_at.map(Moment::into_string);
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

value!(
/// One line of the audit log. Equality and hash cover what was said, not ``seq`` and the chain's
/// hashes, which the log fills in.
///
/// ``component`` follows the slug's rule (for a decision it is the tool).
///
/// ``surface`` is ``cli``, ``tui``, ``web``, ``api`` (the default) or ``policy``; other texts are empty by default.
///
/// Raises:
///     InvalidInputError: a field breaks its rule.
AuditEntry, store::AuditEntry, store::AuditEntry::fields {
    /// When it happened.
    timestamp: &str,
    /// The bottle that it is about.
    bottle_slug: &str,
    /// What of the bottle it is about; for a decision the tool.
    component: &str,
    /// What was done, such as ``approved``.
    operator_action: &str,
    /// The operator's words.
    operator_notes: &str,
    /// The agent's words.
    justification: &str,
    /// A unified diff of what was changed, or ``""``.
    diff: &str,
    /// Who did it.
    decided_by: &str,
    /// Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``.
    surface: &str,
    /// The proposal that it is about, if it is about one.
    proposal_id: Option<&str>,
    /// Hash of what was proposed.
    payload_sha256: Option<&str>,
    /// Hash of what runs.
    final_sha256: Option<&str>,
    /// Its place in the log, from 1 on; ``None`` until it is written.
    seq: Option<i64>,
    /// ``entry_hash`` of the entry before it; 64 zeros in the first one.
    prev_hash: Option<&str>,
    /// SHA-256 of ``seq``, ``prev_hash`` and the content, encoded as docs/audit.md says.
    entry_hash: Option<&str>,
} {
    #[new]
    #[pyo3(signature = (timestamp, bottle_slug, component, operator_action, operator_notes = "", justification = "",
                        diff = "", *, decided_by = "", surface = "api", proposal_id = None, payload_sha256 = None,
                        final_sha256 = None, seq = None, prev_hash = None, entry_hash = None))]
    #[allow(clippy::too_many_arguments)] // they are the type's fields, in its order
    fn py_new(
        timestamp: Moment,
        #[pyo3(from_py_with = given)] bottle_slug: &str,
        #[pyo3(from_py_with = given)] component: &str,
        #[pyo3(from_py_with = given)] operator_action: &str,
        #[pyo3(from_py_with = given)] operator_notes: &str,
        #[pyo3(from_py_with = given)] justification: &str,
        #[pyo3(from_py_with = given)] diff: &str,
        #[pyo3(from_py_with = given)] decided_by: &str,
        #[pyo3(from_py_with = given)] surface: &str,
        #[pyo3(from_py_with = given)] proposal_id: Option<&str>,
        #[pyo3(from_py_with = given)] payload_sha256: Option<&str>,
        #[pyo3(from_py_with = given)] final_sha256: Option<&str>,
        #[pyo3(from_py_with = given)] seq: Option<i64>,
        #[pyo3(from_py_with = given)] prev_hash: Option<&str>,
        #[pyo3(from_py_with = given)] entry_hash: Option<&str>,
    ) -> PyResult<Self> {
        let entry = store::AuditEntry::from(store::AuditFields {
            timestamp: timestamp.as_str(), bottle_slug, component, operator_action, operator_notes, justification, diff,
            decided_by, surface, proposal_id, payload_sha256, final_sha256, seq, prev_hash, entry_hash,
        });
        entry.checked().to_py().map(AuditEntry)
    }

    /// An entry of this moment.
    ///
    /// Raises:
    ///     InvalidInputError: as the constructor.
    #[staticmethod]
    #[pyo3(signature = (bottle_slug, component, operator_action, operator_notes = "", justification = "", diff = "",
                        *, decided_by = "", surface = "api", proposal_id = None, payload_sha256 = None,
                        final_sha256 = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        #[pyo3(from_py_with = given)] bottle_slug: &str,
        #[pyo3(from_py_with = given)] component: &str,
        #[pyo3(from_py_with = given)] operator_action: &str,
        #[pyo3(from_py_with = given)] operator_notes: &str,
        #[pyo3(from_py_with = given)] justification: &str,
        #[pyo3(from_py_with = given)] diff: &str,
        #[pyo3(from_py_with = given)] decided_by: &str,
        #[pyo3(from_py_with = given)] surface: &str,
        #[pyo3(from_py_with = given)] proposal_id: Option<&str>,
        #[pyo3(from_py_with = given)] payload_sha256: Option<&str>,
        #[pyo3(from_py_with = given)] final_sha256: Option<&str>,
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

value!(
/// What :meth:`AuditStore.verify` found sound: ``entries`` from ``first_seq`` to ``last_seq``, and the head.
AuditReport, store::AuditReport {
    /// How many there are.
    entries: i64,
    /// The first one's ``seq``; ``None`` for an empty log.
    first_seq: Option<i64>,
    /// The last one's ``seq``; ``None`` for an empty log.
    last_seq: Option<i64>,
    /// Hash of the last entry, 64 zeros for an empty log.
    head: &str,
} {
    fn __repr__(&self) -> String {
        format!("AuditReport(entries={}, head={}…)", self.0.entries, &self.0.head[..12])
    }
});

value!(
/// One message about a pending proposal: what the operator asks back, or what the requester answers.
///
/// Frozen, comparable, hashable, picklable; ``repr`` does not show the text.
Message, store::Message {
    /// UUIDv7.
    id: &str,
    /// The proposal that it is about.
    proposal_id: &str,
    /// ``operator`` or ``requester``.
    sender: &str,
    /// What is said, up to 16 KiB.
    text: &str,
    /// Who wrote it: the operator, or the requester's bottle.
    written_by: &str,
    /// Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``.
    surface: &str,
    /// When it was written.
    written_at: &str,
    /// Why it is not to be believed: it breaks a rule, or no trusted key signed it. ``None`` otherwise.
    damaged: Option<&str>,
} {
    /// Of a question: ``bottle_slug``, ``tool``, ``payload_sha256``, ``key_id`` and ``signature`` of the statement;
    /// with the other fields all that a verifier needs (docs/statements.md).
    #[getter]
    fn signed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &self.0.signed)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Message(id={:?}, proposal_id={:?}, sender={:?})", it.id, it.proposal_id, it.sender)
    }
});

value!(
/// A proposal as a list has it: all but its payload.
ProposalSummary, store::ProposalSummary {
    /// UUIDv7.
    id: &str,
    /// The bottle that asks.
    bottle_slug: &str,
    /// What it asks for, such as ``egress-allow``.
    tool: &str,
    /// The agent's own words.
    justification: &str,
    /// When it was made; over a broker, when the host received it.
    arrival_timestamp: &str,
    /// SHA-256 of the managed file that the payload was written against, if that is known.
    current_file_hash: Option<&str>,
    /// From then on undecided means expired; ``None``: never.
    expires_at: Option<&str>,
    /// What a grant made from its approval is about; see :class:`GrantStore`.
    fingerprint: Option<&str>,
    /// The id of the proposal in whose place it was put, if it was.
    revises: Option<&str>,
    /// SHA-256 of the payload as its row says, which only :meth:`Inbox.review` compares with the payload.
    payload_sha256: &str,
    /// How many bytes of UTF-8 the payload has.
    payload_bytes: i64,
} {
    /// What a grant with ``kind:`` would be about, where the fingerprint names a kind; else ``None``.
    #[getter]
    fn kind(&self) -> Option<&str> {
        self.0.kind()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("ProposalSummary(id={:?}, bottle_slug={:?}, tool={:?})", it.id, it.bottle_slug, it.tool)
    }
});

value!(
/// The answer as a list has it: all but the file that runs instead, and what differs.
ResponseSummary, store::ResponseSummary {
    /// The proposal that it answers.
    proposal_id: &str,
    /// ``approved``, ``modified`` or ``rejected``.
    status: &str,
    /// The operator's words.
    notes: &str,
    /// Hash of the payload that was reviewed.
    payload_sha256: Option<&str>,
    /// The hash of what was reviewed, payload and all.
    review_sha256: Option<&str>,
    /// Hash of the payload that runs; ``None`` for a rejection.
    final_sha256: Option<&str>,
    /// For ``modified`` how many bytes of UTF-8 the text has that runs instead; otherwise ``None``.
    final_bytes: Option<i64>,
    /// Who decided.
    decided_by: Option<&str>,
    /// Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``.
    surface: Option<&str>,
    /// When it was decided.
    decided_at: Option<&str>,
    /// When the managed file was in effect; ``None`` where the tool has no managed file.
    applied_at: Option<&str>,
} {
    /// ``bottle_slug``, ``tool``, ``scope``, ``key_id`` and ``signature`` of the statement (docs/statements.md).
    #[getter]
    fn signed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &self.0.signed)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("ResponseSummary(proposal_id={:?}, status={:?})", it.proposal_id, it.status)
    }
});

/// Declares an item's class, whole or not.
macro_rules! item {
    ($(#[$doc:meta])* $name:ident, $proposal:ident, $response:ident) => {
value!(
$(#[$doc])*
$name, store::$name {
    /// The queue that it is in.
    queue_key: &str,
    /// ``pending, approved, modified, rejected, expired`` or ``withdrawn``.
    state: &str,
    /// A waiter is blocked on it right now (its lease has not lapsed).
    waiting: bool,
    /// End of the newest lease: past means gone since then, ``None`` that nobody ever waited.
    waiting_until: Option<&str>,
    /// How many identical proposals this row stands for.
    requests: i64,
    /// When it was withdrawn, if it was.
    withdrawn_at: Option<&str>,
    /// Why it was withdrawn.
    withdrawn_reason: Option<&str>,
    /// When it was put away, if it was.
    archived_at: Option<&str>,
    /// Absolute host path the decision writes, if the bottle declared one for this tool.
    managed_file: Option<&str>,
    /// ``intended`` (decided, not yet written), ``applied`` or ``failed``; ``None`` without managed file.
    apply_state: Option<&str>,
    /// Why the managed file could not be written.
    apply_error: Option<&str>,
    /// Hash the managed file must still have when this is decided; ``""``: absent, ``None``: not compared.
    base_sha256: Option<&str>,
    /// How many proposals in a row it is the last of, each put in the place of the one before it; 1: the first.
    revision: i64,
    /// Who wrote the newest message about it: ``operator`` (it was asked about), ``requester`` (that is answered) or
    /// ``None``.
    last_word: Option<&str>,
    /// Why the host does not act on it: its rows, or its bottle's, are not as they were signed. It cannot be
    /// decided then, and no managed file is named.
    damaged: Option<&str>,
} {
    /// What is asked.
    #[getter]
    fn proposal(&self) -> $proposal {
        $proposal(self.0.proposal.clone())
    }

    /// What was said about it, in order. Lists leave it empty: ``read``, ``review`` and ``inspect`` have it.
    #[getter]
    fn thread(&self) -> Vec<Message> {
        self.0.thread.iter().cloned().map(Message).collect()
    }

    /// The decision, if there is one.
    #[getter]
    fn response(&self) -> Option<$response> {
        self.0.response.clone().map($response)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!(
            "{}(id={:?}, bottle_slug={:?}, tool={:?}, state={:?})",
            stringify!($name), it.proposal.id, it.proposal.bottle_slug, it.proposal.tool, it.state
        )
    }
});
    };
}

item!(
/// A proposal and where it stands, as the operator sees it.
///
/// ``to_dict`` has its fields beside the proposal's; ``response`` is nested.
InboxItem, Proposal, Response);

item!(
/// A proposal and where it stands, as a list has it: of payload and final file their sizes and hashes.
///
/// Those are what the row says; :meth:`Inbox.review` reads the texts and compares. ``to_dict`` has its fields beside
/// the proposal's; ``response`` is nested.
InboxSummary, ProposalSummary, ResponseSummary);

value!(
/// Lines in a row that both texts have, or only one of them.
Part, store::Part {
    /// ``same``, ``removed`` or ``added``.
    kind: &str,
    /// The lines with their ends; only a text's last line may have none.
    text: &str,
} {
    /// What differs within lines that were replaced: slices of ``text``, in code points.
    #[getter]
    fn changed(&self) -> Vec<(usize, usize)> {
        self.0.changed.clone()
    }

    fn __repr__(&self) -> String {
        format!("Part(kind={:?}, text={} bytes)", self.0.kind, self.0.text.len())
    }
});

value!(
/// A place where two texts differ, with three lines around it. Lines count from 1; an empty side begins at 0.
Hunk, store::Hunk {
    /// Its first line in the text before.
    before_line: usize,
    /// How many lines of the text before it covers.
    before_lines: usize,
    /// Its first line in the text after.
    after_line: usize,
    /// How many lines of the text after it covers.
    after_lines: usize,
} {
    /// Its lines, in order.
    #[getter]
    fn parts(&self) -> Vec<Part> {
        self.0.parts.iter().cloned().map(Part).collect()
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Hunk(-{},{} +{},{})", it.before_line, it.before_lines, it.after_line, it.after_lines)
    }
});

value!(
/// The revision before a proposal, as far as an operator needs it to see what became of it.
Revised, store::Revised {
    /// The id of the proposal.
    id: &str,
} {
    /// What was said about it, in order.
    #[getter]
    fn thread(&self) -> Vec<Message> {
        self.0.thread.iter().cloned().map(Message).collect()
    }

    /// From what was proposed then to what is proposed now.
    #[getter]
    fn hunks(&self) -> Vec<Hunk> {
        self.0.hunks.iter().cloned().map(Hunk).collect()
    }

    fn __repr__(&self) -> String {
        format!("Revised(id={:?}, hunks={})", self.0.id, self.0.hunks.len())
    }
});

value!(
/// Something about a proposal that should make the operator look twice.
Odd, store::Odd {
    /// ``damaged``, ``stale``, ``not-compared``, ``invisible``, ``look-alike`` or ``right-to-left``.
    kind: &str,
    /// A sentence about it.
    message: &str,
} {
    fn __repr__(&self) -> String {
        format!("Odd(kind={:?})", self.0.kind)
    }
});

value!(
/// All that must be seen of one proposal before it is decided, from :meth:`Inbox.review`.
///
/// ``to_dict`` has its fields beside the item's; ``hunks``, ``revised`` and ``odd`` are nested.
Review, store::Review {
    /// The managed file as it is now; ``None`` without one, while it is absent, or if it cannot be shown.
    current_file: Option<&str>,
    /// Its hash; ``""`` while it is absent, ``None`` without one or if it cannot be read.
    current_sha256: Option<&str>,
    /// Why the file cannot be shown or compared.
    current_problem: Option<&str>,
    /// The hash that a decision names; ``docs/states.md`` says what it covers.
    review_sha256: &str,
} {
    /// The proposal and where it stands.
    #[getter]
    fn item(&self) -> InboxItem {
        InboxItem(self.0.item.clone())
    }

    /// Pending: from the file as it is to what is proposed. Modified: from what was proposed to what runs.
    ///
    /// ``None`` if there is nothing to compare: then the payload is what must be seen.
    #[getter]
    fn hunks(&self) -> Option<Vec<Hunk>> {
        self.0.hunks.clone().map(|hunks| hunks.into_iter().map(Hunk).collect())
    }

    /// The revision before this one, where :attr:`Proposal.revises` names one that is still kept.
    #[getter]
    fn revised(&self) -> Option<Revised> {
        self.0.revised.clone().map(Revised)
    }

    /// What should make the operator look twice.
    #[getter]
    fn odd(&self) -> Vec<Odd> {
        self.0.odd.iter().cloned().map(Odd).collect()
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("Review(id={:?}, state={:?}, review_sha256={}…)", it.item.proposal.id, it.item.state, &it.review_sha256[..12])
    }
});

value!(
/// One step in a proposal's life. ``seq`` grows; remember it to go on from there.
Change, store::Change {
    /// Its number.
    seq: i64,
    /// ``proposed, approved, modified, rejected, expired, withdrawn, applied, apply_failed, asked, answered`` or
    /// ``archived``.
    kind: &str,
    /// The proposal that it is a step of.
    proposal_id: &str,
    /// The bottle that asked.
    bottle_slug: &str,
    /// What was asked for.
    tool: &str,
    /// When it happened.
    at: &str,
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

value!(
/// Leave to do a thing again without asking. ``scope`` is ``once``, ``uses``, ``until`` or ``bottle``.
Grant, store::Grant {
    /// UUIDv7.
    id: &str,
    /// The bottle that it is for.
    bottle_slug: &str,
    /// The tool that it is for.
    tool: &str,
    /// What it is about; see :class:`GrantStore`.
    fingerprint: &str,
    /// ``once``, ``uses``, ``until`` or ``bottle``.
    scope: &str,
    /// How many uses are left; ``None``: they are not counted.
    uses_left: Option<i64>,
    /// When it ends; ``None``: not by itself.
    expires_at: Option<&str>,
    /// The proposal whose approval made it.
    proposal_id: Option<&str>,
    /// When it was made.
    created_at: &str,
    /// Who made it.
    created_by: &str,
    /// When it was last used, if it was.
    last_used_at: Option<&str>,
    /// When it was revoked, if it was.
    revoked_at: Option<&str>,
    /// Who revoked it.
    revoked_by: Option<&str>,
    /// Could be used now: not revoked, run out, expired, nor its bottle stopped.
    live: bool,
    /// As given; ``uses_left`` is what is left of it.
    uses: Option<i64>,
    /// The key that signed it, as :attr:`TrustedKey.id`.
    key_id: &str,
    /// The signature of its statement (docs/statements.md), base64.
    signature: &str,
    /// In a list: why it allows nothing, as its row is not as it was signed.
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

value!(
/// A registered bottle. ``files`` maps tool to the absolute path of its managed file.
Bottle, store::Bottle {
    /// Its name.
    slug: &str,
    /// What runs it, such as ``docker``.
    backend: &str,
    /// When it was last started.
    started_at: &str,
    /// When it was stopped; ``None`` while it runs.
    stopped_at: Option<&str>,
    /// How many of its proposals wait for a decision.
    pending: i64,
    /// Why nothing of its rows is taken (``files`` is empty then); ``None`` if this host signed them.
    damaged: Option<&str>,
} {
    /// Tool → absolute path of its managed file.
    #[getter]
    fn files(&self) -> BTreeMap<String, String> {
        self.0.files.clone()
    }

    fn __repr__(&self) -> String {
        format!("Bottle(slug={:?}, backend={:?}, running={})", self.0.slug, self.0.backend, self.0.stopped_at.is_none())
    }
});

value!(
/// A public key that is trusted, for what, and until when. Frozen, comparable, hashable, picklable.
TrustedKey, store::TrustedKey {
    /// The first 16 hex digits of the SHA-256 of the public key's 32 bytes.
    id: &str,
    /// ``host`` (this one's own), ``operator`` (a person's) or ``trusted`` (another host's).
    role: &str,
    /// Whose it is.
    name: &str,
    /// The Ed25519 public key (RFC 8032), base64.
    public_key: &str,
    /// Since when it is trusted.
    added_at: &str,
    /// Signs nothing new since then; what it signed stands.
    rotated_at: Option<&str>,
    /// What it signed later than this is refused.
    revoked_at: Option<&str>,
} {
    /// Neither rotated nor revoked.
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
