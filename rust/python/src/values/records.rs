//! What is kept beside the queue: the log, changes, grants, bottles and keys.

use std::collections::BTreeMap;
use std::convert::identity;

use bot_bottle_store as store;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{Read, hash_of};
use crate::convert::{Moment, dict, given};
use crate::error::ToPy;

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
} compared by store::AuditEntry::content {
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
} compared by identity {
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
} compared by identity {
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
} compared by identity {
    /// Neither rotated nor revoked.
    #[getter]
    fn current(&self) -> bool {
        self.0.is_current()
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        format!("TrustedKey(id={:?}, role={:?}, name={:?})", it.id, it.role.name(), it.name)
    }
});
