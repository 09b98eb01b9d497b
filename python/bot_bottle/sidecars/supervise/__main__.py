"""How is the supervise sidecar configured, started and stopped? ``python -m bot_bottle.sidecars.supervise [--stdio]``.

It is the MCP server through which a bottle's agent asks its operator for changes; ``agent_tools`` is what it offers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import AsyncQueueStore, GrantStore, visible
from bot_bottle.errors import BotBottleError, DatabaseUnavailableError, InvalidInputError
from bot_bottle.launch.plan import BOTTLE_DIR_IN_CONTAINER
from bot_bottle.sidecars import stores

if TYPE_CHECKING:
    from bot_bottle.sidecars.supervise.agent_tools import AgentTools

_log = logging.getLogger("bot_bottle.supervise")


@dataclass(frozen=True)
class Settings:
    """What the launch says, in environment variables ``SUPERVISE_…``; ``docs/supervise.md`` lists them."""

    slug: str
    host: str
    port: int
    way: stores.Way
    files: Path
    wait: float
    silent_wait: float | None
    progress_every: float
    cooldown: float
    expires: float | None
    hook_wait: float
    proxy: str | None
    allowed_hosts: tuple[str, ...]

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Takes them from ``environment``; an empty value counts as unset.

        Raises:
            InvalidInputError: one is missing or invalid; the message names it.
        """

        def text(name: str, default: str) -> str:
            return environment.get(f"SUPERVISE_{name}") or default

        def seconds(name: str, default: float, least: float = 0.0) -> float:
            try:
                value = float(text(name, str(default)))
            except ValueError:
                value = math.nan
            if not least <= value < math.inf:
                raise InvalidInputError(f"SUPERVISE_{name} must be a number of seconds, at least {least:g}")
            return value

        slug = text("BOTTLE_SLUG", "")
        if not slug:
            raise InvalidInputError("SUPERVISE_BOTTLE_SLUG is not set; it names the bottle this sidecar serves")
        port = text("PORT", "9100")
        if not port.isdecimal() or int(port) > 65535:
            raise InvalidInputError(f"SUPERVISE_PORT is {port!r}; it must be a TCP port, or 0 for any free one")
        more_hosts = (host.strip() for host in text("ALLOWED_HOSTS", "").split(","))
        return cls(
            slug=slug,
            host=text("HOST", "0.0.0.0"),  # noqa: S104 (the agent is on another machine; Host and Origin are checked)
            port=int(port),
            way=stores.way(environment),
            files=Path(text("FILES_DIR", BOTTLE_DIR_IN_CONTAINER)),
            wait=seconds("WAIT_SECONDS", 30.0),
            silent_wait=seconds("SILENT_WAIT_SECONDS", 0.0) if text("SILENT_WAIT_SECONDS", "") else None,
            progress_every=seconds("PROGRESS_SECONDS", 5.0, least=0.05),
            cooldown=seconds("REJECTION_COOLDOWN_SECONDS", 600.0),
            expires=seconds("EXPIRES_SECONDS", 86400.0) or None,
            proxy=text("EGRESS_URL", "") or None,
            hook_wait=seconds("HOOK_SECONDS", 600.0, least=1.0),
            allowed_hosts=("supervise", "localhost", "127.0.0.1", "[::1]", *(host for host in more_hosts if host)),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="supervise", description="MCP server through which an agent asks its operator."
    )
    parser.add_argument("--stdio", action="store_true", help="speak MCP on standard input and output, not over HTTP")
    stdio = parser.parse_args(arguments).stdio
    _log_to_stderr()
    try:
        return asyncio.run(_serve(Settings.read(os.environ), stdio))
    except BotBottleError as error:
        _log.error("%s", error)
        return error.exit_code
    except ModuleNotFoundError as error:
        _log.error("the Python module %s is missing; install bot-bottle[supervise]", error.name)
        return 1
    except KeyboardInterrupt:
        return 130


async def _serve(settings: Settings, stdio: bool) -> int:
    # Here, not above: they need packages that only this sidecar has, whose absence main() explains.
    from bot_bottle.sidecars.supervise.agent_tools import AgentTools
    from bot_bottle.sidecars.supervise.mcp_server import serve_stdio

    async with _queue(settings) as queue:
        await queue.list_items(limit=1)  # fails now, with the reason, rather than at the agent's first call
        tools = AgentTools(
            queue,
            settings.slug,
            settings.files,
            wait=settings.wait,
            silent_wait=settings.silent_wait,
            progress_every=settings.progress_every,
            cooldown=settings.cooldown,
            expires=settings.expires,
            proxy=settings.proxy,
        )
        if stdio:
            await serve_stdio(tools)
            return 0
        return await _serve_http(tools, settings)


def _queue(settings: Settings) -> AsyncQueueStore:
    """The one place where this sidecar meets the store."""
    if path := settings.way.get("db_path"):
        directory = Path(path).parent
        if not os.access(directory, os.W_OK | os.X_OK):
            # Reading a missing database is not an error, and the first write would be too late to report it.
            reason = "cannot be written to" if directory.is_dir() else "does not exist"
            raise DatabaseUnavailableError(
                f"{directory} {reason}; mount the host's database directory there, as the host's user", path=path
            )
    return AsyncQueueStore(settings.slug, **settings.way)


async def _serve_http(tools: AgentTools, settings: Settings) -> int:
    import uvicorn

    from bot_bottle.sidecars.supervise.agent_hooks import AgentHooks
    from bot_bottle.sidecars.supervise.mcp_server import http_app

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # ours, below: uvicorn's would cut the streams before the waits have been answered

    hooks = AgentHooks(tools.queue, GrantStore(**settings.way), settings.slug, settings.hook_wait, tools.stopping)
    listening = _listen(settings.host, settings.port)
    server = Server(
        uvicorn.Config(
            http_app(tools, hooks, settings.allowed_hosts),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            http="h11",  # httptools, where it is installed, hands on the blanks around a header's value
            limit_concurrency=512,
            timeout_graceful_shutdown=5,
        )
    )
    code = 0

    def stop(number: signal.Signals) -> None:
        nonlocal code
        code = 130 if number == signal.SIGINT else 0
        tools.stopping.set()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    host, port = listening.getsockname()[:2]
    _log.info("bottle %s: MCP on http://%s:%s/", settings.slug, f"[{host}]" if ":" in host else host, port)
    await server.serve(sockets=[listening])
    return code


def _listen(host: str, port: int) -> socket.socket:
    # IPPROTO_TCP, which socket.create_server() leaves out: without it asyncio does not turn on TCP_NODELAY, and an
    # answer of two small writes waits 40 ms for the client's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise InvalidInputError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listening


class _OneVisibleLine(logging.Formatter):
    """What agents send ends up in log messages; no traceback and no control character reaches the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info and (error := record.exc_info[1]):
            message += f" ({type(error).__name__}: {error})"
        return f"supervise: {visible(message, multiline=False)}"


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneVisibleLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _log.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
