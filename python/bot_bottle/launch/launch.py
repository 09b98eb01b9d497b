"""Which bottles run, and what does one need to be launched? ``Supervise`` registers them and makes the plan."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from bot_bottle._native import (
    DB_PATH_IN_CONTAINER,
    TOOL_EGRESS_ALLOW,
    Bottle,
    BottleStore,
    Database,
    Keys,
    Proposal,
    bot_bottle_root,
)
from bot_bottle.errors import InvalidInputError
from bot_bottle.launch.backend import load
from bot_bottle.launch.plan import (
    BOTTLE_DIR_IN_CONTAINER,
    BROKER_DIR_IN_CONTAINER,
    KEYS_DIR_IN_CONTAINER,
    TOKEN_DIR_IN_CONTAINER,
    Plan,
)
from bot_bottle.states import Transport


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
        transport: Transport | None = None,
    ) -> Plan:
        """Registers the bottle as running, with its managed files, and returns the plan for its sidecars.

        Args:
            files: tool to the host path of its managed file; a relative one is in ``<root>/bottles/<slug>/``.
            transport: ``mount`` or ``broker``; ``None`` is the mount where the backend's sidecars share this kernel,
                otherwise the broker. For the broker the bottle gets a token, which a second call keeps.

        Raises:
            InvalidInputError: bad slug, backend, tool, path or transport.
        """
        plan, host = self._plan(slug, backend, transport)
        bottle = self._bottles.register(slug, backend=backend, files=files or {}, transport=plan.transport)
        bottle_dir = Path(plan.bottle_dir)
        for private in (bottle_dir.parent, bottle_dir):  # not parents=True: it makes them with the umask's mode
            private.mkdir(mode=0o700, exist_ok=True)
        if plan.transport == "broker":
            self._give_token(bottle.slug, host)
        return plan

    def preview(self, slug: str, *, backend: str = "docker", transport: Transport | None = None) -> Plan:
        """The plan that :meth:`prepare` would return; nothing is registered or written.

        Raises:
            InvalidInputError: as :meth:`prepare`.
        """
        Proposal.new(slug, TOOL_EGRESS_ALLOW, "routes: []\n", "")  # which refuses an invalid slug
        return self._plan(slug, backend, transport)[0]

    def _plan(self, slug: str, backend: str, transport: Transport | None) -> tuple[Plan, str | None]:
        host = load(backend).HOST
        if transport not in (None, "mount", "broker"):
            raise InvalidInputError(f"transport must be mount or broker, not {transport!r}")
        if transport is None:
            transport = "mount" if host is None else "broker"
            kernel = "share this machine's kernel" if host is None else "run in a VM"
            why = f"because with {backend} the sidecars {kernel}"
        else:
            why = "as asked for"
        bottle_dir = Path(bot_bottle_root(), "bottles", slug)
        db_dir = str(Path(self._database.real_path).parent)
        keyring = Path(Keys().keyring_file)
        plan = Plan(
            slug=slug,
            backend=backend,
            db_dir=db_dir,
            bottle_dir=str(bottle_dir),
            environment={
                "SUPERVISE_BOTTLE_SLUG": slug,
                "SUPERVISE_OPERATOR_KEY_FILE": f"{KEYS_DIR_IN_CONTAINER}/{keyring.name}",
            },
            user=f"{os.getuid()}:{os.getgid()}",
            # The public keys, of which the host makes the first with the registration; a directory, so that keys which
            # are added or revoked later are seen.
            mounts=(
                (str(bottle_dir), BOTTLE_DIR_IN_CONTAINER, "ro"),
                (str(keyring.parent), KEYS_DIR_IN_CONTAINER, "ro"),
            ),
            ports={"supervise": 9100, "egress": 8080, "git-gate": 9418},
            transport=transport,
            why=why,
        )
        if transport == "broker":
            return self._with_broker(plan, host), host
        shared = (db_dir, str(Path(DB_PATH_IN_CONTAINER).parent), "rw")
        environment = {**plan.environment, "SUPERVISE_DB_PATH": DB_PATH_IN_CONTAINER}
        return plan._replace(environment=environment, mounts=(shared, *plan.mounts)), host

    def _with_broker(self, plan: Plan, host: str | None) -> Plan:
        """The plan with the broker's address, and what is mounted for it and for the token. Directories: Apple's
        container mounts nothing else, and a file that is replaced would stay the old one in a mount of its own."""
        # Here, as no sidecar needs them.
        import ipaddress

        from bot_bottle.launch import address

        broker = address.recall()
        token_file = _token_dir(plan.slug) / "token"
        environment = {**plan.environment, "SUPERVISE_TOKEN_FILE": f"{TOKEN_DIR_IN_CONTAINER}/{token_file.name}"}
        mounts = [*plan.mounts, (str(token_file.parent), TOKEN_DIR_IN_CONTAINER, "ro")]
        if host is None:
            socket = Path(broker.socket)
            url = f"http+unix://{BROKER_DIR_IN_CONTAINER}/{socket.name}"
            mounts.append((str(socket.parent), BROKER_DIR_IN_CONTAINER, "ro"))
        else:
            listens = ipaddress.ip_address(broker.host)
            # The name leads to the loopback; another address means the same from inside as here.
            url = broker.url(host if listens.is_loopback or listens.is_unspecified else None)
            if broker.tls:
                environment["SUPERVISE_TLS_CERT_FILE"] = f"{TOKEN_DIR_IN_CONTAINER}/{address.certificate_file().name}"
        environment["SUPERVISE_URL"] = url
        return plan._replace(environment=environment, mounts=tuple(mounts), broker_url=url, token_file=str(token_file))

    def _give_token(self, slug: str, host: str | None) -> None:
        """Puts the bottle's token, and what else its sidecars find the broker by, where the plan says."""
        from bot_bottle.launch import address

        broker = address.recall()
        token_file = self._token_file(slug)
        if host is None:
            Path(broker.socket).parent.mkdir(mode=0o700, exist_ok=True)
        elif broker.tls:
            shutil.copy(address.certificate_file(), token_file.parent)

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
    # Outside of every directory that is mounted for another bottle or another purpose. The name is checked here too, as
    # this is where it becomes part of a path that is made and removed.
    if slug in ("", ".", "..") or "/" in slug or "\0" in slug:
        raise InvalidInputError(f"slug {slug!r} cannot be part of a path")
    return Path(bot_bottle_root(), "tokens", slug)
