"""How is the egress proxy launched: from which settings, with which of mitmproxy's parts?

``python -m bot_bottle.sidecars.egress``. mitmproxy runs inside this process with a handful of its addons: no flow is
kept or dumped, and none of its log lines, which quote traffic, is printed once it serves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import certifi
from mitmproxy import options
from mitmproxy.addons import core, disable_h2c, proxyserver, tlsconfig
from mitmproxy.master import Master

from bot_bottle import AsyncQueueStore, AuditStore, GrantStore
from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.sidecars import stores
from bot_bottle.sidecars.egress.addon import MAX_HELD, Egress
from bot_bottle.sidecars.egress.backlog import Backlog
from bot_bottle.sidecars.egress.layers import Protocols
from bot_bottle.sidecars.egress.network import GuardedLoop, Network
from bot_bottle.sidecars.egress.record import Audit, Record
from bot_bottle.sidecars.egress.routes_file import RoutesFile
from bot_bottle.sidecars.egress.secrets.detectors import cleaned
from bot_bottle.sidecars.egress.token_leave import Grants, Queue, TokenLeave

DEFAULT_PORT: Final = 8080
_ROUTES_LOOK: Final = 1.0  # seconds between looks at the routes' file while no request comes
_KEY_BYTES: Final = 32
_HOLD: Final = "EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS"

log = logging.getLogger("bot_bottle.egress")


@dataclass(frozen=True)
class Settings:
    """What the launch says; ``docs/egress.md`` has each variable."""

    slug: str
    way: stores.Way
    routes_file: str
    host: str
    port: int
    confdir: Path
    key_file: Path
    ca_cert_file: str
    upstream_ca_file: str
    ports: frozenset[int]
    hold: float
    network: Network

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """From environment variables; an empty one counts as unset.

        Raises:
            InvalidInputError: one is missing or not as documented.
        """

        def text(name: str, default: str = "") -> str:
            return environment.get(name) or default

        slug = text("SUPERVISE_BOTTLE_SLUG")
        if not slug:
            raise InvalidInputError("SUPERVISE_BOTTLE_SLUG is not set: it names the bottle whose egress this is.")
        confdir = Path(text("EGRESS_CONFDIR", "/var/lib/egress"))
        return cls(
            slug=slug,
            way=stores.way(environment),
            routes_file=text("EGRESS_ROUTES_FILE", "/run/bottle/routes.yaml"),
            host=text("EGRESS_HOST", "0.0.0.0"),  # noqa: S104 - the agent's container is another host
            port=int(_number("EGRESS_PORT", text("EGRESS_PORT", str(DEFAULT_PORT)), 0, 65535)),
            confdir=confdir,
            key_file=Path(text("EGRESS_FINGERPRINT_KEY_FILE", str(confdir / "fingerprint.key"))),
            ca_cert_file=text("EGRESS_CA_CERT_FILE"),
            upstream_ca_file=text("EGRESS_UPSTREAM_CA_FILE"),
            ports=frozenset(
                int(_number("EGRESS_PORTS", each, 1, 65535)) for each in text("EGRESS_PORTS", "80,443").split(",")
            ),
            hold=_number(_HOLD, text(_HOLD, "300"), 1, 86400),
            network=Network.parse(text("EGRESS_PRIVATE_NETWORKS"), text("EGRESS_CONNECT_TO")),
        )


def open_stores(slug: str, way: stores.Way) -> tuple[Queue, Grants, Audit]:
    """The stores this sidecar uses, in the mounted file or over the broker."""
    return AsyncQueueStore(slug, **way), GrantStore(**way), AuditStore(**way)


def fingerprint_key(path: Path) -> bytes:
    """The key of this installation's fingerprints; made on first use, readable by its owner alone.

    Raises:
        InvalidInputError: the file cannot be made or read, or holds too little.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
        except FileExistsError:
            pass
        key = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"EGRESS_FINGERPRINT_KEY_FILE {path}: {error.strerror}.") from None
    if len(key) < _KEY_BYTES:
        raise InvalidInputError(f"{path} holds less than {_KEY_BYTES} bytes; remove it and a new key is made.")
    return key


