"""What is written into a bottle's container so that every agent in it asks the bottle's sidecar before it acts?

Where each agent has its administrator's settings, which belong to root: the agent's own user can neither change nor
outrank them, and Codex runs such hooks without asking whether they are trusted. Claude Code posts its events itself,
and so does a plugin in opencode; the others start a small script, which posts them with curl or, without it, with Node.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from bot_bottle.agents.hooks import AGENTS, BLOCKED, Agent
from bot_bottle.agents.settings import MARGIN, TOOLS_OF_OPENCODE, matcher, wanted
from bot_bottle.errors import InvalidInputError

# Seconds for which the sidecar waits for the operator, unless its launch says otherwise.
WAIT: Final = 600
# Seconds after which the script gives up, before its agent does and goes on as if there were no hook.
_PATIENCE: Final = WAIT + MARGIN - 10
_FOLDER: Final = "/etc/bot-bottle"
_SCRIPT: Final = f"{_FOLDER}/ask"
_PLUGIN: Final = f"{_FOLDER}/opencode.js"
_CODEX: Final = "/etc/codex/requirements.toml"

# Only a JSON object with status 200 is an answer: an empty one would be Codex's yes.
_ASK: Final = """\
#!/bin/sh
# Written by 'bot-bottle run --hooks'. Asks the operator before an agent acts: ask AGENT, with the event as its input.
# Whatever goes wrong ends with {blocked} and a sentence, which every agent takes for a no.
if command -v curl >/dev/null 2>&1; then
  said=$(curl --silent --show-error --fail --noproxy '*' --max-time {seconds} \\
    --header 'Content-Type: application/json' --data-binary @- "{url}hook/$1" 2>&1)
else
  said=$(node -e '
    const ended = (text, code) => {{ process.stdout.write(text); process.exitCode = code }}
    const request = require("http").request(process.argv[1], {{
      method: "POST", headers: {{ "content-type": "application/json" }}, timeout: {seconds}000,
    }}, (answer) => {{
      let text = ""
      answer.on("data", (data) => (text += data))
      answer.on("end", () => ended(text, answer.complete && answer.statusCode === 200 ? 0 : 1))
    }})
    request.on("timeout", () => request.destroy(new Error("no answer in time")))
    request.on("error", (error) => ended(String(error), 1))
    process.stdin.pipe(request)
  ' "{url}hook/$1" 2>&1)
fi
code=$?
case $code$said in
  "0{{"*) printf '%s\\n' "$said" ;;
  *) echo "bot-bottle gave no answer (${{said:-exit code $code}}), so this is blocked" >&2; exit {blocked} ;;
esac
"""

# A throw is the tool's error, so this fails closed.
_OPENCODE: Final = """\
// Written by 'bot-bottle run --hooks'. Asks the operator before a tool that acts.
const ACTING = {acting}

export const AskOperator = async ({{ directory }}) => ({{
  "tool.execute.before": async (input, output) => {{
    if (!ACTING.includes(input.tool)) return
    let said
    try {{
      const answer = await fetch("{url}hook/opencode", {{
        method: "POST", headers: {{ "content-type": "application/json" }}, timeout: false,
        signal: AbortSignal.timeout({seconds}000),
        body: JSON.stringify({{ hook: "tool.execute.before", input, output, cwd: directory }}),
      }})
      said = await answer.json()
    }} catch (error) {{
      throw new Error(`bot-bottle gave no answer (${{error}}), so this is blocked`)
    }}
    if (said.decision !== "allow") throw new Error(said.reason || said.message || "bot-bottle blocks this")
  }},
}})
"""


def files(url: str, *, every: bool, read: Callable[[str], bytes | None] = lambda path: None) -> dict[str, str]:
    """What to put into the container, by absolute path.

    Args:
        url: of the sidecar, as the container reaches it; it ends with a slash.
        every: before each command and each change to a file, rather than when an agent would ask its own user, where
            it does.
        read: a file of the image; settings that stand there stay.

    Raises:
        InvalidInputError: the image has settings that this cannot be added to.
    """
    seconds = WAIT + MARGIN
    claude, codex, gemini = (AGENTS[name] for name in ("claude-code", "codex", "gemini"))
    post = {"type": "http", "url": f"{url}hook/{claude.name}", "timeout": seconds, "onFailure": "block"}
    run = {"type": "command", "name": "bot-bottle", "command": f"sh {_SCRIPT} gemini", "timeout": seconds * 1000}
    if read(_CODEX) is not None:
        raise InvalidInputError(f"the image has its own {_CODEX}, to which --hooks cannot add: remove it there")
    event = wanted(codex, every)
    requirements = (
        f'[features]\nhooks = true\n\n[hooks]\nmanaged_dir = "{_FOLDER}"\n\n[[hooks.{event}]]\n'
        f'matcher = "{matcher(codex, event)}"\n\n[[hooks.{event}.hooks]]\ntype = "command"\n'
        f'command = "sh {_SCRIPT} codex"\ntimeout = {seconds}\n'
    )
    return {
        _SCRIPT: _ASK.format(url=url, seconds=_PATIENCE, blocked=BLOCKED),
        _PLUGIN: _OPENCODE.format(url=url, seconds=_PATIENCE, acting=json.dumps(TOOLS_OF_OPENCODE)),
        _CODEX: requirements,
        **_with("/etc/claude-code/managed-settings.json", read, _hook(claude, every, post)),
        **_with("/etc/gemini-cli/settings.json", read, _hook(gemini, every, run)),
        **_with("/etc/opencode/opencode.json", read, lambda settings: _append(settings, "plugin", f"file://{_PLUGIN}")),
    }


def _hook(agent: Agent, every: bool, entry: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    event = wanted(agent, every)
    group = {"matcher": matcher(agent, event), "hooks": [entry]}
    return lambda settings: _append(settings.setdefault("hooks", {}), event, group)


def _append(settings: dict[str, Any], key: str, value: Any) -> None:
    settings.setdefault(key, []).append(value)


def _with(path: str, read: Callable[[str], bytes | None], change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    before = read(path)
    try:
        settings = json.loads(before) if before and before.strip() else {}
        change(settings)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidInputError(f"the image's {path} is not settings that --hooks can add to: mend it there") from None
    return {path: json.dumps(settings, indent=2) + "\n"}
