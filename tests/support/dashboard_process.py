"""How do the dashboard's tests run a real one, log in, and speak to it?"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bot_bottle.web.dashboard import login
from cli_process import PROGRAMS, Host


class Served:
    """``bot-bottle serve --operator --no-broker`` as a process, on a port of its own."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(PROGRAMS / "bot-bottle"), "serve", "--operator", "--no-broker", *(arguments or LISTEN)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=host.environment(),
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first.startswith("{"), first
        self.where: str = json.loads(first)["operator"]
        self.port = urlsplit(self.where).port or 0
        self.origin = f"http://127.0.0.1:{self.port}"

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=30)
        assert "Traceback" not in said
        return self.process.returncode


LISTEN = ("--operator-listen", "127.0.0.1:0")


class Operator(httpx.Client):
    """A browser that is logged in, as far as the server can tell."""

    def __init__(self, served: Served, **settings: Any) -> None:
        super().__init__(base_url=served.origin, timeout=30, trust_env=False, **settings)
        self.headers["Origin"] = served.origin
        secret = login.make_link(served.origin).partition("#")[2]
        answer = self.post("/api/v1/login", json={"link": secret})
        assert answer.status_code == 200, answer.text
        self.headers[login.PAGE_HEADER] = answer.json()["page_key"]

    def told(self, path: str) -> Any:
        """What a GET answers."""
        answer = self.get(f"/api/v1/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def decide(self, proposal_id: str, **decision: Any) -> httpx.Response:
        return self.post(f"/api/v1/proposals/{proposal_id}/decision", json=decision)


@pytest.fixture
def dashboard(host: Host) -> Iterator[Served]:
    """A dashboard in the test's root, which has to end well."""
    served = Served(host)
    yield served
    assert served.end() == 0


@pytest.fixture
def operator(dashboard: Served) -> Iterator[Operator]:
    with contextlib.closing(Operator(dashboard)) as logged_in:
        yield logged_in