async def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises:
        InvalidInputError: it cannot listen, or a file it needs cannot be used.
    """
    try:
        settings.confdir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"EGRESS_CONFDIR {settings.confdir}: {error.strerror}.") from None
    queue, grants, audit = open_stores(settings.slug, settings.way)
    record = Record(settings.slug, audit)
    leave = TokenLeave(settings.slug, queue, grants, fingerprint_key(settings.key_file), settings.hold)
    routes = RoutesFile(
        settings.routes_file, lambda action, sentence: record.audit(action, cleaned(sentence, {}), always=True)
    )
    egress = Egress(routes, leave, record, settings.ports, environment)
    server = proxyserver.Proxyserver()
    master = Master(options.Options())
    master.addons.add(core.Core(), server, Protocols(), tlsconfig.TlsConfig(), disable_h2c.DisableH2C())
    master.addons.add(Backlog(server.connections), egress)
    master.options.update(
        confdir=str(settings.confdir),
        listen_host=settings.host,
        listen_port=settings.port,
        # The server is connected to once a request to it has been cleared, never before.
        connection_strategy="lazy",
        upstream_cert=False,
        rawtcp=False,
        stream_large_bodies=str(MAX_HELD),
        ssl_verify_upstream_trusted_ca=str(_trusted(settings)),
    )
    _publish_ca(settings)
    start = _Start(master, server)
    master.addons.add(start)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, master.should_exit.set)
    looking = asyncio.ensure_future(_keep_looking(routes))
    try:
        await master.run()
    finally:
        looking.cancel()
        await leave.stop()
        record.close()
    if start.problem:
        raise InvalidInputError(start.problem)


def main() -> int:
    """Runs the sidecar; returns its exit code."""
    _log_to_stderr()
    try:
        settings = Settings.read(os.environ)
        # Its own loop: what a name leads to is checked where asyncio looks it up.
        loop = GuardedLoop(settings.network)
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve(settings, os.environ))
    except BotBottleError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


class _Start:
    """The addon that says where the proxy listens, or why it does not."""

    def __init__(self, master: Master, server: proxyserver.Proxyserver) -> None:
        self._master = master
        self._server = server
        self.problem = ""

    def running(self) -> None:
        addresses = self._server.listen_addrs()
        if addresses:
            log.info("listening on port %d", addresses[0][1])
            return
        options, why = self._master.options, [each.last_exception for each in self._server.servers]
        reasons = {os.strerror(each.errno or 0) if isinstance(each, OSError) else str(each) for each in why}
        self.problem = f"cannot listen on {options.listen_host}:{options.listen_port}: {', '.join(reasons)}."
        self._master.should_exit.set()


async def _keep_looking(routes: RoutesFile) -> None:
    while True:
        routes.current()
        await asyncio.sleep(_ROUTES_LOOK)


def _trusted(settings: Settings) -> Path:
    """The certificates that servers are verified with: Mozilla's, and those of ``EGRESS_UPSTREAM_CA_FILE``."""
    if not settings.upstream_ca_file:
        return Path(certifi.where())
    bundle = settings.confdir / "upstream-ca.pem"
    try:
        ssl.create_default_context(cafile=settings.upstream_ca_file)
    except ssl.SSLError:
        raise InvalidInputError(f"EGRESS_UPSTREAM_CA_FILE {settings.upstream_ca_file} holds no certificate.") from None
    except OSError as error:
        raise InvalidInputError(f"EGRESS_UPSTREAM_CA_FILE {settings.upstream_ca_file}: {error.strerror}.") from None
    try:
        bundle.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + Path(settings.upstream_ca_file).read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{error.filename}: {error.strerror}.") from None
    return bundle


def _publish_ca(settings: Settings) -> None:
    """Copies the certificate that the agent has to trust, without its key, to where the agent can be given it."""
    if settings.ca_cert_file:
        try:
            Path(settings.ca_cert_file).write_bytes((settings.confdir / "mitmproxy-ca-cert.pem").read_bytes())
        except OSError as error:
            raise InvalidInputError(f"EGRESS_CA_CERT_FILE {error.filename}: {error.strerror}.") from None


def _number(name: str, text: str, smallest: int, largest: int) -> float:
    try:
        value = float(text) if name == _HOLD else int(text)
    except ValueError:
        value = smallest - 1
    if not smallest <= value <= largest:
        raise InvalidInputError(f"{name} is {text!r}: it is a number from {smallest} to {largest}.")
    return value


class _Discreet(logging.Formatter):
    """Of what mitmproxy and asyncio log, says only where it came from: the rest may quote what was sent."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == log.name:
            return f"egress: {record.getMessage()}"
        what = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else record.levelname.lower()
        return f"egress: {what} in {record.name}, line {record.lineno}"


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Discreet())
    handler.addFilter(lambda record: record.name == log.name or record.levelno >= logging.ERROR)
    logging.getLogger().addHandler(handler)
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
