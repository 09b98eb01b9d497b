//! What is asked and answered: proposals, responses, what was said about them, and where they stand.

use std::convert::identity;

use bot_bottle_store as store;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{Read, hash_of};
use crate::convert::{Moment, Text, dict, duration, given};
use crate::error::ToPy;

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
} compared by identity {
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

    /// Its command's first words (``git status``), where a grant with ``prefix:`` is possible; else ``None``.
    #[getter]
    fn words(&self) -> Option<&str> {
        self.0.words()
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
} compared by store::Response::answer {
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
        let status = status.parse().to_py()?;
        let final_file = final_file.map(Text::into_bytes);
        let mut response = store::Response::checked(proposal_id, status, notes, final_file.as_deref()).to_py()?;
        response.diff = diff.map(Into::into);
        let head = &mut response.head;
        head.payload_sha256 = payload_sha256;
        head.review_sha256 = review_sha256;
        head.decided_by = decided_by;
        head.surface = surface.map(Into::into);
        head.decided_at = decided_at.map(Moment::into_string);
        head.final_sha256 = final_sha256;
        head.applied_at = applied_at.map(Moment::into_string);
        response.check_rest().to_py().map(Response)
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        let by = it.decided_by.as_deref().unwrap_or("?");
        format!("Response(proposal_id={:?}, status={:?}, decided_by={by:?})", it.proposal_id, it.status)
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
} compared by identity {
    /// Of a question: ``bottle_slug``, ``tool``, ``payload_sha256``, ``key_id`` and ``signature`` of the statement;
    /// with the other fields all that a verifier needs (docs/statements.md).
    #[getter]
    fn signed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &self.0.signed)
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
} compared by identity {
    /// What a grant with ``kind:`` would be about, where the fingerprint names a kind; else ``None``.
    #[getter]
    fn kind(&self) -> Option<&str> {
        self.0.kind()
    }

    /// Its command's first words (``git status``), where a grant with ``prefix:`` is possible; else ``None``.
    #[getter]
    fn words(&self) -> Option<&str> {
        self.0.words()
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
} compared by identity {
    /// ``bottle_slug``, ``tool``, ``scope``, ``key_id`` and ``signature`` of the statement (docs/statements.md).
    #[getter]
    fn signed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &self.0.signed)
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
