"""Which settings, in which file, make an agent ask before it acts?"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any, Final, NamedTuple

from bot_bottle.agents.hooks import BLOCKED, Agent
from bot_bottle.errors import InvalidInputError, NotFoundError

# How many seconds longer the agent waits for the hook than the hook for the operator: an agent that loses patience goes
# on as if there were no hook.
MARGIN: Final = 30
_BACKUP: Final = ".before-bot-bottle"
# What runs commands or writes files, in the words of each agent.
_ACTING: Final = {
    "claude-code": "Bash|Write|Edit|MultiEdit|NotebookEdit",
    "codex": "Bash|apply_patch",
    "gemini": "run_shell_command|write_file|replace",
}
TOOLS_OF_OPENCODE: Final = ("bash", "edit", "write", "patch", "multiedit", "apply_patch")
# A throw is the tool's error, so this fails closed, also where the program is missing.
_PLUGIN: Final = """\
// Written by 'bot-bottle hook install opencode', which also undoes it.
import {{ spawn }} from "node:child_process"

const PROGRAM = {program}
const ACTING = {acting}

const ask = (event) => new Promise((done) => {{
  const child = spawn(PROGRAM[0], PROGRAM.slice(1))
  let out = "", err = ""
  child.stdout.on("data", (data) => (out += data))
  child.stderr.on("data", (data) => (err += data))
  child.on("error", (error) => done({{ out: "", err: String(error) }}))
  child.on("close", () => done({{ out, err }}))
  child.stdin.on("error", () => {{}})
  child.stdin.end(JSON.stringify(event))
}})

export const AskOperator = async ({{ directory }}) => ({{
  "tool.execute.before": async (input, output) => {{
    if (!ACTING.includes(input.tool)) return
    const {{ out, err }} = await ask({{ hook: "tool.execute.before", input, output, cwd: directory }})
    let allowed = false
    try {{ allowed = JSON.parse(out).decision === "allow" }} catch {{}}
    if (!allowed) throw new Error(err.trim() || "bot-bottle gave no answer, so this is blocked")
  }},
}})
"""


class Change(NamedTuple):
    """What an installation or its undoing does to a file; ``None`` stands for no file."""

    path: Path
    before: str | None
    after: str | None
    first: bool = False
    """The file has no hook of bot-bottle's yet, so a copy of ``before`` is kept."""


def path(agent: Agent, project: Path | None) -> Path:
    """The file that tells ``agent`` of its hooks: the user's, or that of the project in a directory."""
    home = Path.home()
    if agent.name == "claude-code":
        # Of the project's two, the one that is not committed: the path of our program is this machine's.
        own = Path(os.environ.get("CLAUDE_CONFIG_DIR") or home / ".claude", "settings.json")
        return project / ".claude" / "settings.local.json" if project else own
    if agent.name == "codex":
        return (project / ".codex" if project else Path(os.environ.get("CODEX_HOME") or home / ".codex")) / "hooks.json"
    if agent.name == "gemini":
        return (project or home) / ".gemini" / "settings.json"
    own = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "opencode")
    return (project / ".opencode" if project else own) / "plugin" / "bot-bottle.js"


def wanted(agent: Agent, every: bool) -> str:
    """The event on which the agent asks: before each use of a tool, or when it would ask its own user, if it does."""
    return agent.every if every or agent.prompt is None else agent.prompt


def matcher(agent: Agent, event: str) -> str:
    """Which tools an event is wanted of: before each use those that act, else whatever the agent would ask about."""
    if event == agent.every:
        return _ACTING[agent.name]
    return "*" if agent.name == "claude-code" else ".*"


def command(agent: Agent, program: list[str]) -> str:
    """What the agent hands to a shell. Whatever keeps ``program`` from answering, even its absence, ends as a no."""
    script = (
        f"{shlex.join(program)}; code=$?; [ $code = 0 ] && exit 0; "
        f'[ $code = {BLOCKED} ] || echo "bot-bottle gave no answer (exit code $code), so this is blocked" >&2; '
        f"exit {BLOCKED}"
    )
    # Codex asks the user's own shell, which need not be a POSIX one.
    return shlex.join(["sh", "-c", script])


def install(agent: Agent, file: Path, program: list[str], *, every: bool, timeout: float) -> Change:
    """The change that makes ``agent`` ask ``program`` before it acts; also if it does so already.

    Args:
        every: before each command and each change to a file, rather than when it would ask its own user.
        timeout: seconds for which ``program`` waits for the operator.

    Raises:
        InvalidInputError: the file is not one that can be edited.
    """
    before = _text(file)
    if agent.name == "opencode":
        return Change(file, before, _PLUGIN.format(program=json.dumps(program), acting=json.dumps(TOOLS_OF_OPENCODE)))
    first = installed(agent, file) is None
    settings = _without_ours(agent, _settings(file, before))
    event = wanted(agent, every)
    seconds = int(timeout) + MARGIN
    entry: dict[str, Any] = {"type": "command", "command": command(agent, program), "timeout": seconds}
    if agent.name == "claude-code":
        entry["onFailure"] = "block"
    elif agent.name == "gemini":
        entry |= {"name": "bot-bottle", "timeout": seconds * 1000}
    settings.setdefault("hooks", {}).setdefault(event, []).append({"matcher": matcher(agent, event), "hooks": [entry]})
    return Change(file, before, _written(settings), first)


