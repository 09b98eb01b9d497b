"""How does an operator start and stop the sidecars of a bottle?"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from bot_bottle import BottleStore
from bot_bottle.cli.bottles import bottles
from bot_bottle.cli.declare import MisuseError, OneOf, argument, group, option
from bot_bottle.cli.options import json_option, tool_file, yes_option
from bot_bottle.cli.screen import confirm, print_json, say
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.launch import address, client, credentials, docker, managed
from bot_bottle.launch import image as images
from bot_bottle.launch.backend import IMAGE, NAMES, load, names
from bot_bottle.operator.known import bottle as is_bottle
from bot_bottle.policy import bypass
from bot_bottle.states import Transport
from bot_bottle.supervise import Plan, Supervise

_run_option = option("--run/--print", "run", help="Run the commands, or print them for a shell to run (the default).")


@group()
def bottle() -> None:
    """Start, stop and list bottles.

    \b
      bot-bottle bottle start dev --run
      bot-bottle bottle list
      bot-bottle bottle stop dev --run
    """


@bottle.command(begins=True, writes=True)
@argument("slug")
@option("--backend", type=OneOf(*NAMES), default="docker", help="What runs the sidecars.")
@option(
    "--file",
    "files",
    type=tool_file,
    metavar="TOOL=PATH",
    multiple=True,
    help="What TOOL's approved proposals replace, to begin with: a file of yours, which is copied. Repeatable.",
)
@option(
    "--transport",
    type=OneOf("mount", "broker"),
    help="How the sidecars reach the queue; by default what the backend allows.",
)
@option("--image", metavar="IMAGE", default=IMAGE, help="What the sidecars run from.")
@option("--env", "passed", metavar="NAME", multiple=True, help="A variable of yours for the sidecars. Repeatable.")
@option("--compose", "agent_image", metavar="AGENT_IMAGE", help="Print a Compose file of the whole bottle instead.")
@_run_option
@json_option
def start(
    slug: str,
    backend: str,
    files: Sequence[tuple[str, str]],
    transport: Transport | None,
    image: str,
    passed: Sequence[str],
    agent_image: str | None,
    run: bool,
    as_json: bool,
) -> None:
    """Register a bottle, and print or run what starts its sidecars.

    \b
      bot-bottle bottle start dev --file egress-allow=routes.yaml
      bot-bottle bottle start dev --env GITHUB_TOKEN --run
      bot-bottle bottle start dev --compose my-agent > compose.json
    """
    if agent_image is not None and (run or backend != "docker"):
        raise MisuseError("--compose prints, and only for the docker backend")
    import shlex

    if run:
        credentials.require(passed)
        if backend == "docker" and shutil.which("docker"):
            images.require(image)
    tool = load(backend)
    supervise = Supervise()
    sources = {tool: managed.Source(slug, tool, path) for tool, path in files}
    known = BottleStore().read_bottle(slug)
    was_running = known is not None and known.stopped_at is None
    own = {tool: source.own for tool, source in sources.items()}
    plan = supervise.prepare(slug, backend=backend, files=own, transport=transport)
    _explain(plan)
    try:
        for source in sources.values():
            if source.place():
                print(f"{slug}: {source.path} was copied to {source.own}, which approvals replace", file=sys.stderr)
        if agent_image is not None:
            print_json(docker.compose(plan, image=image, agent_image=agent_image, passed=passed))
            return
        commands = tool.start(plan, image=image, passed=passed)
        if run:
            _run_all(commands)
    except BaseException:
        # What does not run is not to be listed; but what ran before, the command just refused to start twice.
        if not was_running:
            _run_all(tool.stop(slug) if run else [], undo=True)
            supervise.stop(slug)
        raise
    agent = [*tool.agent(plan), "AGENT_IMAGE"]
    if as_json:
        print_json(
            {
                "slug": slug,
                "backend": backend,
                "transport": plan.transport,
                "broker_url": plan.broker_url,
                "started": run,
                "commands": commands,
                "agent": agent,
            }
        )
    elif run:
        say(
            f"{slug} is starting, 'bot-bottle bottles' says when it is healthy; "
            f"its agent runs with: {shlex.join(agent)}"
        )
    else:
        _print_all(commands)
        say(f"# then its agent: {shlex.join(agent)}")


@bottle.command(writes=True)
@argument("slug")
@_run_option
@yes_option
@json_option
def stop(slug: str, run: bool, yes: bool, as_json: bool) -> None:
    """End a bottle: withdraw what is pending, and print or run what stops its sidecars.

    \b
      bot-bottle bottle stop dev --run    # asks first
      bot-bottle bottle stop dev --yes | sh
    """
    known = BottleStore().read_bottle(slug)
    if known is None:
        is_bottle(slug)
        raise NotFoundError(f"bottle {slug!r} was never started from here, so there is nothing to stop")
    working = run and known.backend == "docker" and _agent_runs(slug)
    if known.stopped_at is None:
        pending = f"{known.pending} pending proposals are" if known.pending != 1 else "1 pending proposal is"
        confirm(
            f"Stop {slug}? {'Its agent is at work and ends, ' if working else ''}{pending} withdrawn, "
            "and its token and its grants end.",
            yes=yes,
            undecided=f"{slug} goes on",
        )
    commands = load(known.backend).stop(slug)
    if working:
        # Its network cannot be removed while it is there; it was started to be removed when it ends.
        commands.insert(0, ["docker", "stop", names(slug).agent])
    withdrawn = Supervise().stop(slug)
    if any(each.bottle == slug for each in bypass.active()):
        bypass.end(slug)  # another bottle of this name is another question
    if run:
        _run_all(commands, keep_going=True)
    if as_json:
        print_json({"slug": slug, "stopped": run, "withdrawn": withdrawn, "commands": commands})
    elif run:
        say(f"{slug} has stopped; {withdrawn} pending proposals were withdrawn")
    else:
        _print_all(commands)


bottle.commands["list"] = bottles


def _agent_runs(slug: str) -> bool:
    found = client.inspect("container", names(slug).agent) or {}
    return bool(found.get("State", {}).get("Running"))


def _explain(plan: Plan) -> None:
    """Which way the sidecars go, and why, on standard error: what is printed may be piped into a shell."""
    how = f"the broker at {plan.broker_url}" if plan.broker_url else f"the database, mounted from {plan.db_dir}"
    line = f"{plan.slug}: the sidecars use {how}, {plan.why}"
    if plan.broker_url and not address.answers(address.recall().socket):
        line += "; it is not running, start it with 'bot-bottle serve'"
    print(line, file=sys.stderr)


def _print_all(commands: Sequence[Sequence[str]]) -> None:
    import shlex

    for command in commands:
        say(shlex.join(command))


def _run_all(commands: Sequence[Sequence[str]], *, keep_going: bool = False, undo: bool = False) -> None:
    """Runs them in order, up to the first that fails, or with ``keep_going`` all; ``undo`` does so and says nothing.

    Raises:
        BotBottleError: a command failed; what it said on standard error has been shown.
        InvalidInputError: the tool is not installed.
    """
    import shlex
    import subprocess

    failed = ""
    for command in commands:
        # Its standard output would mix with ours: docker prints the id of what it made.
        errors = subprocess.DEVNULL if undo else None
        try:
            code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors).returncode
        except FileNotFoundError:
            if undo:
                return
            raise InvalidInputError(f"{command[0]} is not installed here; choose another --backend") from None
        if code != 0 and not undo:
            failed = failed or f"'{shlex.join(command)}' ended with {code}"
            if not keep_going:
                break
    if failed:
        raise BotBottleError(failed)
