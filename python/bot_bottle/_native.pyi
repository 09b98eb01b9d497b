"""What the Rust extension offers.

Conventions: timestamps are ``str``, UTC RFC 3339 with microseconds and ``Z``
(``2026-01-31T12:00:00.000000Z``); where one is given, a ``datetime`` that says its time zone does as
well. Durations are ``float`` seconds. Hashes are lower-case hex SHA-256 of the UTF-8 bytes. Ids are
UUIDv7 (RFC 9562). ``db_path=None`` means the host's database,
:func:`host_db_path`; an explicit path is for sidecars and tests, and its directory must exist.
Every method that touches the database may raise ``DatabaseBusyError`` (after 30 s behind another
writer), ``DatabaseCorruptError``, ``DatabaseUnavailableError``, ``SchemaTooNewError``,
``MigrationError``, ``UnsafeMountError`` or ``ClosedError``; these are not repeated below. A read on
a database that does not exist returns nothing and creates nothing; the first write creates it. No
call holds the GIL while it blocks or runs SQL. All that one call waits for takes 30 s at most. Signals are
seen to at least every 100 ms meanwhile, and an exception that a handler raises ends the call, which has
then written nothing. A handler that uses the same database inside the call that it interrupts is refused
(``InvalidInputError``), as is a write inside the thread's own :meth:`Database.transaction`. A forked child
is refused (``DatabaseUnavailableError``) what its parent had open: SQLite's locks do not survive a fork.

A sidecar's stores also work over the host's broker (``broker=``, see :class:`Broker`), with the same
verbs, types, errors and waits. There a method may also raise ``AccessDeniedError``, at once for what only
the host does (``write_response``, reading the log, listing and revoking grants), and
``DatabaseUnavailableError`` after 30 s without a broker. A verb tries again until then, through a restart
of the broker; what it had done already is not done twice, but for an audit entry and a grant's use whose
acknowledgement was lost.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, final, overload

from bot_bottle.states import ApplyState, ChangeKind, Scope, Sender, State, Status, Surface, Transport

__all__ = [
    "DB_PATH_IN_CONTAINER",
    "MAX_JUSTIFICATION_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_NOTES_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_PENDING_PER_BOTTLE",
    "STATUS_APPROVED",
    "STATUS_MODIFIED",
    "STATUS_REJECTED",
    "TOOL_CAPABILITY_BLOCK",
    "TOOL_EGRESS_ALLOW",
    "TOOL_EGRESS_BLOCK",
    "TOOL_EGRESS_TOKEN_ALLOW",
    "TOOL_GITLEAKS_ALLOW",
    "AuditEntry",
    "AuditReport",
    "AuditStore",
    "Bottle",
    "BottleStore",
    "Broker",
    "Change",
    "Database",
    "Grant",
    "GrantStore",
    "Hunk",
    "Inbox",
    "InboxItem",
    "InboxSummary",
    "Keys",
    "Message",
    "Odd",
    "Part",
    "Proposal",
    "ProposalSummary",
    "QueueStore",
    "Response",
    "ResponseSummary",
    "Review",
    "Revised",
    "Routes",
    "SecretFinding",
    "Transaction",
    "TrustedKey",
    "Wait",
    "Watch",
    "__version__",
    "_rebuild",
    "bot_bottle_root",
    "canonical_host",
    "committed_decisions",
    "committed_writes",
    "host_db_path",
    "new_id",
    "render_diff",
    "scan",
    "sha256_hex",
    "visible",
]

_SqlValue = None | int | float | str | bytes

__version__: Final[str]
DB_PATH_IN_CONTAINER: Final[str]
MAX_PAYLOAD_BYTES: Final[int]
MAX_JUSTIFICATION_BYTES: Final[int]
MAX_MESSAGE_BYTES: Final[int]
MAX_NOTES_BYTES: Final[int]
MAX_PENDING_PER_BOTTLE: Final[int]
TOOL_EGRESS_ALLOW: Final[Literal["egress-allow"]]
TOOL_EGRESS_BLOCK: Final[Literal["egress-block"]]
TOOL_CAPABILITY_BLOCK: Final[Literal["capability-block"]]
TOOL_GITLEAKS_ALLOW: Final[Literal["gitleaks-allow"]]
TOOL_EGRESS_TOKEN_ALLOW: Final[Literal["egress-token-allow"]]
STATUS_APPROVED: Final[Literal["approved"]]
STATUS_MODIFIED: Final[Literal["modified"]]
STATUS_REJECTED: Final[Literal["rejected"]]

def sha256_hex(data: str | bytes) -> str:
    """SHA-256 of ``data`` (text as UTF-8) as 64 lower-case hex digits."""

def render_diff(before: str, after: str, *, label: str = "file") -> str:
    """Unified diff (3 lines of context) with headers ``--- a/label`` and ``+++ b/label``; ``""`` if equal."""

def visible(text: str, *, multiline: bool = True) -> str:
    """``text`` with everything that could deceive a reader spelled out; the one sanitiser of all surfaces.

    Control characters (ANSI escapes among them), bidi overrides, zero-width and other invisible
    or blank look-alike characters, noncharacters, and combining marks from the fifth in a row on become
    ``<U+XXXX>``. With ``multiline`` newline and tab stay. A word that mixes scripts no language mixes is
    followed by ``<mixed scripts: Cyrillic, Latin>``; a line with letters written from right to left ends
    with ``<right-to-left>``.
    Source: Unicode ``Cc``, ``Cf``, ``Zl``, ``Zp``, ``Zs`` (but for U+0020), noncharacters, default-ignorable code
    points, blank letters; UTS 39, "highly restrictive".
    """

def canonical_host(host: str) -> str:
    """``host`` as names are compared: lower case, no final dot, IPv6 without brackets and shortened.

    Raises:
        ValueError: it is neither an ASCII host name nor an IP address.
    """

@final
class Routes:
    """A ``routes.yaml`` as the egress proxy reads it; ``bot_bottle.documents.routes`` is the form to use.

    Raises:
        InvalidInputError: it is not valid; the message names the line, which is also the attribute ``line``.
    """

    def __new__(cls, text: str) -> Routes: ...
    def to_list(self) -> list[tuple[dict[str, Any], int]]:
        """Each route in the file's own shape, defaults spelled out, and the line it begins on."""

    def find(self, host: str) -> int | None:
        """The place in the list of the route for this host, the most specific one; ``None``: denied."""

    def allows(self, at: int, method: str, path: str, headers: list[tuple[str, str]]) -> bool:
        """Whether the route at this place lets the request through; ``path`` as sent, without query."""

@final
class SecretFinding:
    """A secret that :func:`scan` found and where it is; ``repr`` does not show the secret."""

    @property
    def detector(self) -> str:
        """The format's id, such as ``GitHub token``, or the name a known secret was given with."""

    @property
    def kind(self) -> str:
        """``token_patterns`` or ``known_secrets``, as ``routes.yaml`` names the detector."""

    @property
    def secret(self) -> bytes:
        """The secret itself, decoded."""

    @property
    def span(self) -> tuple[int, int] | None:
        """Begin and end of the bytes that spell it; overwriting them takes it out. ``None`` in compressed data."""

    @property
    def how(self) -> list[str]:
        """The steps that hid it, outermost first: ``["base64", "gzip"]``."""

    @property
    def place(self) -> str:
        """The place as it was given to :func:`scan`."""

    def explain(self) -> str:
        """What was found, where, under which encodings, and where its format is described; one line, no secret."""

