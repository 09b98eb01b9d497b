"""How is a bottle launched, and how do today's users of ``bot_bottle.supervise`` go on? Public home of the value types.

The nine functions take the queue key first, as they always did; they work on the host's database
(:func:`host_db_path`). A sidecar, which sees it elsewhere, uses ``QueueStore(queue_key, db_path=…)``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from bot_bottle._native import (
    DB_PATH_IN_CONTAINER,
    STATUS_APPROVED,
    STATUS_MODIFIED,
    STATUS_REJECTED,
    TOOL_CAPABILITY_BLOCK,
    TOOL_EGRESS_ALLOW,
    TOOL_EGRESS_BLOCK,
    TOOL_EGRESS_TOKEN_ALLOW,
    TOOL_GITLEAKS_ALLOW,
    AuditEntry,
    AuditStore,
    Bottle,
    BottleStore,
    Database,
    Proposal,
    QueueStore,
    Response,
    bot_bottle_root,
    host_db_path,
    render_diff,
    sha256_hex,
)
from bot_bottle.backends import load
from bot_bottle.errors import InvalidInputError

__all__ = [
    "DB_PATH_IN_CONTAINER",
    "STATUS_APPROVED",
    "STATUS_MODIFIED",
    "STATUS_REJECTED",
    "TOOL_CAPABILITY_BLOCK",
    "TOOL_EGRESS_ALLOW",
    "TOOL_EGRESS_BLOCK",
    "TOOL_EGRESS_TOKEN_ALLOW",
    "TOOL_GITLEAKS_ALLOW",
    "AuditEntry",
    "Plan",
    "Proposal",
    "Response",
    "Supervise",
    "archive_proposal",
    "bot_bottle_root",
    "host_db_path",
    "list_pending_proposals",
    "read_audit_entries",
    "read_proposal",
    "read_response",
    "render_diff",
    "sha256_hex",
    "wait_for_response",
    "write_audit_entry",
    "write_proposal",
    "write_response",
]


@lru_cache(maxsize=64)
def _store_at(queue_key: str, db_path: str) -> QueueStore:
    return QueueStore(queue_key, db_path)


def _queue(queue_key: str) -> QueueStore:
    # By path: BOT_BOTTLE_ROOT may move it between two calls.
    return _store_at(queue_key, host_db_path())


def write_proposal(queue_key: str, proposal: Proposal) -> Proposal:
    """:meth:`QueueStore.write_proposal` on the host's database."""
    return _queue(queue_key).write_proposal(proposal)


def read_proposal(queue_key: str, proposal_id: str) -> Proposal | None:
    """:meth:`QueueStore.read_proposal` on the host's database."""
    return _queue(queue_key).read_proposal(proposal_id)


def list_pending_proposals(queue_key: str) -> list[Proposal]:
    """:meth:`QueueStore.list_pending_proposals` on the host's database."""
    return _queue(queue_key).list_pending_proposals()


def write_response(queue_key: str, response: Response) -> Response:
    """:meth:`QueueStore.write_response` on the host's database."""
    return _queue(queue_key).write_response(response)


def read_response(queue_key: str, proposal_id: str) -> Response | None:
    """:meth:`QueueStore.read_response` on the host's database."""
    return _queue(queue_key).read_response(proposal_id)


def wait_for_response(queue_key: str, proposal_id: str, *, timeout: float | None = None) -> Response:
    """:meth:`QueueStore.wait_for_response` on the host's database."""
    return _queue(queue_key).wait_for_response(proposal_id, timeout)


def archive_proposal(queue_key: str, proposal_id: str) -> None:
    """:meth:`QueueStore.archive_proposal` on the host's database."""
    _queue(queue_key).archive_proposal(proposal_id)


def write_audit_entry(entry: AuditEntry) -> AuditEntry:
    """:meth:`AuditStore.write_audit_entry` on the host's database."""
    return AuditStore().write_audit_entry(entry)


def read_audit_entries(component: str | None = None, slug: str | None = None) -> list[AuditEntry]:
    """:meth:`AuditStore.read_audit_entries` on the host's database."""
    return AuditStore().read_audit_entries(component, slug)


class Plan(NamedTuple):
    """How a bottle's sidecars are to be launched; ``bot_bottle.backends`` turns it into a tool's arguments.

    ``mounts`` are (host directory, directory in the container, ``rw`` or ``ro``) for the sidecars. The agent's own
    container gets none of them.
    """

    slug: str
    backend: str
    db_dir: str
    """Host directory that holds the database; mounted at ``/run/supervise`` where that is the transport."""
    bottle_dir: str
    """Host directory of the bottle's own files (``routes.yaml``, …), read-only in the sidecars."""
    environment: dict[str, str]
    user: str
    """``uid:gid`` of the host user, so that the sidecars can write the 0600 database."""
    mounts: tuple[tuple[str, str, str], ...]
    ports: dict[str, int]
    """Daemon to the port it listens on inside the bundle."""
    transport: str = "mount"
    """How the sidecars reach the queue: ``mount``, the database's directory, or ``broker``, the host's HTTP service."""
    why: str = ""
    """Why that transport, in a few words for the operator."""
    broker_url: str | None = None
    """With the broker: where the sidecars find it."""
    token_file: str | None = None
    """With the broker: host path of the 0600 file with the bottle's token."""


