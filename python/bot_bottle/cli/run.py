"""How does an operator get from nothing to an agent at work, in one command?"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence

from bot_bottle import visible
from bot_bottle.cli import project
from bot_bottle.cli.declare import MisuseError, OneOf, argument, command, option
from bot_bottle.cli.options import json_option, tool_file, yes_option
from bot_bottle.cli.screen import interactive, print_fields, print_json, print_quoted, say
from bot_bottle.errors import InvalidInputError
from bot_bottle.launch.backend import IMAGE
from bot_bottle.launch.coders import CODERS
from bot_bottle.launch.run import Launch, Wish
from bot_bottle.states import Transport


@command(begins=True)
@argument("slug", metavar="[SLUG]", optional=True)
@argument("words", metavar="[-- COMMAND...]", rest=True)
@option("--image", metavar="IMAGE", help="What the agent runs from: an image with its program in it.")
@option("--agent", type=OneOf(*CODERS), help="Who works there; otherwise what COMMAND begins with, or a shell.")
@option("--workspace", metavar="DIR", help="The agent's files, as /workspace; by default where you are.")
@option("--allow", metavar="NAMES", multiple=True, help="Presets and hosts it may reach: pypi,example.com. Repeatable.")
@option("--git", metavar="URL=FILE", multiple=True, help="A remote behind the gate, with its key or token. Repeatable.")
@option(
    "--secret",
    "secrets",
    metavar="NAME[=SOURCE]",
    multiple=True,
    help="A key that only the proxy gets: of that variable, or from file:PATH or command:WORDS. Repeatable.",
)
@option(
    "--file",
    "files",
    type=tool_file,
    metavar="TOOL=PATH",
    multiple=True,
    help="As for bottle start: what approvals replace, to begin with. Repeatable.",
)
@option("--env", "passed", metavar="NAME", multiple=True, help="A variable of yours for the sidecars. Repeatable.")
@option("--sidecars", metavar="IMAGE", help=f"What the sidecars run from; {IMAGE} by default.")
@option("--transport", type=OneOf("mount", "broker"), help="How the sidecars reach the queue.")
@option(
    "--hooks",
    type=OneOf("prompts", "every"),
    help="Agents ask you before they act: where they would ask their own user, or before every command and change.",
)
@option("--dry-run", is_flag=True, help="Print all that would be done, and do nothing.")
@option("--compose", "compose_file", metavar="FILE", help="Write a Compose file of the bottle instead.")
@yes_option
@json_option
def run(
    slug: str | None,
    words: Sequence[str],
    image: str | None,
    agent: str | None,
    workspace: str | None,
    allow: Sequence[str],
    git: Sequence[str],
    secrets: Sequence[str],
    files: Sequence[tuple[str, str]],
    passed: Sequence[str],
    sidecars: str | None,
    transport: Transport | None,
    hooks: str | None,
    dry_run: bool,
    compose_file: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Start or resume a bottle, and work in it with an agent.

    A bottle.toml here says what is not said on the line; lists of both count ('bot-bottle init' makes one). It ends
    with the agent's own exit code. The sidecars go on, for the next time, until 'bot-bottle bottle stop'.

    \b
      bot-bottle run dev --image my-agent --agent claude --allow pypi,github
      bot-bottle run dev --image my-agent --secret GITHUB_TOKEN -- pytest -q
      bot-bottle run dev --image my-agent --dry-run    # what would be done
    """
    if as_json and not dry_run:
        raise MisuseError("--json goes with --dry-run: otherwise the output is the agent's")
    if dry_run and compose_file:
        raise MisuseError("--dry-run writes nothing, --compose writes a file")
    # Nothing is done in a dry run, so nothing has to be agreed to.
    said = project.settings(yes=yes or dry_run, remember=not dry_run)
    slug = slug or said.get("bottle")
    if slug is None:
        raise InvalidInputError(f"name a bottle, or have 'bot-bottle init' write a {project.NAME} that does")
    names = [name.strip() for each in allow for name in each.split(",")]
    launch = Launch(
        Wish(
            slug=slug,
            image=image or said.get("image"),
            agent=agent or (None if words else said.get("agent")),
            command=tuple(words or ([] if agent else said.get("command", []))),
            workspace=workspace or said.get("workspace", "."),
            allow=(*said.get("allow", []), *filter(None, names)),
            git=(*said.get("git", []), *git),
            secrets=tuple(dict.fromkeys([*said.get("secrets", []), *secrets])),
            files=tuple(files),
            passed=tuple(dict.fromkeys([*said.get("env", []), *passed])),
            sidecars=sidecars or said.get("sidecars", IMAGE),
            transport=transport or said.get("transport"),
            terminal=interactive(),
            hooks=hooks or said.get("hooks"),
        )
    )

    def tell(step: str) -> None:
        # Not on standard output, which is the agent's.
        print(f"{slug}: {visible(step, multiline=False)}", file=sys.stderr, flush=True)

    if dry_run:
        _print(launch, as_json=as_json)
        return
    for name in launch.unused():
        tell(f"no route refers to {name}, so the agent cannot use it: see 'routes' in --dry-run")
    if compose_file:
        document = launch.compose(tell)
        with open(compose_file, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2) + "\n")
        tell(f"{compose_file} is written: docker compose -f {shlex.quote(compose_file)} run --rm agent")
        return
    attach = launch.start(tell)
    tell(f"when the agent ends its sidecars go on: 'bot-bottle bottle stop {slug} --run' ends them")
    # Nothing stands between the operator's terminal and the agent from here on: its signals, its size, its exit code.
    sys.stderr.flush()
    os.execvp(attach[0], attach)  # noqa: S606


def _print(launch: Launch, *, as_json: bool) -> None:
    """All of a launch, for a person or a program."""
    plan = launch.to_dict()
    if as_json:
        print_json(plan)
        return
    what = "resumed" if plan["resumes"] else "registered and started"
    print_fields(
        [
            ("bottle", f"{plan['slug']}, to be {what}"),
            ("agent", f"{plan['agent']}, from {plan['image']}, as user {plan['user']}"),
            ("workspace", plan["workspace"]),
            *([("hooks", f"agents ask before they act: {plan['hooks']}")] if plan["hooks"] else []),
            *((f"secret {name}", f"from {source}; the proxy's alone") for name, source in plan["secrets"].items()),
        ]
    )
    for name in launch.unused():
        say(f"No route refers to {name}, so the agent cannot use it.", "soon")
    for title, text in (("routes.yaml", "routes"), ("upstreams.yaml", "upstreams"), ("git of the agent", "gitconfig")):
        if plan[text]:
            say(f"{title}:")
            print_quoted(plan[text])
    say("files of the agent's container, added to or made where they are missing:")
    print_quoted("\n".join(plan["files"]))
    say("commands:")
    for line in plan["commands"]:
        say(shlex.join(line))