def scan(
    data: bytes | str,
    *,
    token_patterns: bool = True,
    known: Mapping[str, bytes | str] | None = None,
    place: str = "body",
    host: str = "",
    codings: Sequence[str] | None = None,
) -> list[SecretFinding]:
    """The secrets in ``data``, however encoded, as the egress proxy finds them.

    Args:
        token_patterns: look for the published formats of tokens and keys.
        known: what a secret is called → its value; those shorter than 8 bytes are left out.
        place: where in a request the data stands; in ``URL query`` a signed URL's own parameters are no secret.
        host: the host that the request goes to, in lower case.
        codings: the content codings of a body, in the order applied: gzip, deflate, br, zstd.

    Raises:
        InvalidInputError: it is not so coded, or decoding it takes more work or memory than a request may use.
    """

def bot_bottle_root() -> str:
    """``~/.bot-bottle``, or ``$BOT_BOTTLE_ROOT`` (absolute). Creates nothing.

    Raises:
        InvalidInputError: the variable is relative, or there is no home directory.
    """

def host_db_path() -> str:
    """``<root>/bot-bottle.db``, the only database on a host: a symlink to ``<root>/db/bot-bottle.db``."""

def committed_decisions() -> int:
    """How many decisions and questions this process has committed by :meth:`Inbox.decide` and :meth:`Inbox.ask`,
    decisions among them whose managed file is not in effect yet. It counts before a signal's handler can run, so a
    handler can tell whether it comes too late.
    """

def committed_writes() -> int:
    """How many writes this process has committed, to databases and keys. It counts before a signal's handler can
    run.
    """

def _rebuild(kind: str, fields: str, /) -> Any:
    """A pickled value again; what ``__reduce__`` names."""

def new_id() -> str:
    """A new UUIDv7, later ones sort after earlier ones of this process."""

