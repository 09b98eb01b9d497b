"""How does a bare repository of the host's own get the git gate?"""

from __future__ import annotations

import shutil
from pathlib import Path

from bot_bottle import Database, host_db_path
from bot_bottle.cli.declare import BadValueError, Whole, argument, file_path, group, option
from bot_bottle.cli.options import duration, json_option
from bot_bottle.cli.screen import print_fields, print_json, say
from bot_bottle.sidecars.git_gate.hook import (
    MAX_FILE_BYTES,
    WAIT_SECONDS,
    HookSettings,
    HookStatus,
    found_program,
    install,
    read_status,
    uninstall,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.cli.screen import Cell
    from bot_bottle.operator.words import Said


_SAYS: dict[str, Said] = {
    "installed": ("the git gate's", "good"),
    "outdated": ("the git gate's, of another release; install it again", "waits"),
    "bypassed": ("the git gate's, but git does not run it; install it again", "bad"),
    "foreign": ("somebody else's", "bad"),
    "missing": ("none", "bad"),
}

_repository = argument("repository", type=file_path, metavar="REPO")


def _existing_file(text: str) -> str:
    if not Path(text).is_file():
        raise BadValueError(f"'{text}' is not a file")
    return str(Path(text).resolve())


@group("git-gate")
def git_gate() -> None:
    """Have pushes to a bare repository scanned for secrets and held for your decision.

    \b
      bot-bottle git-gate install app.git --bottle dev
      bot-bottle git-gate status app.git
    """


@git_gate.command("install", begins=True)
@_repository
@option("--bottle", required=True, metavar="SLUG", help="Whose pushes these are.")
@option(
    "--timeout",
    type=duration,
    default=f"{WAIT_SECONDS}s",
    metavar="DURATION",
    help="How long a push waits for you.",
)
@option(
    "--rules",
    type=_existing_file,
    metavar="FILE",
    help="A gitleaks configuration to use instead of gitleaks' own.",
)
@option(
    "--max-file",
    type=Whole(1),
    default=MAX_FILE_BYTES,
    shown_default="512 MiB",
    metavar="BYTES",
    help="Refuse pushes with larger files: they are not scanned.",
)
def install_(repository: Path, bottle: str, timeout: float, rules: str | None, max_file: int) -> None:
    """Put the hook into the bare repository REPO, or change its settings.

    \b
      bot-bottle git-gate install app.git --bottle dev
      bot-bottle git-gate install app.git --bottle dev --timeout 15m
    """
    settings = HookSettings(
        bottle=bottle,
        database=host_db_path(),
        helper=found_program("bot-bottle-sidecar"),
        gitleaks=found_program("gitleaks"),
        rules=rules or "",
        timeout=max(1, round(timeout)),
        max_file=max_file,
    )
    with Database() as database:
        database.migrate_all()
    hook = install(repository, settings)
    say(f"pushes to {hook.parent.parent} are scanned, and held as bottle {bottle} if they may have secrets")
    for program in _missing(settings):
        say(f"every push will be refused until {program} is installed; then install the git gate again", "waits")


@git_gate.command("uninstall", begins=True)
@_repository
def uninstall_(repository: Path) -> None:
    """Take the hook out of REPO again; its pushes are not scanned any more.

    \b
      bot-bottle git-gate uninstall app.git
    """
    uninstall(repository)
    say(f"pushes to {repository.resolve()} are no longer scanned")


@git_gate.command(begins=True)
@_repository
@json_option
def status(repository: Path, as_json: bool) -> None:
    """Say which hook REPO has, and with what settings.

    \b
      bot-bottle git-gate status app.git
    """
    found = read_status(repository)
    if as_json:
        print_json(_document(found))
        return
    fields: list[tuple[str, Cell]] = [("hook", _SAYS[found.state])]
    missing = _missing(found.settings) if found.settings else []
    for name, value in _settings(found).items():
        shown = f"{value} (not there)" if value in missing else str(value)
        fields.append((name.replace("_", " "), (shown, "bad" if value in missing else "plain")))
    print_fields(fields)


def _settings(found: HookStatus) -> dict[str, object]:
    return {name: value for name, value in vars(found.settings).items() if value} if found.settings else {}


def _document(found: HookStatus) -> dict[str, object]:
    return {"state": found.state, **(vars(found.settings) if found.settings else {})}


def _missing(settings: HookSettings) -> list[str]:
    return [program for program in (settings.helper, settings.gitleaks) if not shutil.which(program)]