def uninstall(agent: Agent, file: Path) -> Change:
    """The change that removes bot-bottle's hook, and nothing else.

    Raises:
        NotFoundError: it is not in there.
        InvalidInputError: the file is not one that can be edited.
    """
    before = _text(file)
    if before is None or installed(agent, file) is None:
        raise NotFoundError(f"{file} has no hook of bot-bottle")
    if agent.name == "opencode":
        return Change(file, before, None)
    settings = _without_ours(agent, _settings(file, before))
    backup = _text(_backup(file))
    if backup is not None and _settings(_backup(file), backup) == settings:
        return Change(file, before, backup)  # with its own spacing
    return Change(file, before, _written(settings) if settings else None)


def installed(agent: Agent, file: Path) -> str | None:
    """The command that ``agent`` runs as bot-bottle's hook, for a shell; ``None`` without a hook.

    Raises:
        InvalidInputError: the file cannot be read as settings of ``agent``.
    """
    text = _text(file)
    if text is None:
        return None
    if agent.name == "opencode":
        line = next((line for line in text.splitlines() if line.startswith("const PROGRAM = ")), None)
        return None if line is None else shlex.join(json.loads(line.removeprefix("const PROGRAM = ")))
    found = [entry["command"] for _, _, entry in _entries(_settings(file, text)) if _is_ours(agent, entry)]
    return found[0] if found else None


def apply(change: Change) -> Path | None:
    """Writes it, atomically, and through a link to where the file really is; the path of the copy of what was there
    before ours, if there is one.

    Raises:
        InvalidInputError: the file is not any more what the change was made for.
    """
    if _text(change.path) != change.before:
        raise InvalidInputError(f"{change.path} has changed meanwhile; nothing was written, try again")
    backup = _backup(change.path)
    if change.after is None:
        change.path.unlink()
        backup.unlink(missing_ok=True)
        return None
    target = Path(os.path.realpath(change.path))
    target.parent.mkdir(parents=True, exist_ok=True)
    if change.before is not None and change.first:
        _write(backup, change.before, target)
    _write(target, change.after, target)
    if backup.exists() and _text(backup) == change.after:
        backup.unlink()
    return backup if backup.exists() else None


def _write(path: Path, text: str, like: Path) -> None:
    mode = like.stat().st_mode & 0o777 if like.exists() else 0o600
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with open(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8", newline=""
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _backup(file: Path) -> Path:
    return file.with_name(file.name + _BACKUP)


def _text(file: Path) -> str | None:
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file} is not UTF-8 text") from None


def _settings(file: Path, text: str | None) -> dict[str, Any]:
    """The settings in ``text``, with lists of hooks where hooks are.

    Raises:
        InvalidInputError: they are something else, such as JSON with comments, which writing would lose.
    """
    try:
        settings = json.loads(text) if text and text.strip() else {}
        hooks = settings.get("hooks", {})
        fits = all(isinstance(groups, list) for groups in hooks.values())
        fits = fits and all(isinstance(group.get("hooks", []), list) for groups in hooks.values() for group in groups)
    except (ValueError, AttributeError):
        fits = False
    if not fits:
        raise InvalidInputError(
            f"{file} is not plain JSON with hooks as its agent documents them; nothing was written, as that would lose "
            "what else is in there"
        )
    return dict(settings)


def _entries(settings: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Event, group and hook of each hook."""
    return [
        (event, group, entry)
        for event, groups in settings.get("hooks", {}).items()
        for group in groups
        for entry in group.get("hooks", [])
        if isinstance(entry, dict)
    ]


def _is_ours(agent: Agent, entry: dict[str, Any]) -> bool:
    text = entry.get("command")
    return isinstance(text, str) and "bot-bottle" in text and f" hook {agent.name} " in text


def _without_ours(agent: Agent, settings: dict[str, Any]) -> dict[str, Any]:
    hooks = {}
    for event, groups in settings.get("hooks", {}).items():
        kept = []
        for group in groups:
            entries = [
                entry for entry in group.get("hooks", []) if not (isinstance(entry, dict) and _is_ours(agent, entry))
            ]
            if entries or not group.get("hooks"):
                kept.append({**group, "hooks": entries} if "hooks" in group else group)
        if kept or not groups:
            hooks[event] = kept
    rest = {name: value for name, value in settings.items() if name != "hooks"}
    if "hooks" not in settings or (not hooks and settings["hooks"]):
        return rest
    # In its old place.
    return {name: hooks if name == "hooks" else value for name, value in settings.items()}


def _written(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