@final
class Proposal:
    """What a sidecar asks of the operator; its content never changes once written.

    Frozen, comparable by content, hashable, picklable; ``repr`` shows no payload.

    Args:
        proposed_file: the whole payload, text; ``bytes`` must be UTF-8. 1 byte to 1 MiB, no NUL.
        justification: the agent's words, up to 16 KiB.
        current_file_hash: SHA-256 of the managed file the payload was written against; ``None`` or ``""``: unknown.
        expires_at: from then on undecided means expired; ``None``: never.
        fingerprint: what a grant made from its approval is about (see :class:`GrantStore`), at most 512 bytes.
        revises: the id of a pending proposal of the same bottle and tool in whose place this one is put: that one is
            withdrawn as this one is written.

    Raises:
        InvalidProposalError: a field breaks its rule; the message names it (for bytes, the offset).
    """

    def __new__(
        cls,
        id: str,
        bottle_slug: str,
        tool: str,
        proposed_file: str | bytes,
        justification: str,
        arrival_timestamp: str | datetime,
        current_file_hash: str | None = None,
        *,
        expires_at: str | datetime | None = None,
        fingerprint: str | None = None,
        revises: str | None = None,
    ) -> Proposal: ...
    @staticmethod
    def new(
        bottle_slug: str,
        tool: str,
        proposed_file: str | bytes,
        justification: str = "",
        current_file_hash: str | None = None,
        *,
        expires_in: float | None = None,
        fingerprint: str | None = None,
        revises: str | None = None,
    ) -> Proposal:
        """A proposal with a new id that arrives now and, with ``expires_in`` (seconds), expires then.

        Raises:
            InvalidProposalError: as the constructor.
        """

    @property
    def id(self) -> str:
        """UUIDv7."""
    @property
    def bottle_slug(self) -> str:
        """The bottle that asks."""
    @property
    def tool(self) -> str:
        """What it asks for, such as ``egress-allow``."""
    @property
    def proposed_file(self) -> str:
        """The whole payload."""
    @property
    def justification(self) -> str:
        """The agent's own words."""
    @property
    def arrival_timestamp(self) -> str:
        """When it was made; over a broker, when the host received it."""
    @property
    def current_file_hash(self) -> str | None:
        """SHA-256 of the managed file that the payload was written against, if that is known."""
    @property
    def expires_at(self) -> str | None:
        """From then on undecided means expired; ``None``: never."""
    @property
    def fingerprint(self) -> str | None:
        """What a grant made from its approval is about; see :class:`GrantStore`."""
    @property
    def revises(self) -> str | None:
        """The id of the proposal in whose place it was put, if it was."""
    @property
    def payload_sha256(self) -> str:
        """SHA-256 of ``proposed_file``: what a decision names."""
    @property
    def kind(self) -> str | None:
        """What a grant with ``kind:`` would be about, where the fingerprint names a kind; else ``None``."""
    @property
    def words(self) -> str | None:
        """Its command's first words (``git status``), where a grant with ``prefix:`` is possible; else ``None``."""
    @property
    def payload_bytes(self) -> int:
        """How many bytes of UTF-8 ``proposed_file`` has."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Response:
    """The operator's answer. Equality and hash cover ``proposal_id, status, notes, final_file``: the
    answer itself; who gave it and when is carried beside it and filled in by the store.

    Args:
        status: ``approved``, ``modified`` or ``rejected``.
        notes: the operator's words, up to 16 KiB.
        final_file: for ``modified`` the text that runs instead; otherwise ``None``.
        payload_sha256: hash of the payload that was reviewed.
        review_sha256: hash of all that was reviewed, :attr:`Review.review_sha256`.

    Raises:
        InvalidProposalError: unknown status, over-size notes, ``final_file`` missing or out of place.
    """

    def __new__(
        cls,
        proposal_id: str,
        status: Status,
        notes: str = "",
        final_file: str | bytes | None = None,
        *,
        payload_sha256: str | None = None,
        decided_by: str | None = None,
        surface: Surface | None = None,
        decided_at: str | datetime | None = None,
        final_sha256: str | None = None,
        diff: str | None = None,
        applied_at: str | datetime | None = None,
        review_sha256: str | None = None,
    ) -> Response: ...
    @property
    def proposal_id(self) -> str:
        """The proposal that it answers."""
    @property
    def status(self) -> Status:
        """``approved``, ``modified`` or ``rejected``."""
    @property
    def notes(self) -> str:
        """The operator's words."""
    @property
    def final_file(self) -> str | None:
        """For ``modified`` the text that runs instead; otherwise ``None``."""
    @property
    def payload_sha256(self) -> str | None:
        """Hash of the payload that was reviewed."""
    @property
    def review_sha256(self) -> str | None:
        """The hash of what was reviewed, payload and all."""

    @property
    def final_sha256(self) -> str | None:
        """Hash of the payload that runs; ``None`` for a rejection."""
    @property
    def decided_by(self) -> str | None:
        """Who decided."""
    @property
    def surface(self) -> Surface | None:
        """Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``."""
    @property
    def decided_at(self) -> str | None:
        """When it was decided."""
    @property
    def diff(self) -> str | None:
        """For ``modified``: unified diff from the proposed to the final file."""

    @property
    def applied_at(self) -> str | None:
        """When the managed file was in effect; ``None`` where the tool has no managed file."""

    @property
    def final_bytes(self) -> int | None:
        """How many bytes of UTF-8 ``final_file`` has, if there is one."""
    @property
    def signed(self) -> dict[str, Any] | None:
        """``bottle_slug``, ``tool``, ``scope``, ``key_id`` and ``signature`` of the statement; with the other fields
        all that a verifier needs (docs/statements.md).
        """

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class AuditEntry:
    """One line of the audit log. Equality and hash cover what was said, not ``seq`` and the chain's
    hashes, which the log fills in.

    ``component`` follows the slug's rule (for a decision it is the tool).

    ``surface`` is ``cli``, ``tui``, ``web``, ``api`` (the default) or ``policy``; other texts are empty by default.

    Raises:
        InvalidInputError: a field breaks its rule.
    """

    def __new__(
        cls,
        timestamp: str | datetime,
        bottle_slug: str,
        component: str,
        operator_action: str,
        operator_notes: str = ...,
        justification: str = ...,
        diff: str = ...,
        *,
        decided_by: str = ...,
        surface: Surface = ...,
        proposal_id: str | None = None,
        payload_sha256: str | None = None,
        final_sha256: str | None = None,
        seq: int | None = None,
        prev_hash: str | None = None,
        entry_hash: str | None = None,
    ) -> AuditEntry: ...
    @staticmethod
    def new(
        bottle_slug: str,
        component: str,
        operator_action: str,
        operator_notes: str = ...,
        justification: str = ...,
        diff: str = ...,
        *,
        decided_by: str = ...,
        surface: Surface = ...,
        proposal_id: str | None = None,
        payload_sha256: str | None = None,
        final_sha256: str | None = None,
    ) -> AuditEntry:
        """An entry of this moment.

        Raises:
            InvalidInputError: as the constructor.
        """

    @property
    def timestamp(self) -> str:
        """When it happened."""
    @property
    def bottle_slug(self) -> str:
        """The bottle that it is about."""
    @property
    def component(self) -> str:
        """What of the bottle it is about; for a decision the tool."""
    @property
    def operator_action(self) -> str:
        """What was done, such as ``approved``."""
    @property
    def operator_notes(self) -> str:
        """The operator's words."""
    @property
    def justification(self) -> str:
        """The agent's words."""
    @property
    def diff(self) -> str:
        """A unified diff of what was changed, or ``""``."""
    @property
    def decided_by(self) -> str:
        """Who did it."""
    @property
    def surface(self) -> Surface:
        """Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``."""
    @property
    def proposal_id(self) -> str | None:
        """The proposal that it is about, if it is about one."""
    @property
    def payload_sha256(self) -> str | None:
        """Hash of what was proposed."""
    @property
    def final_sha256(self) -> str | None:
        """Hash of what runs."""
    @property
    def seq(self) -> int | None:
        """Its place in the log, from 1 on; ``None`` until it is written."""
    @property
    def prev_hash(self) -> str | None:
        """``entry_hash`` of the entry before it; 64 zeros in the first one."""
    @property
    def entry_hash(self) -> str | None:
        """SHA-256 of ``seq``, ``prev_hash`` and the content, encoded as docs/audit.md says."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class AuditReport:
    """What :meth:`AuditStore.verify` found sound: ``entries`` from ``first_seq`` to ``last_seq``, and the head."""

    @property
    def entries(self) -> int:
        """How many there are."""
    @property
    def first_seq(self) -> int | None:
        """The first one's ``seq``; ``None`` for an empty log."""
    @property
    def last_seq(self) -> int | None:
        """The last one's ``seq``; ``None`` for an empty log."""
    @property
    def head(self) -> str:
        """Hash of the last entry, 64 zeros for an empty log."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

@final
class Message:
    """One message about a pending proposal: what the operator asks back, or what the requester answers.

    Frozen, comparable, hashable, picklable; ``repr`` does not show the text.
    """

    @property
    def id(self) -> str:
        """UUIDv7."""
    @property
    def proposal_id(self) -> str:
        """The proposal that it is about."""
    @property
    def sender(self) -> Sender:
        """``operator`` or ``requester``."""
    @property
    def text(self) -> str:
        """What is said, up to 16 KiB."""
    @property
    def written_by(self) -> str:
        """Who wrote it: the operator, or the requester's bottle."""
    @property
    def surface(self) -> Surface:
        """Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``."""
    @property
    def written_at(self) -> str:
        """When it was written."""
    @property
    def damaged(self) -> str | None:
        """Why it is not to be believed: it breaks a rule, or no trusted key signed it. ``None`` otherwise."""
    @property
    def signed(self) -> dict[str, Any] | None:
        """Of a question: ``bottle_slug``, ``tool``, ``payload_sha256``, ``key_id`` and ``signature`` of the statement;
        with the other fields all that a verifier needs (docs/statements.md).
        """

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class ProposalSummary:
    """A proposal as a list has it: all but its payload."""

    @property
    def id(self) -> str:
        """UUIDv7."""
    @property
    def bottle_slug(self) -> str:
        """The bottle that asks."""
    @property
    def tool(self) -> str:
        """What it asks for, such as ``egress-allow``."""
    @property
    def justification(self) -> str:
        """The agent's own words."""
    @property
    def arrival_timestamp(self) -> str:
        """When it was made; over a broker, when the host received it."""
    @property
    def current_file_hash(self) -> str | None:
        """SHA-256 of the managed file that the payload was written against, if that is known."""
    @property
    def expires_at(self) -> str | None:
        """From then on undecided means expired; ``None``: never."""
    @property
    def fingerprint(self) -> str | None:
        """What a grant made from its approval is about; see :class:`GrantStore`."""
    @property
    def revises(self) -> str | None:
        """The id of the proposal in whose place it was put, if it was."""
    @property
    def payload_sha256(self) -> str:
        """SHA-256 of the payload as its row says, which only :meth:`Inbox.review` compares with the payload."""
    @property
    def payload_bytes(self) -> int:
        """How many bytes of UTF-8 the payload has."""
    @property
    def kind(self) -> str | None:
        """What a grant with ``kind:`` would be about, where the fingerprint names a kind; else ``None``."""
    @property
    def words(self) -> str | None:
        """Its command's first words (``git status``), where a grant with ``prefix:`` is possible; else ``None``."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class ResponseSummary:
    """The answer as a list has it: all but the file that runs instead, and what differs."""

    @property
    def proposal_id(self) -> str:
        """The proposal that it answers."""
    @property
    def status(self) -> Status:
        """``approved``, ``modified`` or ``rejected``."""
    @property
    def notes(self) -> str:
        """The operator's words."""
    @property
    def payload_sha256(self) -> str | None:
        """Hash of the payload that was reviewed."""
    @property
    def review_sha256(self) -> str | None:
        """The hash of what was reviewed, payload and all."""
    @property
    def final_sha256(self) -> str | None:
        """Hash of the payload that runs; ``None`` for a rejection."""
    @property
    def final_bytes(self) -> int | None:
        """For ``modified`` how many bytes of UTF-8 the text has that runs instead; otherwise ``None``."""
    @property
    def decided_by(self) -> str | None:
        """Who decided."""
    @property
    def surface(self) -> Surface | None:
        """Through what: ``cli``, ``tui``, ``web``, ``api`` or ``policy``."""
    @property
    def decided_at(self) -> str | None:
        """When it was decided."""
    @property
    def applied_at(self) -> str | None:
        """When the managed file was in effect; ``None`` where the tool has no managed file."""
    @property
    def signed(self) -> dict[str, Any] | None:
        """``bottle_slug``, ``tool``, ``scope``, ``key_id`` and ``signature`` of the statement (docs/statements.md)."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class InboxItem:
    """A proposal and where it stands, as the operator sees it.

    ``to_dict`` has its fields beside the proposal's; ``response`` is nested.
    """

    @property
    def proposal(self) -> Proposal:
        """What is asked."""
    @property
    def queue_key(self) -> str:
        """The queue that it is in."""
    @property
    def state(self) -> State:
        """``pending, approved, modified, rejected, expired`` or ``withdrawn``."""

    @property
    def waiting(self) -> bool:
        """A waiter is blocked on it right now (its lease has not lapsed)."""

    @property
    def waiting_until(self) -> str | None:
        """End of the newest lease: past means gone since then, ``None`` that nobody ever waited."""

    @property
    def requests(self) -> int:
        """How many identical proposals this row stands for."""

    @property
    def withdrawn_at(self) -> str | None:
        """When it was withdrawn, if it was."""
    @property
    def withdrawn_reason(self) -> str | None:
        """Why it was withdrawn."""
    @property
    def archived_at(self) -> str | None:
        """When it was put away, if it was."""
    @property
    def response(self) -> Response | None:
        """The decision, if there is one."""
    @property
    def managed_file(self) -> str | None:
        """Absolute host path the decision writes, if the bottle declared one for this tool."""

    @property
    def apply_state(self) -> ApplyState | None:
        """``intended`` (decided, not yet written), ``applied`` or ``failed``; ``None`` without managed file."""

    @property
    def apply_error(self) -> str | None:
        """Why the managed file could not be written."""
    @property
    def base_sha256(self) -> str | None:
        """Hash the managed file must still have when this is decided; ``""``: absent, ``None``: not compared."""

    @property
    def revision(self) -> int:
        """How many proposals in a row it is the last of, each put in the place of the one before it; 1: the first."""
    @property
    def last_word(self) -> Sender | None:
        """Who wrote the newest message about it: ``operator`` (it was asked about), ``requester`` (that is answered) or
        ``None``.
        """
    @property
    def thread(self) -> list[Message]:
        """What was said about it, in order. Lists leave it empty: ``read``, ``review`` and ``inspect`` have it."""
    @property
    def damaged(self) -> str | None:
        """Why the host does not act on it: its rows, or its bottle's, are not as they were signed. It cannot be
        decided then, and no managed file is named.
        """

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class InboxSummary:
    """A proposal and where it stands, as a list has it: of payload and final file their sizes and hashes.

    Those are what the row says; :meth:`Inbox.review` reads the texts and compares. ``to_dict`` has its fields beside
    the proposal's; ``response`` is nested.
    """

    @property
    def proposal(self) -> ProposalSummary:
        """What is asked."""
    @property
    def queue_key(self) -> str:
        """The queue that it is in."""
    @property
    def state(self) -> State:
        """``pending, approved, modified, rejected, expired`` or ``withdrawn``."""

    @property
    def waiting(self) -> bool:
        """A waiter is blocked on it right now (its lease has not lapsed)."""

    @property
    def waiting_until(self) -> str | None:
        """End of the newest lease: past means gone since then, ``None`` that nobody ever waited."""

    @property
    def requests(self) -> int:
        """How many identical proposals this row stands for."""

    @property
    def withdrawn_at(self) -> str | None:
        """When it was withdrawn, if it was."""
    @property
    def withdrawn_reason(self) -> str | None:
        """Why it was withdrawn."""
    @property
    def archived_at(self) -> str | None:
        """When it was put away, if it was."""
    @property
    def response(self) -> ResponseSummary | None:
        """The decision, if there is one."""
    @property
    def managed_file(self) -> str | None:
        """Absolute host path the decision writes, if the bottle declared one for this tool."""

    @property
    def apply_state(self) -> ApplyState | None:
        """``intended`` (decided, not yet written), ``applied`` or ``failed``; ``None`` without managed file."""

    @property
    def apply_error(self) -> str | None:
        """Why the managed file could not be written."""
    @property
    def base_sha256(self) -> str | None:
        """Hash the managed file must still have when this is decided; ``""``: absent, ``None``: not compared."""

    @property
    def revision(self) -> int:
        """How many proposals in a row it is the last of, each put in the place of the one before it; 1: the first."""
    @property
    def last_word(self) -> Sender | None:
        """Who wrote the newest message about it: ``operator`` (it was asked about), ``requester`` (that is answered) or
        ``None``.
        """
    @property
    def thread(self) -> list[Message]:
        """What was said about it, in order. Lists leave it empty: ``read``, ``review`` and ``inspect`` have it."""
    @property
    def damaged(self) -> str | None:
        """Why the host does not act on it: its rows, or its bottle's, are not as they were signed. It cannot be
        decided then, and no managed file is named.
        """

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Part:
    """Lines in a row that both texts have, or only one of them."""

    @property
    def kind(self) -> Literal["same", "removed", "added"]:
        """``same``, ``removed`` or ``added``."""
    @property
    def text(self) -> str:
        """The lines with their ends; only a text's last line may have none."""

    @property
    def changed(self) -> list[tuple[int, int]]:
        """What differs within lines that were replaced: slices of ``text``, in code points."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Hunk:
    """A place where two texts differ, with three lines around it. Lines count from 1; an empty side begins at 0."""

    @property
    def before_line(self) -> int:
        """Its first line in the text before."""
    @property
    def before_lines(self) -> int:
        """How many lines of the text before it covers."""
    @property
    def after_line(self) -> int:
        """Its first line in the text after."""
    @property
    def after_lines(self) -> int:
        """How many lines of the text after it covers."""
    @property
    def parts(self) -> list[Part]:
        """Its lines, in order."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Revised:
    """The revision before a proposal, as far as an operator needs it to see what became of it."""

    @property
    def id(self) -> str:
        """The id of the proposal."""
    @property
    def thread(self) -> list[Message]:
        """What was said about it, in order."""
    @property
    def hunks(self) -> list[Hunk]:
        """From what was proposed then to what is proposed now."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Odd:
    """Something about a proposal that should make the operator look twice."""

    @property
    def kind(self) -> Literal["damaged", "stale", "not-compared", "invisible", "look-alike", "right-to-left"]:
        """``damaged``, ``stale``, ``not-compared``, ``invisible``, ``look-alike`` or ``right-to-left``."""
    @property
    def message(self) -> str:
        """A sentence about it."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Review:
    """All that must be seen of one proposal before it is decided, from :meth:`Inbox.review`.

    ``to_dict`` has its fields beside the item's; ``hunks``, ``revised`` and ``odd`` are nested.
    """

    @property
    def item(self) -> InboxItem:
        """The proposal and where it stands."""
    @property
    def current_file(self) -> str | None:
        """The managed file as it is now; ``None`` without one, while it is absent, or if it cannot be shown."""

    @property
    def current_sha256(self) -> str | None:
        """Its hash; ``""`` while it is absent, ``None`` without one or if it cannot be read."""

    @property
    def current_problem(self) -> str | None:
        """Why the file cannot be shown or compared."""

    @property
    def hunks(self) -> list[Hunk] | None:
        """Pending: from the file as it is to what is proposed. Modified: from what was proposed to what runs.

        ``None`` if there is nothing to compare: then the payload is what must be seen.
        """

    @property
    def revised(self) -> Revised | None:
        """The revision before this one, where :attr:`Proposal.revises` names one that is still kept."""
    @property
    def odd(self) -> list[Odd]:
        """What should make the operator look twice."""
    @property
    def review_sha256(self) -> str:
        """The hash that a decision names; ``docs/states.md`` says what it covers."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Change:
    """One step in a proposal's life. ``seq`` grows; remember it to go on from there."""

    @property
    def seq(self) -> int:
        """Its number."""
    @property
    def kind(self) -> ChangeKind:
        """``proposed, approved, modified, rejected, expired, withdrawn, applied, apply_failed, asked, answered`` or
        ``archived``.
        """

    @property
    def proposal_id(self) -> str:
        """The proposal that it is a step of."""
    @property
    def bottle_slug(self) -> str:
        """The bottle that asked."""
    @property
    def tool(self) -> str:
        """What was asked for."""
    @property
    def at(self) -> str:
        """When it happened."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Grant:
    """Leave to do a thing again without asking. ``scope`` is ``once``, ``uses``, ``until`` or ``bottle``."""

    @property
    def id(self) -> str:
        """UUIDv7."""
    @property
    def bottle_slug(self) -> str:
        """The bottle that it is for."""
    @property
    def tool(self) -> str:
        """The tool that it is for."""
    @property
    def fingerprint(self) -> str:
        """What it is about; see :class:`GrantStore`."""
    @property
    def scope(self) -> Scope:
        """``once``, ``uses``, ``until`` or ``bottle``."""
    @property
    def uses(self) -> int | None:
        """As given; ``uses_left`` is what is left of it."""

    @property
    def uses_left(self) -> int | None:
        """How many uses are left; ``None``: they are not counted."""
    @property
    def expires_at(self) -> str | None:
        """When it ends; ``None``: not by itself."""
    @property
    def proposal_id(self) -> str | None:
        """The proposal whose approval made it."""
    @property
    def created_at(self) -> str:
        """When it was made."""
    @property
    def created_by(self) -> str:
        """Who made it."""
    @property
    def last_used_at(self) -> str | None:
        """When it was last used, if it was."""
    @property
    def revoked_at(self) -> str | None:
        """When it was revoked, if it was."""
    @property
    def revoked_by(self) -> str | None:
        """Who revoked it."""
    @property
    def live(self) -> bool:
        """Could be used now: not revoked, run out, expired, nor its bottle stopped."""

    @property
    def key_id(self) -> str:
        """The key that signed it, as :attr:`TrustedKey.id`."""
    @property
    def signature(self) -> str:
        """The signature of its statement (docs/statements.md), base64."""
    @property
    def damaged(self) -> str | None:
        """In a list: why it allows nothing, as its row is not as it was signed."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Bottle:
    """A registered bottle. ``files`` maps tool to the absolute path of its managed file."""

    @property
    def slug(self) -> str:
        """Its name."""
    @property
    def backend(self) -> str:
        """What runs it, such as ``docker``."""
    @property
    def started_at(self) -> str:
        """When it was last started."""
    @property
    def stopped_at(self) -> str | None:
        """When it was stopped; ``None`` while it runs."""
    @property
    def files(self) -> dict[str, str]:
        """Tool → absolute path of its managed file."""
    @property
    def pending(self) -> int:
        """How many of its proposals wait for a decision."""
    @property
    def damaged(self) -> str | None:
        """Why nothing of its rows is taken (``files`` is empty then); ``None`` if this host signed them."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Wait:
    """A wait under way without a thread of its own; see :meth:`QueueStore.begin_wait`."""

    def cancel(self) -> None:
        """Ends it; its callback is not called any more. Idempotent."""

@final
class Broker:
    """The way to the host's broker (``bot-bottle serve``), for the stores of one bottle's sidecar.

    Stores that are given the same one share its connections, and all their waits one thread.

    Connects to nothing yet.

    Args:
        url: ``http://host:port``, ``https://host:port`` or ``http+unix:///path/of/the.sock``.
        token_file: holds the bottle's token; read for each request, so a new token counts at once.
        cert_file: PEM. An https broker must have one of its certificates; names, dates and authorities do not
            count.

    Raises:
        InvalidInputError: no such URL, or https without a certificate that can be read.
    """

    def __new__(
        cls, url: str, token_file: str | PathLike[str], cert_file: str | PathLike[str] | None = None
    ) -> Broker: ...
    @property
    def url(self) -> str:
        """The URL as given."""
    def probe(self) -> dict[str, Any]:
        """Asks once, without patience, and measures.

        ``url, bottle, version, round_trip_ms, clock_ahead_seconds``.
        ``clock_ahead_seconds`` is by how much this clock is ahead of the host's, which judges expiries.

        Raises:
            AccessDeniedError, DatabaseUnavailableError
        """

@final
class QueueStore:
    """The queue of one bottle, as its sidecars use it.

    Opens nothing yet.

    Args:
        queue_key: the bottle's slug: ``[a-z0-9][a-z0-9._-]{0,62}``.
        broker: instead of ``db_path``; its token must speak for this bottle.
        operator_keys: the file of the keys that a decision must be signed by (``Keys.keyring_file``). Then
            everything that gives an answer raises ``AuditIntegrityError`` for one that none of them signed, for
            just what was asked. Without it, what the file or the broker says is taken.

    Raises:
        InvalidProposalError: the key breaks that rule.
        InvalidInputError: both ``db_path`` and ``broker``.
    """

    def __new__(
        cls,
        queue_key: str,
        db_path: str | PathLike[str] | None = None,
        *,
        broker: Broker | None = None,
        operator_keys: str | PathLike[str] | None = None,
    ) -> QueueStore: ...
    @property
    def queue_key(self) -> str:
        """The slug of the bottle whose queue it is."""
    @property
    def db_path(self) -> str:
        """The file's path as given, absolute; over a broker its URL."""
    def write_proposal(self, proposal: Proposal) -> Proposal:
        """Queues it durably and returns the proposal that stands for it.

        That is ``proposal`` itself, or an older pending one with the same bottle, tool and content
        (and the same base file and fingerprint): then both ids lead to the one row and its one answer.
        Writing the same id and content again changes nothing. One that ``revises`` another is written as that
        one is withdrawn, for this requester, with the reason ``revised as <id>``.

        Raises:
            InvalidProposalError: it is of another bottle, its id exists with other content, 200 are pending already, or
                what it revises is for another tool or has the same content.
            NotFoundError, AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: what it revises has ended.
        """

    def read_proposal(self, proposal_id: str) -> Proposal | None:
        """The proposal in this queue, archived ones included, or ``None``."""

    def list_pending_proposals(self) -> list[Proposal]:
        """Undecided, unexpired, not withdrawn; oldest first. Each comes with its payload, of up to 1 MiB;
        to see what there is, :meth:`pending` takes a fraction of the time and memory.
        """

    def pending(self) -> list[InboxSummary]:
        """The same, and where each stands, without payloads."""

    def inspect(self, proposal_id: str) -> InboxItem | None:
        """The proposal and where it stands, for this queue only, or ``None``."""

    def list_items(self, *, limit: int = 100) -> list[InboxSummary]:
        """The queue's newest proposals of any state, newest first, archived ones included, without payloads."""

    def write_response(self, response: Response) -> Response:
        """Decides as :meth:`Inbox.decide` does, with surface ``api`` unless the response says otherwise.

        Raises: as :meth:`Inbox.decide`.
        """

    def read_response(self, proposal_id: str) -> Response | None:
        """The answer, after archiving too; ``None`` while there is none or its managed file is not yet written."""

    @overload
    def wait_for_response(self, proposal_id: str, timeout: float | None = None) -> Response:
        """Blocks until the answer is in effect and returns it, at once if it already is.

        While it blocks it keeps a lease, so that the operator sees somebody waiting. Woken by the
        writer's bell (well below a millisecond), or within a second where nobody rang.

        Args:
            timeout: seconds; ``None`` waits for ever, ``0`` only looks.
            wake_on_question: return, too, once the operator asks back: the first :class:`Message` that is not
                answered, at once if there is one. :meth:`answer` it and wait again, or wait for what comes
                ``after_question``, the id of a message that was seen.

        Raises:
            NotFoundError: no such proposal in this queue.
            ProposalExpiredError, ProposalWithdrawnError: it ended without an answer.
            StaleReviewError: decided, but its managed file had changed and was left alone.
            WaitTimeoutError: undecided after ``timeout``; it stays pending.
            DatabaseUnavailableError: its broker was never reached, for ``timeout`` but 5 s at least and 30 s at most.
                One that was reached and went away is waited for.
            ClosedError: :meth:`close` was called meanwhile.
            Exception: whatever a signal handler raised, within 50 ms (main thread).
        """
    @overload
    def wait_for_response(
        self,
        proposal_id: str,
        timeout: float | None = None,
        *,
        wake_on_question: bool = False,
        after_question: str | None = None,
    ) -> Response | Message:
        """Blocks until the answer is in effect and returns it, at once if it already is.

        While it blocks it keeps a lease, so that the operator sees somebody waiting. Woken by the
        writer's bell (well below a millisecond), or within a second where nobody rang.

        Args:
            timeout: seconds; ``None`` waits for ever, ``0`` only looks.
            wake_on_question: return, too, once the operator asks back: the first :class:`Message` that is not
                answered, at once if there is one. :meth:`answer` it and wait again, or wait for what comes
                ``after_question``, the id of a message that was seen.

        Raises:
            NotFoundError: no such proposal in this queue.
            ProposalExpiredError, ProposalWithdrawnError: it ended without an answer.
            StaleReviewError: decided, but its managed file had changed and was left alone.
            WaitTimeoutError: undecided after ``timeout``; it stays pending.
            DatabaseUnavailableError: its broker was never reached, for ``timeout`` but 5 s at least and 30 s at most.
                One that was reached and went away is waited for.
            ClosedError: :meth:`close` was called meanwhile.
            Exception: whatever a signal handler raised, within 50 ms (main thread).
        """

    @overload
    def begin_wait(
        self, proposal_id: str, callback: Callable[[Response | BaseException], object], timeout: float | None = None
    ) -> Wait:
        """Starts the same wait without blocking; ``callback`` is called once with what it would return or raise.

        The call comes from the process's one watcher thread, or from this one if the answer is
        there already; it must be short. A blocking wait inside it ends like any other, but all other waits of
        the process stand still meanwhile, and over a broker it needs a timeout. Once the interpreter ends
        (``atexit``) nobody is called, and a call that runs is given a second; before Python 3.14 one that takes
        longer aborts the process.
        ``AsyncQueueStore`` builds on this.
        """
    @overload
    def begin_wait(
        self,
        proposal_id: str,
        callback: Callable[[Response | Message | BaseException], object],
        timeout: float | None = None,
        *,
        wake_on_question: bool = False,
        after_question: str | None = None,
    ) -> Wait:
        """Starts the same wait without blocking; ``callback`` is called once with what it would return or raise.

        The call comes from the process's one watcher thread, or from this one if the answer is
        there already; it must be short. A blocking wait inside it ends like any other, but all other waits of
        the process stand still meanwhile, and over a broker it needs a timeout. Once the interpreter ends
        (``atexit``) nobody is called, and a call that runs is given a second; before Python 3.14 one that takes
        longer aborts the process.
        ``AsyncQueueStore`` builds on this.
        """

    def answer(self, proposal_id: str, text: str, *, message_id: str | None = None) -> Message:
        """Answers what the operator asked back about a proposal; it stays pending, and the operator sees the answer.

        There is one answer to all that was asked so far, whoever of several requesters gives it.

        Args:
            text: up to 16 KiB, not blank.
            message_id: a UUID for it: the same answer under the same id again changes nothing. ``None`` makes one.

        Raises:
            NotFoundError: no such proposal in this queue.
            AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: it has ended.
            InvalidInputError: nothing was asked, or it is answered already; or the text breaks its rule.
        """

    def withdraw_proposal(self, proposal_id: str, reason: str = "withdrawn by the requester") -> None:
        """Takes it back; its waiters end with ``ProposalWithdrawnError``. One of several identical
        requests leaves the row to the others. Withdrawing twice is no error.

        Raises:
            NotFoundError, AlreadyDecidedError, ProposalExpiredError: it is not there to withdraw.
        """

    def archive_proposal(self, proposal_id: str) -> None:
        """Puts it away (a pending one is withdrawn first). Twice is no error.

        Raises:
            NotFoundError: no such proposal in this queue.
        """

    def close(self) -> None:
        """Ends this store's waits with ``ClosedError`` and releases it. Idempotent."""

    def __enter__(self) -> QueueStore: ...
    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None: ...