BOTTLE_DIR_IN_CONTAINER = "/run/bottle"
TOKEN_DIR_IN_CONTAINER = "/run/token"  # noqa: S105 (a path)
BROKER_DIR_IN_CONTAINER = "/run/broker"


class Supervise:
    """Registers bottles as running and plans the launch of their sidecars."""

    def __init__(self, db_path: str | PathLike[str] | None = None) -> None:
        self._database = Database(db_path)
        self._bottles = BottleStore(db_path)

    def prepare(
        self,
        slug: str,
        *,
        backend: str = "docker",
        files: Mapping[str, str | PathLike[str]] | None = None,
        transport: str | None = None,
    ) -> Plan:
        """Registers the bottle as running, with its managed files, and returns the plan for its sidecars.

        Args:
            files: tool to the host path of its managed file; a relative one is in ``<root>/bottles/<slug>/``.
            transport: ``mount`` or ``broker``; ``None`` is the mount where the backend's sidecars share this kernel,
                otherwise the broker. For the broker the bottle gets a token, which a second call keeps.

        Raises:
            InvalidInputError: bad slug, backend, tool, path or transport.
        """
        host = load(backend).HOST
        if transport not in (None, "mount", "broker"):
            raise InvalidInputError(f"transport must be mount or broker, not {transport!r}")
        if transport is None:
            transport = "mount" if host is None else "broker"
            kernel = "share this machine's kernel" if host is None else "run in a VM"
            why = f"because with {backend} the sidecars {kernel}"
        else:
            why = "as asked for"
        bottle = self._bottles.register(slug, backend=backend, files=files or {})
        bottle_dir = Path(bot_bottle_root(), "bottles", bottle.slug)
        bottle_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        db_dir = str(Path(self._database.real_path).parent)
        plan = Plan(
            slug=bottle.slug,
            backend=bottle.backend,
            db_dir=db_dir,
            bottle_dir=str(bottle_dir),
            environment={"SUPERVISE_BOTTLE_SLUG": bottle.slug},
            user=f"{os.getuid()}:{os.getgid()}",
            mounts=((str(bottle_dir), BOTTLE_DIR_IN_CONTAINER, "ro"),),
            ports={"supervise": 9100, "egress": 8080, "git-gate": 9418},
            transport=transport,
            why=why,
        )
        if transport == "broker":
            return self._with_broker(plan, host)
        return plan._replace(
            environment={**plan.environment, "SUPERVISE_DB_PATH": DB_PATH_IN_CONTAINER},
            mounts=((db_dir, str(Path(DB_PATH_IN_CONTAINER).parent), "rw"), *plan.mounts),
        )

    def _with_broker(self, plan: Plan, host: str | None) -> Plan:
        """The plan with a token, the broker's address and what is mounted for them. Directories: Apple's container
        mounts nothing else, and a file that is replaced would stay the old one in a mount of its own."""
        # Here, as no sidecar needs them.
        import ipaddress

        from bot_bottle.web import address

        broker = address.recall()
        token_file = self._token_file(plan.slug)
        environment = {**plan.environment, "SUPERVISE_TOKEN_FILE": f"{TOKEN_DIR_IN_CONTAINER}/{token_file.name}"}
        mounts = [*plan.mounts, (str(token_file.parent), TOKEN_DIR_IN_CONTAINER, "ro")]
        if host is None:
            socket = Path(broker.socket)
            socket.parent.mkdir(mode=0o700, exist_ok=True)
            url = f"http+unix://{BROKER_DIR_IN_CONTAINER}/{socket.name}"
            mounts.append((str(socket.parent), BROKER_DIR_IN_CONTAINER, "ro"))
        else:
            listens = ipaddress.ip_address(broker.host)
            # The name leads to the loopback; another address means the same from inside as here.
            url = broker.url(host if listens.is_loopback or listens.is_unspecified else None)
            if broker.tls:
                certificate = address.certificate_file()
                shutil.copy(certificate, token_file.parent)
                environment["SUPERVISE_TLS_CERT_FILE"] = f"{TOKEN_DIR_IN_CONTAINER}/{certificate.name}"
        environment["SUPERVISE_URL"] = url
        return plan._replace(environment=environment, mounts=tuple(mounts), broker_url=url, token_file=str(token_file))

    def _token_file(self, slug: str) -> Path:
        """The bottle's token in a file (0600) of a directory of its own (0700); one that is valid is kept, as sidecars
        that run already have it."""
        file = _token_dir(slug) / "token"
        if file.exists() and self._bottles.check_token(file.read_text(errors="replace")) == slug:
            return file
        file.parent.parent.mkdir(mode=0o700, exist_ok=True)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = file.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as token:
            token.write(self._bottles.issue_token(slug))
        fresh.replace(file)
        return file

    def stop(self, slug: str, *, reason: str = "bottle stopped") -> int:
        """Marks the bottle stopped, revokes its token and withdraws what it has pending; how many.

        Raises:
            NotFoundError: no such bottle.
        """
        withdrawn = self._bottles.stop(slug, reason=reason)
        shutil.rmtree(_token_dir(slug), ignore_errors=True)
        return withdrawn

    def list(self, *, running: bool = True) -> list[Bottle]:
        """The registered bottles by slug; with ``running`` only those not stopped."""
        return self._bottles.list_bottles(running=running)


def _token_dir(slug: str) -> Path:
    # Outside of every directory that is mounted for another bottle or another purpose.
    return Path(bot_bottle_root(), "tokens", slug)
