"""Is an operator told what is odd about a name before a bottle may reach it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from bot_bottle import BottleStore, Inbox, QueueStore
from bot_bottle.operator import new_hosts
from store_process import SLUG, proposal


def told(db: Path, queue: QueueStore, file: Path, before: str, after: str) -> list[str]:
    """What is said of a change of ``routes.yaml``."""
    file.write_text(f"routes:\n{before}" if before else "routes: []\n")
    BottleStore(db).register(SLUG, backend="docker", files={"egress-allow": str(file)})
    written = queue.write_proposal(proposal(f"routes:\n{before}{after}", tool="egress-allow"))
    with Inbox(db) as inbox:
        return [text for text, _ in new_hosts.remarks(inbox.review(written.id))]


@pytest.mark.parametrize(
    "host, said",
    [
        ("93.184.216.34", "IP address"),
        ('"[2606:2800:220:1::1]"', "IP address"),
        ("pypl.org", "looks like pypi.org"),
        ("pypi.orq", "looks like pypi.org"),
        ("pyp1.org", "looks like pypi.org"),
        ("ppyi.org", "looks like pypi.org"),
        ("registry.npmjs.orgg", "looks like registry.npmjs.org"),
        ("api.githubb.com", "looks like api.github.com"),
        ("api.gith-ub.com", "looks like api.github.com"),
        ("s2.exarnple.com", "looks like s2.example.com"),
        ("xn--pypi-4ve.org", "other letters"),
        ('"*.example.net"', "every name below example.net"),
        ("h.example\n    tunnel: true", "passes unopened"),
        ("h.example\n    dlp: {outbound_detectors: false}", "Nobody looks for secrets"),
    ],
)
def test_what_is_odd_about_a_name_is_said(db: Path, queue: QueueStore, tmp_path: Path, host: str, said: str) -> None:
    lines = told(db, queue, tmp_path / "routes.yaml", "  - host: s2.example.com\n", f"  - host: {host}\n")
    assert any(said in each for each in lines), lines
    assert lines[-1] == "So far this bottle may reach s2.example.com."


def test_an_ordinary_name_is_new_and_nothing_else(db: Path, queue: QueueStore, tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    for host in ("pypi.org", "s3.example.com", "docs.rs"):
        lines = told(db, queue, file, "  - host: s2.example.com\n", f"  - host: {host}\n")
        assert lines == [f"{host} is new to this bottle.", "So far this bottle may reach s2.example.com."]
    assert told(db, queue, file, "", "  - host: docs.rs\n")[-1] == "So far this bottle may reach nothing."


def test_what_opens_nothing_or_cannot_be_read_is_not_remarked_on(db: Path, queue: QueueStore, tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    assert told(db, queue, file, "  - host: a.example\n", "") == []
    assert told(db, queue, file, "  - host: a.example\n", "  - hosts: nonsense\n") == []