@final
class Inbox:
    """The operator's view across all bottles. Opening it finishes managed files that a crash left half done."""

    def __new__(cls, db_path: str | PathLike[str] | None = None) -> Inbox: ...
    @property
    def db_path(self) -> str:
        """The file's path as given, absolute."""
    def pending(self, bottle_slug: str | None = None) -> list[InboxSummary]:
        """Everything that can be decided now, oldest first, without payloads, at a cost that no archive raises."""

    def failed(self) -> list[InboxSummary]:
        """Decided, but the managed file is not in effect (``apply_state`` is ``failed`` or ``intended``)."""

    def read(self, proposal_id: str) -> InboxItem:
        """One proposal of any state, by its full id or a unique prefix of at least 4 characters.

        Raises:
            NotFoundError: none. InvalidInputError: several (``matches`` lists them), or too short.
        """

    def summary(self, proposal_id: str) -> InboxSummary:
        """The same as a list has it, without its payload.

        Raises: as :meth:`read`.
        """

    def review(self, proposal_id: str) -> Review:
        """All that must be seen of one proposal before it is decided; ``proposal_id`` as for :meth:`read`.

        Reads the managed file, of at most 4 MiB, and compares, for at most half a second.
        """

    def history(
        self, *, bottle_slug: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[InboxSummary]:
        """Proposals of any state, newest first, without payloads; ``before`` (an id) pages on."""

    def decide(
        self,
        proposal_id: str,
        status: Status,
        *,
        review_sha256: str | None = None,
        payload_sha256: str | None = None,
        notes: str = "",
        final_file: str | bytes | None = None,
        decided_by: str | None = None,
        surface: Surface = "api",
        grant: str | None = None,
    ) -> Response:
        """Decides, audits, makes the grant (one transaction), writes the managed file, wakes the waiters.

        Args:
            status: ``approved``, ``modified`` (with ``final_file``) or ``rejected``.
            review_sha256: :attr:`Review.review_sha256` of what the operator looked at.
            payload_sha256: instead of it, the hash of the payload alone, for a program that decides without a screen.
                It does not say where an approval writes to.
            decided_by: who; ``None`` is the operating system's user name.
            grant: ``once``, ``uses:N``, ``until:<RFC 3339>``, ``for:<seconds>`` or ``bottle`` (until it stops);
                needs an approval of a proposal with a fingerprint. After ``kind:``: for all of
                :attr:`Proposal.kind`. As ``prefix:for:<seconds> git status``: for commands that begin with these
                words, which are the first ones of :attr:`Proposal.words`.

        Raises:
            NotFoundError, AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: not to be decided.
            StaleReviewError: it is not what was reviewed, or the managed file changed since it was proposed.
            TypeError: neither hash is given, or both.
            InvalidInputError: nothing to modify for this tool, or it needs notes (``gitleaks-allow``,
                ``egress-token-allow``).
            ManagedFileError: decided, but the file could not be written.
        """

    def ask(
        self,
        proposal_id: str,
        text: str,
        *,
        asked_by: str | None = None,
        surface: Surface = "api",
        message_id: str | None = None,
    ) -> Message:
        """Asks back: whoever waits is told at once; the proposal stays pending, to be answered or revised.

        The question is signed, and its audit entry is written with it. A review of before the answer is stale.

        Args:
            proposal_id: the full id.
            text: up to 16 KiB, not blank; 16 questions about one proposal at most.
            asked_by: who; ``None`` is the operating system's user name.
            message_id: a UUID for it: the same question under the same id again changes nothing. ``None`` makes one.

        Raises:
            NotFoundError, AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError: nobody waits for it.
            InvalidInputError: nobody can answer for this tool (``egress-token-allow``, ``run-command``), there were 16
                questions already, or the text breaks its rule.
        """

    def watch(self, since: int | None = None, *, timeout: float | None = None) -> Watch:
        """An iterator of changes after ``since`` (a ``Change.seq``; ``None``: from now on, ``0``: all there are).

        It blocks between changes; with ``timeout`` it ends after that many seconds without one.
        """

    def last_change(self) -> int:
        """``seq`` of the newest change, 0 if there is none."""

    def changes(self, since: int = 0, *, limit: int = 1000) -> list[Change]:
        """Changes after ``since``, oldest first, without blocking."""

    def begin_watch(self, since: int, callback: Callable[[BaseException | None], object]) -> Wait:
        """Calls ``callback`` once as soon as there is a change after ``since``; from the watcher thread."""

    def stats(self) -> dict[str, Any]:
        """Counts by state, bottle, tool, ``waiting`` now; seconds of the oldest pending and newest 100 decisions."""

    def recover(self) -> int:
        """Finishes interrupted managed files now; how many. Opening the inbox does this."""

    def close(self) -> None:
        """Ends its use. Idempotent."""
    def __enter__(self) -> Inbox: ...
    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None: ...

@final
class Watch:
    """Iterator of :class:`Change`; a signal's exception passes through within 50 ms."""

    def __iter__(self) -> Watch: ...
    def __next__(self) -> Change: ...

@final
class AuditStore:
    """The append-only audit log."""

    def __new__(cls, db_path: str | PathLike[str] | None = None, *, broker: Broker | None = None) -> AuditStore: ...
    @property
    def db_path(self) -> str:
        """The file's path as given, absolute; over a broker its URL."""
    def write_audit_entry(self, entry: AuditEntry) -> AuditEntry:
        """Appends durably; returns it with ``seq`` and the chain's hashes."""

    def write_audit_entries(self, entries: Sequence[AuditEntry]) -> list[AuditEntry]:
        """Appends all or none, in one transaction."""

    def read_audit_entries(
        self,
        component: str | None = None,
        bottle_slug: str | None = None,
        *,
        since: str | datetime | None = None,
        limit: int | None = None,
    ) -> list[AuditEntry]:
        """Entries in order of writing. ``since``: only with a timestamp from it on; ``limit``: the newest so many."""

    def verify(self, *, head: str | None = None) -> AuditReport:
        """Recomputes the whole chain and holds it against the decisions, grants and applied files, in one snapshot.

        Args:
            head: a head noted earlier; it must be the hash of an entry in the log (detects a cut tail or a rebuilt
                chain).

        Raises:
            AuditIntegrityError: at the first entry that does not fit, ``seq`` names it; or rows and log do not say the
                same, and the message has the first difference.
        """

    def head(self) -> str:
        """Hash of the last entry, 64 zeros for an empty log."""

    def close(self) -> None:
        """Ends its use. Idempotent."""
    def __enter__(self) -> AuditStore: ...
    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None: ...

@final
class GrantStore:
    """Grants: what an approval allows again without asking.

    A grant is for one bottle, one tool and one fingerprint: an opaque text made by the sidecar
    (host + keyed hash of a token, rule + path + keyed hash of a secret), never the secret itself.

    Opens nothing yet; ``operator_keys`` as for :class:`QueueStore`.
    """

    def __new__(
        cls,
        db_path: str | PathLike[str] | None = None,
        *,
        broker: Broker | None = None,
        operator_keys: str | PathLike[str] | None = None,
    ) -> GrantStore: ...
    def find_grant(self, bottle_slug: str, tool: str, fingerprint: str) -> Grant | None:
        """Returns the live grant whose use would be spent next, or ``None``. Spends nothing.

        Raises:
            AuditIntegrityError: there is one, and none of ``operator_keys`` signed it.
        """

    def use_grant(self, bottle_slug: str, tool: str, fingerprint: str) -> Grant | None:
        """Spends one use of a live grant and returns it, or ``None``. Two processes never spend the same use.

        Raises:
            AuditIntegrityError: there is one, and none of ``operator_keys`` signed it.
        """

    def list_grants(self, bottle_slug: str | None = None, *, live: bool = True) -> list[Grant]:
        """Grants, newest first; with ``live`` only those usable now."""

    def revoke_grant(self, grant_id: str, *, revoked_by: str | None = None, surface: Surface = "api") -> Grant:
        """Ends it (audited), by full id or unique prefix.

        Raises:
            NotFoundError: none such. InvalidInputError: the prefix is ambiguous.
        """

    def close(self) -> None:
        """Ends its use. Idempotent."""

@final
class BottleStore:
    """Which bottles run, and their managed files. ``Supervise`` is the face for launching."""

    def __new__(cls, db_path: str | PathLike[str] | None = None) -> BottleStore: ...
    def register(
        self, slug: str, *, backend: str, files: Mapping[str, str | PathLike[str]] = ..., transport: Transport = "mount"
    ) -> Bottle:
        """Records a bottle as running (again) with its managed files, signed with this host's key.

        A relative path is under ``<root>/bottles/<slug>/`` and may not leave it.

        Raises:
            InvalidInputError: bad slug or tool; a path outside its directory, a symlink, or not a regular file.
        """

    def stop(self, slug: str, *, reason: str = "bottle stopped") -> int:
        """Marks it stopped, withdraws its pending proposals and revokes its tokens; how many proposals.

        Raises:
            NotFoundError: no such bottle.
        """

    def issue_token(self, slug: str) -> str:
        """A new token with which a running bottle's sidecars tell the broker which bottle they are.

        256 random bits as 43 characters of base64url (RFC 4648). Only its SHA-256 is kept. Older ones stay valid until
        the bottle stops.

        Raises:
            NotFoundError: no such bottle, or it has stopped.
        """

    def check_token(self, token: str) -> str | None:
        """The slug of the running bottle that ``token`` was issued to, or ``None``."""

    def list_bottles(self, *, running: bool = False) -> list[Bottle]:
        """Bottles by slug; with ``running`` only those not stopped."""

    def read_bottle(self, slug: str) -> Bottle | None:
        """The bottle, running or not, or ``None``."""
    def close(self) -> None:
        """Ends its use. Idempotent."""

@final
class TrustedKey:
    """A public key that is trusted, for what, and until when. Frozen, comparable, hashable, picklable."""

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the public key's 32 bytes."""
    @property
    def role(self) -> str:
        """``host`` (this one's own), ``operator`` (a person's) or ``trusted`` (another host's)."""
    @property
    def name(self) -> str:
        """Whose it is."""
    @property
    def public_key(self) -> str:
        """The Ed25519 public key (RFC 8032), base64."""
    @property
    def added_at(self) -> str:
        """Since when it is trusted."""
    @property
    def rotated_at(self) -> str | None:
        """Signs nothing new since then; what it signed stands."""
    @property
    def revoked_at(self) -> str | None:
        """What it signed later than this is refused."""
    @property
    def current(self) -> bool:
        """Neither rotated nor revoked."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name, JSON-ready."""

@final
class Keys:
    """The keys that this host signs with and trusts, in ``<root>/keys``; docs/statements.md has the formats.

    A database at another path (``db_path``) has its own, in ``<db_path>-keys``.
    """

    def __new__(cls, db_path: str | PathLike[str] | None = None) -> Keys: ...
    @property
    def host_file(self) -> Path:
        """This host's private key (0600), made when something is first signed."""
    @property
    def keyring_file(self) -> Path:
        """The public keys; sidecars get its directory read-only."""
    def all(self) -> list[TrustedKey]:
        """Every key, the former and the revoked too; empty before anything was signed. Creates nothing.

        Raises:
            KeyUnusableError: the keyring is not one, or not readable.
        """
    def rotate(self) -> TrustedKey:
        """Makes a new key for this host. The old private key is deleted; what it signed stands."""
    def trust(self, name: str, public_key: str | PathLike[str]) -> TrustedKey:
        """Trusts another host's decisions and grants. ``public_key`` is a file as for :meth:`add_operator`."""
    def revoke(self, key_id: str, *, at: str | datetime | None = None) -> TrustedKey:
        """From ``at`` on (RFC 3339; ``None``: now) nothing the key signs counts. An id may be shortened to 4 digits.

        Raises:
            NotFoundError: no such key. InvalidInputError: several, or this host's current one (rotate it first).
        """
    def add_operator(self, name: str, public_key: str | PathLike[str]) -> TrustedKey:
        """Trusts a person's key: what it signs is decided by ``name``.

        Args:
            public_key: a file with the public key as PEM or as OpenSSH writes it (``ssh-ed25519 …``).

        Raises:
            InvalidInputError: the name or the key is in use. KeyUnusableError: no such key in the file.
        """
    def make_operator(self, name: str) -> tuple[TrustedKey, Path]:
        """Makes a person's key pair; with the file (0600) of the private key, for ``$BOT_BOTTLE_OPERATOR_KEY``."""
    def remove_operator(self, name: str) -> TrustedKey:
        """Revokes the key of ``name`` now; earlier decisions stand.

        Raises:
            NotFoundError: no such operator.
        """

@final
class Transaction:
    """A write transaction over another program's own tables in the same file; see :meth:`Database.transaction`."""

    def execute(
        self, sql: str, params: Sequence[_SqlValue] | Mapping[str, _SqlValue] | None = None
    ) -> list[dict[str, _SqlValue]]:
        """Runs one statement and returns its rows.

        Raises:
            InvalidInputError: SQL that does not compile, returns two columns of one name, or writes to bot-bottle's own
                tables.
        """

    def __enter__(self) -> Transaction: ...
    def __exit__(self, exception_type: type[BaseException] | None = None, *_args: object) -> None: ...

@final
class Database:
    """The one SQLite file, as other programs and the ``db`` commands use it."""

    def __new__(cls, db_path: str | PathLike[str] | None = None) -> Database: ...
    @property
    def path(self) -> str:
        """The path as given."""

    @property
    def real_path(self) -> str:
        """The path with symlinks resolved; its directory is what sidecars mount."""

    def query(
        self, sql: str, params: Sequence[_SqlValue] | Mapping[str, _SqlValue] | None = None, *, timeout: float = 5.0
    ) -> list[dict[str, _SqlValue]]:
        """One read-only statement over the whole file; rows as dicts by column name.

        SQLite itself refuses writes, ``ATTACH`` and pragmas that set something.

        Raises:
            InvalidInputError: it does not compile, is not read-only, or returns two columns of one name.
            WaitTimeoutError: it ran for longer than ``timeout`` seconds.
        """

    def migrate(self, module: str, steps: Sequence[tuple[str, str]], *, compat: int | None = None) -> int:
        """Brings another program's own ``module`` to version ``len(steps)``, or leaves it at a later one that suits.

        Each step is (up SQL, down SQL). ``compat`` is the oldest version whose programs may go on using the file once
        these steps are applied; without it, only those that know all of them. Give the version before a step that only
        adds something. Returns the version the module is at.

        Raises:
            MigrationError: a step failed, or an applied one was edited.
            SchemaTooNewError: the file is ahead, and needs a program that knows more than these steps.
            InvalidInputError: the module's name is one of bot-bottle's, or ``compat`` is no version of these steps.
        """

    def transaction(self) -> Transaction:
        """A write transaction over other programs' tables: ``with`` commits at its end, rolls back on an error.

        A write by a store, or another transaction, inside it and on its thread would wait for itself, and is refused
        at once (``InvalidInputError``).
        """

    def migrate_all(self) -> dict[str, int]:
        """Creates or brings the file to this release's schema; module → version."""

    def rollback(self, module: str, *, to: int) -> str:
        """Takes one of bot-bottle's modules back to version ``to``; returns the path of the backup it took first."""

    def status(self) -> dict[str, Any]:
        """Where and what it is, without writing.

        ``exists, path, real_path, filesystem, mount_safe, size_bytes, wal_bytes, sqlite_version`` and ``modules``
        (module → ``{found, compat, supported}``: its version, the oldest one whose programs may use it, and the one
        this release knows, ``None`` for another program's).
        """

    def check(self) -> list[str]:
        """What is wrong, in sentences; empty if sound.

        SQLite's integrity and foreign-key checks, the schema, the audit chain, rows against log in both directions, and
        each registration, decision and grant whose signature does not verify. What is wrong with rows is left in the
        audit log, once.
        """

    def backup(self, destination: str | PathLike[str]) -> int:
        """Online copy (0600) while others write; returns its bytes.

        Raises:
            InvalidInputError: the destination exists.
        """

    def restore(self, source: str | PathLike[str]) -> str:
        """Replaces the content with a sound backup's, after one more backup whose path it returns."""

    def prune(self, *, older_than: float) -> int:
        """Deletes proposals archived or ended more than ``older_than`` seconds ago; how many. Never the audit log."""

    def prunable(self, *, older_than: float) -> int:
        """How many proposals ``prune`` would delete now."""

    def ring_test(self, *, timeout: float = 2.0) -> float:
        """Rings a bell of its own and returns the seconds until this process heard it.

        Raises:
            WaitTimeoutError: it never did: waits here rely on the one-second heartbeat.
        """

    def close(self) -> None:
        """Ends its use. Idempotent."""
    def __enter__(self) -> Database: ...
    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None: ...
