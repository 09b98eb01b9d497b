"""Which errors does bot-bottle raise, what should you do about each, and which exit code does a program end with?

Every error is a :class:`BotBottleError`. Where a built-in exception fits, it is a second base, so
``except TimeoutError`` or ``except LookupError`` work as a reader expects. The message is one
sentence that names the thing and the way out; what a program needs is on attributes (each class
lists its own; one that is ``None`` says nothing about this error). All of them pickle. The Rust core
raises these very classes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _rebuild(cls: type[BotBottleError], message: str, data: dict[str, Any]) -> BotBottleError:
    return cls(message, **data)


class BotBottleError(Exception):
    """Base of every error of this package; raised itself only where no class below fits."""

    exit_code = 1

    def __init__(self, message: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self._data = data
        for name, value in data.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self.message, self._data))


class InvalidInputError(BotBottleError, ValueError):
    """An argument is invalid; nothing was written. Correct it and call again.

    Attribute: ``matches``, the ids that a short id is the beginning of, if there are several."""

    exit_code = 2
    matches: list[str] | None = None


class InvalidProposalError(InvalidInputError):
    """A proposal or response breaks a rule (slug, size, encoding, cap); nothing was written."""


class NotFoundError(BotBottleError, LookupError):
    """No such proposal, bottle, grant or file. Check the id; ``bot-bottle pending`` lists them. Attribute: ``id``."""

    exit_code = 4
    id: str | None = None


class AlreadyDecidedError(BotBottleError):
    """Somebody decided first. Attributes: ``proposal_id, status, decided_by, surface, decided_at``, and ``archived``:
    whether the answer was put away since."""

    exit_code = 5
    proposal_id: str
    status: str
    decided_by: str
    surface: str
    decided_at: str
    archived: bool


class ProposalExpiredError(BotBottleError):
    """Its ``expires_at`` passed before a decision. Attributes: ``proposal_id, expires_at``."""

    exit_code = 5
    proposal_id: str
    expires_at: str


class ProposalWithdrawnError(BotBottleError):
    """Its requester withdrew it, somebody archived it, or its bottle was stopped.

    Attributes: ``proposal_id, withdrawn_at, reason``.
    """

    exit_code = 5
    proposal_id: str
    withdrawn_at: str
    reason: str


class StaleReviewError(BotBottleError):
    """What would run differs from what was reviewed: the payload's hash or the managed file has changed.

    Review it again, then decide again. Attributes: ``proposal_id`` (of one that was written already),
    ``expected, actual`` (SHA-256 hex, or ``None`` for a file that is absent), and the managed file's ``path``
    if that is what changed.
    """

    exit_code = 5
    proposal_id: str | None = None
    expected: str | None
    actual: str | None
    path: str | None = None


class WaitTimeoutError(BotBottleError, TimeoutError):
    """The wait's own timeout passed; the proposal stays pending. Also of a query that was stopped, and of a bell
    that was not heard. Attributes: ``proposal_id``, or the bells' ``path``."""

    exit_code = 6
    proposal_id: str | None = None
    path: str | None = None


class AuditIntegrityError(BotBottleError):
    """What the file says is not what was signed or logged: an entry of the audit log was edited, lost, moved or
    rebuilt, or a decision, a bottle's registration or a grant has no signature of a trusted key. Nothing was done
    because of it. Attribute: ``seq`` (of the entry)."""

    exit_code = 7
    seq: int | None


class SchemaTooNewError(BotBottleError):
    """A newer release changed the file beyond what this one may write; nothing was touched. Upgrade, or roll back
    with the newer release. Attributes: ``module``, the version ``found``, the oldest one whose programs may use it
    (``compat``), and the one that is ``supported`` here."""

    exit_code = 8
    module: str
    found: int
    compat: int
    supported: int


class MigrationError(BotBottleError):
    """A migration step failed (the step before it stands) or was edited after its release.
    Attributes: ``module, version``."""

    exit_code = 8
    module: str
    version: int


class DatabaseCorruptError(BotBottleError):
    """The file is not a sound SQLite database. Keep it, and ``bot-bottle db restore`` a backup."""

    exit_code = 8
    path: str


class UnsafeMountError(BotBottleError):
    """The database lies where sharing it would corrupt it; nothing was opened. Mount the directory
    (not the file), or use the broker. Attributes: ``path, filesystem``."""

    exit_code = 8
    path: str
    filesystem: str


class DatabaseBusyError(BotBottleError):
    """Another writer held the database for longer than the busy timeout, or the service has more to do than it
    takes. Safe to retry. Attribute: ``path`` (of the database)."""

    exit_code = 9
    path: str | None = None


class WriteLostError(DatabaseBusyError):
    """The database, its WAL or the WAL's index was deleted, replaced or cut short while this process wrote.
    The write is not in the file that others read. The connection has been reopened. Safe to retry."""


class AccessDeniedError(BotBottleError, PermissionError):
    """The broker refused: the token is missing, wrong, revoked, or for another bottle."""

    exit_code = 10


class DatabaseUnavailableError(BotBottleError, OSError):
    """The database cannot be opened or written, or its broker cannot be reached. The message has the path
    or URL and the system's reason. Attribute: ``path``."""

    path: str


class ManagedFileError(BotBottleError, OSError):
    """The decision stands, but its managed file could not be written. It is tried again when an
    operator next opens the inbox. Attributes: ``proposal_id, path``."""

    proposal_id: str
    path: str


class KeyUnusableError(BotBottleError, OSError):
    """A key or the keyring cannot be used: missing, another machine's, unreadable, or readable by others. The
    message says which, and what to do. Attribute: ``path``."""

    path: str


class ClosedError(BotBottleError):
    """The store was closed, in this thread or another, while or before it was used."""
