"""Is what docs/broker.md says of routes, limits, options and commands true?"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable

from bot_bottle.web.broker import openapi
from bot_bottle.web.limits import Limits
from broker_process import Broker, client, long_poll, proposed, refused, token
from checkout import CHECKOUT
from cli_process import Host
from store_process import eventually

DOCUMENT = (CHECKOUT / "docs" / "broker.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = DOCUMENT.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


def test_the_limits_are_those_of_the_broker() -> None:
    documented = {row[0]: float(row[1]) for row in rows("Limits") if row[0]}
    assert documented == {name: float(value) for name, value in Limits()._asdict().items()}


def test_the_routes_are_those_of_the_openapi_document() -> None:
    offered = [
        f"{method.upper()} {path}"
        for path, methods in openapi.document(Limits())["paths"].items()
        for method in methods
    ]
    assert sorted(row[0] for row in rows("Routes") if row[0]) == sorted(offered)


def test_the_options_are_those_of_serve(host: Host) -> None:
    explained = host.run("serve", "--help").stdout
    documented = [row[0] for row in rows("Start it") if row[0].startswith("--")]
    assert len(documented) == 3
    for option in documented:
        assert re.search(rf"^ +{option} ", explained, re.MULTILINE), option


def test_the_statuses_of_the_classes_are_those_of_the_openapi_document() -> None:
    documented = {int(status) for row in rows("Errors") for status in re.findall(r"\d{3}", row[0])}
    answered = {
        int(status)
        for methods in openapi.document(Limits())["paths"].values()
        for operation in methods.values()
        for status in operation["responses"]
    }
    assert documented == answered - {200, 204}


def test_the_commands_run(serve: Callable[..., Broker], host: Host) -> None:
    (starts,) = re.findall(r"^    (bot-bottle bottle start .*)$", DOCUMENT, re.MULTILINE)
    (asks,) = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    serve()
    script = f"set -e\n{starts}\n{asks}".replace("$HOME/.bot-bottle", "$BOT_BOTTLE_ROOT")
    done = subprocess.run(["bash", "-c", script], env=host.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo, as its token says" in done.stdout and '"transport":"broker"' in done.stdout
    assert done.stdout.endswith(host.run("--version").stdout.split()[-1] + '"}')


def test_the_problem_and_the_line_of_the_log_are_of_the_kind_that_is_shown(broker: Broker) -> None:
    shown, line = (
        json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    )
    with client(broker) as nobody:
        assert refused(nobody.get("/v1/bottle"), 401, "AccessDeniedError") == shown
    secret = token()
    with client(broker, secret) as demo:
        one = proposed(demo)
    assert asyncio.run(long_poll(broker.port, secret, one.id, 0.1)) == {"pending": True}
    eventually(lambda: len(broker.requests()) == 3)
    assert broker.requests()[-1].keys() == line.keys()
