"""Can an operator answer for a kind of secret and place at once, and does that answer cover nothing else?"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from bot_bottle import Proposal
from bot_bottle.operator import scopes
from cli_process import PROGRAMS
from egress_proxy import Answer, Proxy, Server, fresh, github_token, proxy, server

__all__ = ["fresh", "proxy", "server"]

API = "https://api.example.test"
KIND = "any GitHub token in the URL query of downloads from api.example.test"


def revoke_all(proxy: Proxy) -> list[str]:
    """Ends every grant; what each was about."""
    ended: list[str] = proxy.operator(
        "store = GrantStore(sys.argv[1])\n"
        "result = [store.revoke_grant(each.id).fingerprint for each in store.list_grants(live=True)]"
    )
    return ended


@pytest.fixture(autouse=True)
def ungranted(proxy: Proxy) -> Iterator[None]:
    """The proxy is shared, and no test may live on another's grants."""
    yield
    revoke_all(proxy)


def signed(path: str = "/asset") -> str:
    """A URL as nobody has seen it before."""
    return f"{API}{path}?response-content-type=application%2Foctet-stream&sig={github_token()}"


def rejected(proxy: Proxy, request: subprocess.Popen[bytes]) -> None:
    """It was held and asked about, which is now answered with no."""
    proxy.decide("rejected")
    assert Answer.of(request).status == 403


def test_a_grant_of_a_kind_lets_fresh_signed_urls_pass_and_nothing_else(proxy: Proxy, server: Server) -> None:
    request = proxy.curl_started(signed())
    proposal = proxy.decide("approved", grant="kind:bottle")
    assert Answer.of(request).status == 200
    assert proposal["fingerprint"].endswith(f" | {KIND}")
    for path in ("/asset", "/another/place"):
        assert proxy.curl(signed(path)).status == 200, "another token, and nobody is asked"
        assert proxy.curl(signed(path), "--http2", "--head").status == 200
    assert len(server.exchanges) == 5
    others = [
        ("another method", signed(), "-X", "DELETE"),
        ("a body", signed(), "-X", "GET", "-d", "x"),
        ("another place", f"{API}/asset", "-H", f"x-key: {github_token()}"),
        ("another place besides", signed(), "-H", f"x-key: {github_token()}"),
        ("another encoding", f"{API}/asset?sig=" + "".join(f"%{ord(each):02X}" for each in github_token())),
        ("another host", signed().replace("api.", "auth.")),
    ]
    for what, *arguments in others:
        held = proxy.curl_started(*arguments)
        rejected(proxy, held)
        assert len(server.exchanges) == 5, what


def test_a_grant_of_a_kind_answers_for_those_that_wait_already(proxy: Proxy, server: Server) -> None:
    held = [proxy.curl_started(signed()) for _ in range(4)]
    waiting = proxy.wait_until_pending(4)
    assert len({each["fingerprint"].partition(" | ")[2] for each in waiting}) == 1
    proxy.decide("approved", grant="kind:uses:3")
    proxy.wait_until_pending(1)
    proxy.decide("rejected")
    assert sorted(Answer.of(each).status for each in held) == [200, 200, 200, 403]
    assert len(server.exchanges) == 3, "as many as the grant was for"
    covered = [
        item
        for item in proxy.operator("result = [item.to_dict() for item in inbox.history(bottle_slug='demo')]")
        if item["state"] == "withdrawn"
    ]
    assert [each["withdrawn_reason"] for each in covered[:2]] == ["a grant that was given meanwhile covers it"] * 2


def test_a_revoked_grant_of_a_kind_is_none(proxy: Proxy, server: Server) -> None:
    request = proxy.curl_started(signed())
    proxy.decide("approved", grant="kind:bottle")
    assert Answer.of(request).status == 200
    assert revoke_all(proxy) == [KIND]
    rejected(proxy, proxy.curl_started(signed()))
    assert len(server.exchanges) == 1


def test_a_value_that_the_proxy_injects_is_of_no_kind(proxy: Proxy) -> None:
    request = proxy.curl_started(f"{API}/?key={proxy.environment['API_TOKEN']}")
    assert " | " not in proxy.decide("rejected")["fingerprint"]
    assert Answer.of(request).status == 403


def test_the_question_is_a_sentence_that_says_how_often_it_was_asked(proxy: Proxy) -> None:
    url = signed()
    for count in (1, 2):
        request = proxy.curl_started(url)
        said = proxy.decide("approved")["justification"]
        assert Answer.of(request).status == 200
        assert said.startswith("demo wants to send its GitHub token to api.example.test in the URL query (GET request)")
        assert KIND in said
        assert ("It was not asked about before." in said) == (count == 1)
    assert "2 times so far" in said


def test_what_is_offered_names_the_kind() -> None:
    def asked(tool: str, fingerprint: str | None) -> Proposal:
        return Proposal.new("demo", tool, "a finding", fingerprint=fingerprint)

    kinds = [each for each in scopes.offered(asked("egress-token-allow", f"h:00 | {KIND}")) if KIND in each.words]
    assert [each.grant for each in kinds] == ["kind:for:3600", "kind:for:28800", "kind:bottle"]
    for tool, fingerprint in (("egress-token-allow", "h:00"), ("gitleaks-allow", f"h:00 | {KIND}")):
        assert not [each for each in scopes.offered(asked(tool, fingerprint)) if "kind" in str(each.grant)]


@pytest.mark.parametrize("surface", ["--json", "--yes"])
def test_a_group_is_approved_with_one_command(proxy: Proxy, server: Server, surface: str) -> None:
    held = [proxy.curl_started(signed()) for _ in range(3)]
    other = proxy.curl_started(f"{API}/", "-d", github_token())
    first = next(each for each in proxy.wait_until_pending(4) if each["fingerprint"].endswith(KIND))
    command = [PROGRAMS / "bot-bottle", "approve", first["id"], "--group", "--notes", "a release's files", surface]
    environment = {**os.environ, "BOT_BOTTLE_ROOT": str(proxy.directory)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if surface == "--json":
        assert [each["status"] for each in json.loads(done.stdout)] == ["approved"] * 3
    assert [Answer.of(each).status for each in held] == [200] * 3
    rejected(proxy, other)
    assert len(server.exchanges) == 3
    rejected(proxy, proxy.curl_started(signed()))
