"""What does each coding agent need in its home directory, so that it knows its sidecars and does not ask for a login?

The home directory is a volume of the bottle's, in which agents keep things of their own: only what is missing is added.
All agents' files are written, whichever is started: from a shell any of them may be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

HOME: Final = "/home/agent"
WORKSPACE: Final = "/workspace"
PLACEHOLDER: Final = "held-by-the-proxy"
"""What an agent is given for a key that the proxy puts in."""
SUPERVISE: Final = "http://supervise:9100/"


class Coder(NamedTuple):
    """A program that ``--agent`` names."""

    programs: tuple[str, ...]
    """The first of these that the image has is started."""
    preset: str | None
    """The routes to its model."""
    variables: tuple[str, ...]
    """A key of its own is in one of these."""
    package: str
    """What to install in an image that lacks it."""


CODERS: Final = {
    "claude": Coder(
        ("claude",),
        "anthropic",
        ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        "npm install -g @anthropic-ai/claude-code",
    ),
    "codex": Coder(("codex",), "openai", ("OPENAI_API_KEY",), "npm install -g @openai/codex"),
    "gemini": Coder(("gemini",), "google", ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "npm install -g @google/gemini-cli"),
    "opencode": Coder(("opencode",), None, (), "npm install -g opencode-ai"),
    "shell": Coder(("bash", "sh"), None, (), "apt-get install bash"),
}

_FRAGMENT: Final = f"""\
<!-- bot-bottle: begin -->
# You work in a bottle

This container reaches the network through a proxy only, and only the hosts that its operator allowed. A person answers
when you ask for more; the MCP server `supervise` ({SUPERVISE}) is how you ask.

- A request that is refused with 403 and the header `x-bot-bottle-egress` says why. Call `list-egress-routes` to see
  what is allowed, then `allow` with the whole new `routes.yaml` and a reason in one or two sentences. Ask for no more
  than the task needs.
- For a program or package that this image lacks, call `capability-block` with the whole new Dockerfile.
- A call waits for the person. If it ends as pending, go on with something else and call `check-proposal` later. A
  rejection has a reason: follow it, and do not ask again for the same.
- API keys here are placeholders; the proxy puts the real ones in. A request that carries a secret elsewhere is held.
- `git push` may be held while a person looks at what it would publish. Wait, or do what its message says.
<!-- bot-bottle: end -->
"""
_BEGIN, _END = _FRAGMENT.splitlines()[0], _FRAGMENT.splitlines()[-1]


def named(command: str) -> str:
    """The name of the agent that a program is, or ``shell``."""
    base = command.rsplit("/", 1)[-1]
    return base if base in CODERS else "shell"


def home(read: Callable[[str], bytes | None], secrets: Iterable[str]) -> tuple[dict[str, bytes], list[str]]:
    """The files to write into the home directory, by path in it, and those left alone because they cannot be read.

    Args:
        read: a file of the home directory, as agents may have left it.
        secrets: variables that hold a placeholder.
    """
    held = set(secrets)
    written: dict[str, bytes] = {}
    left: list[str] = []
    for path, merge in _MERGES.items():
        try:
            before = read(path)
            after = merge((before or b"").decode(), held)
        except (ValueError, TypeError, AttributeError, RecursionError):
            left.append(path)
            continue
        if after.encode() != before:
            written[path] = after.encode()
    return written, left


def _json(change: Callable[[dict[str, Any], set[str]], None]) -> Callable[[str, set[str]], str]:
    def merge(text: str, held: set[str]) -> str:
        settings = json.loads(text) if text.strip() else {}
        before = json.dumps(settings)
        change(settings, held)
        return text if json.dumps(settings) == before else json.dumps(settings, indent=2) + "\n"

    return merge


def _claude(settings: dict[str, Any], held: set[str]) -> None:
    settings.setdefault("hasCompletedOnboarding", True)
    settings.setdefault("mcpServers", {})["supervise"] = {"type": "http", "url": SUPERVISE}
    settings.setdefault("projects", {}).setdefault(WORKSPACE, {}).setdefault("hasTrustDialogAccepted", True)
    if "ANTHROPIC_API_KEY" in held:
        approved = settings.setdefault("customApiKeyResponses", {}).setdefault("approved", [])
        # It compares the last 20 characters of a key.
        approved += [] if PLACEHOLDER[-20:] in approved else [PLACEHOLDER[-20:]]


def _claude_permissions(settings: dict[str, Any], held: set[str]) -> None:
    allow = settings.setdefault("permissions", {}).setdefault("allow", [])
    allow += [] if "mcp__supervise" in allow else ["mcp__supervise"]


def _gemini(settings: dict[str, Any], held: set[str]) -> None:
    settings.setdefault("mcpServers", {})["supervise"] = {"httpUrl": SUPERVISE, "trust": True}
    # Without this, it starts no MCP server in a directory that it was not told to trust.
    settings.setdefault("security", {}).setdefault("folderTrust", {}).setdefault("enabled", False)


def _opencode(settings: dict[str, Any], held: set[str]) -> None:
    settings.setdefault("mcp", {})["supervise"] = {"type": "remote", "url": SUPERVISE, "enabled": True}


def _codex(text: str, held: set[str]) -> str:
    tables = {
        "[mcp_servers.supervise]": f'url = "{SUPERVISE}"',
        f'[projects."{WORKSPACE}"]': 'trust_level = "trusted"',
    }
    lines = {line.strip() for line in text.splitlines()}
    missing = [f"{table}\n{content}\n" for table, content in tables.items() if table not in lines]
    return "\n".join([text.rstrip() + "\n" if text.strip() else "", *missing]).lstrip("\n") if missing else text


def _fragment(text: str, held: set[str]) -> str:
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        return before + _FRAGMENT.rstrip("\n") + after
    return (f"{text.rstrip()}\n\n" if text.strip() else "") + _FRAGMENT


_MERGES: Final[dict[str, Callable[[str, set[str]], str]]] = {
    ".claude.json": _json(_claude),
    ".claude/settings.json": _json(_claude_permissions),
    ".claude/CLAUDE.md": _fragment,
    ".codex/config.toml": _codex,
    ".codex/AGENTS.md": _fragment,
    ".gemini/settings.json": _json(_gemini),
    ".gemini/GEMINI.md": _fragment,
    ".config/opencode/opencode.json": _json(_opencode),
    ".config/opencode/AGENTS.md": _fragment,
}

PATHS: Final = tuple(f"{HOME}/{path}" for path in _MERGES)
"""Where :func:`home` may put something."""
