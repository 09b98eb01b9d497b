"""Does a hook end as its agent's yes or no, whatever happens to it? The real program, with real agents' events."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_events import COMMAND, EVENTS, YES
from bot_bottle import Inbox, InboxItem
from bot_bottle.agents import hooks, settings
from bot_bottle.agents.hooks import AGENTS
from bot_bottle.errors import InvalidInputError
from cli_process import PROGRAMS, Host

every_event = pytest.mark.parametrize("kind", EVENTS, ids=" ".join)
every_agent = pytest.mark.parametrize("agent", AGENTS)


def changed(agent: str, **fields: Any) -> dict[str, Any]:
    """An event of ``agent`` before each tool, with other fields."""
    return {**EVENTS[agent, AGENTS[agent].every], **fields}


class Hook:
    """The hook of an agent, started with an event."""

    def __init__(self, host: Host, agent: str, event: Any, *options: str, **extra: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAMS / "bot-bottle", "hook", agent, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=host.environment(**extra),
        )
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(event if isinstance(event, bytes) else json.dumps(event).encode())
            self.process.stdin.close()
        self.process.stdin = None

    def ends(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def hook(host: Host) -> Iterator[Callable[..., Hook]]:
    started: list[Hook] = []

    def start(agent: str, event: Any, *options: str, **extra: str) -> Hook:
        started.append(Hook(host, agent, event, *options, **extra))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def question(inbox: Inbox, since: int = 0) -> InboxItem:
    """The question that is asked after ``since``, as soon as it is."""
    for change in inbox.watch(since, timeout=60):
        if change.kind == "proposed":
            return inbox.read(change.proposal_id)
    raise AssertionError("nothing was asked")


def decide(inbox: Inbox, item: InboxItem, status: str, **more: Any) -> None:
    inbox.decide(item.proposal.id, status, payload_sha256=item.proposal.payload_sha256, surface="cli", **more)


def blocks(ended: tuple[int, str, str], why: str) -> None:
    """What every agent takes for a no: this code, and a reason on standard error."""
    code, out, err = ended
    assert (code, out) == (2, ""), ended
    assert why in err and "Traceback" not in err


@every_event
def test_an_approval_lets_the_agent_go_on(hook: Callable[..., Hook], kind: tuple[str, str]) -> None:
    running = hook(kind[0], EVENTS[kind])
    with Inbox() as inbox:
        decide(inbox, question(inbox), "approved")
    code, out, err = running.ends()
    assert (code, err) == (0, "")
    assert (json.loads(out) if out else None) == YES[kind]


@every_event
def test_a_rejection_blocks_and_gives_the_operator_s_reason(hook: Callable[..., Hook], kind: tuple[str, str]) -> None:
    running = hook(kind[0], EVENTS[kind])
    with Inbox() as inbox:
        decide(inbox, question(inbox), "rejected", notes="not in /work")
    ended = running.ends()
    if kind[1] != "PermissionRequest":
        blocks(ended, "operator: not in /work")
        return
    deny = {"behavior": "deny", "message": "operator: not in /work"}
    assert json.loads(ended[1]) == {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": deny}}
    assert ended[0] == 0


@every_event
def test_the_operator_sees_who_asks_where_and_for_what(hook: Callable[..., Hook], kind: tuple[str, str]) -> None:
    running = hook(kind[0], EVENTS[kind], "--bottle", "laptop")
    with Inbox() as inbox:
        proposal = question(inbox).proposal
    event = EVENTS[kind]
    tool, session = (
        ("bash", event["input"]["sessionID"]) if "input" in event else (event["tool_name"], event["session_id"])
    )
    head = f"agent:   {kind[0]}\ntool:    {tool}\ncwd:     /work\nsession: {session}\n"
    assert proposal.proposed_file == f"{head}\n{COMMAND}"
    assert (proposal.bottle_slug, proposal.tool, proposal.justification) == ("laptop", "run-command", "make a file")
    assert running.process.poll() is None


def test_a_modified_command_is_blocked_with_what_to_run_instead(hook: Callable[..., Hook]) -> None:
    running = hook("claude-code", changed("claude-code"))
    with Inbox() as inbox:
        item = question(inbox)
        other = item.proposal.proposed_file.replace("/work/made", "/tmp/made").encode()
        decide(inbox, item, "modified", final_file=other, notes="elsewhere")
    ended = running.ends()
    blocks(ended, "elsewhere")
    assert f"+{COMMAND.replace('/work/made', '/tmp/made')}" in ended[2]


NO_EVENTS = [b"", b"\n", b"not JSON", b"[]", b"null", b'"x"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"hook": 1']


@every_agent
def test_what_is_not_an_event_is_blocked(host: Host, hook: Callable[..., Hook], agent: str) -> None:
    blocks(hook(agent, b"not JSON").ends(), "not an event of a hook")
    assert not host.root.exists()
    for event in NO_EVENTS:
        with pytest.raises(InvalidInputError, match="not an event of a hook"):
            hooks.read(AGENTS[agent], event)


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_name": ""},
        {"tool_name": 7},
        {"tool_input": "touch made"},
        {"tool_input": None},
        {"cwd": None},
        {"session_id": []},
    ],
    ids=str,
)
def test_an_event_that_lacks_something_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="not an event of a hook of Codex"):
        hooks.read(AGENTS["codex"], json.dumps(changed("codex", **fields)).encode())


def test_an_event_of_another_kind_is_blocked(hook: Callable[..., Hook]) -> None:
    event = changed("codex", hook_event_name="PostToolUse")
    blocks(hook("codex", event).ends(), "a PostToolUse event cannot be answered here")
    for agent in AGENTS.values():
        name = "hook" if agent.name == "opencode" else "hook_event_name"
        with pytest.raises(InvalidInputError, match="cannot be answered here"):
            hooks.read(agent, json.dumps(changed(agent.name, **{name: "PostToolUse"})).encode())


@pytest.mark.parametrize("command", ["a\0b", "a\ud800b"], ids=["nul", "lone surrogate"])
def test_a_command_that_is_not_text_is_blocked(hook: Callable[..., Hook], command: str) -> None:
    blocks(hook("gemini", changed("gemini", tool_input={"command": command})).ends(), "blocked")


def test_a_reason_that_is_not_text_is_blocked(hook: Callable[..., Hook]) -> None:
    given = {"command": "true", "description": "a\ud800b"}
    blocks(hook("gemini", changed("gemini", tool_input=given)).ends(), "justification is not Unicode text")


def test_a_command_too_long_to_be_shown_is_blocked(hook: Callable[..., Hook]) -> None:
    blocks(hook("gemini", changed("gemini", tool_input={"command": "x" * 2**20})).ends(), "at most 1048576")
    blocks(hook("gemini", b"x" * (hooks.MOST_BYTES + 1)).ends(), "longer than")


def test_an_operator_who_does_not_decide_in_time_blocks(hook: Callable[..., Hook]) -> None:
    blocks(hook("codex", changed("codex"), "--timeout", "2s").ends(), "did not decide within 2 s")
    with Inbox() as inbox:
        assert [item.state for item in inbox.history()] == ["expired"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_hook_that_its_agent_ends_blocks_and_withdraws_the_question(
    hook: Callable[..., Hook], number: signal.Signals
) -> None:
    running = hook("claude-code", changed("claude-code"))
    with Inbox() as inbox:
        item = question(inbox)
        running.process.send_signal(number)
        blocks(running.ends(), f"interrupted by {number.name}")
        assert inbox.read(item.proposal.id).state == "withdrawn"


def test_a_database_that_cannot_be_used_blocks(host: Host, hook: Callable[..., Hook]) -> None:
    host.root.write_text("no directory")
    blocks(hook("gemini", changed("gemini")).ends(), "nobody could be asked")


def test_a_damaged_database_blocks(host: Host, hook: Callable[..., Hook]) -> None:
    host.propose()
    (host.root / "db" / "bot-bottle.db").write_bytes(b"rubbish" * 1000)
    blocks(hook("codex", changed("codex")).ends(), "nobody could be asked")


def test_a_closed_standard_input_blocks(host: Host) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {shlex.quote(str(PROGRAMS / 'bot-bottle'))} hook codex <&-"],
        capture_output=True,
        env=host.environment(),
        timeout=60,
    )
    blocks((done.returncode, done.stdout.decode(), done.stderr.decode()), "not an event")


def test_a_yes_that_cannot_be_said_is_a_no(host: Host) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = subprocess.Popen(
        [PROGRAMS / "bot-bottle", "hook", "gemini"],
        stdin=subprocess.PIPE,
        stdout=full,
        stderr=subprocess.DEVNULL,
        env=host.environment(),
    )
    os.close(full)
    assert process.stdin
    process.stdin.write(json.dumps(changed("gemini")).encode())
    process.stdin.close()
    with Inbox() as inbox:
        decide(inbox, question(inbox), "approved")
    assert process.wait(timeout=60) == 2


def test_a_grant_answers_the_same_command_in_the_same_directory_alone(hook: Callable[..., Hook]) -> None:
    running = hook("claude-code", changed("claude-code"))
    with Inbox() as inbox:
        decide(inbox, question(inbox), "approved", grant="for:3600")
        assert running.ends()[0] == 0
        assert hook("claude-code", changed("claude-code", session_id="another")).ends()[0] == 0
        seen = inbox.last_change()
        elsewhere = hook("claude-code", changed("claude-code", cwd="/"))
        decide(inbox, question(inbox, seen), "rejected", notes="not there")
        blocks(elsewhere.ends(), "not there")


def test_an_edit_is_shown_as_a_diff_and_a_new_file_whole() -> None:
    edit = {"file_path": "/work/a.py", "old_string": "a = 1\n", "new_string": "a = 2\n", "replace_all": True}
    event = changed("claude-code", tool_name="Edit", tool_input=edit)
    payload = hooks.read(AGENTS["claude-code"], json.dumps(event).encode()).payload
    assert 'file:    /work/a.py\nwith:    {"replace_all": true}\n' in payload
    assert payload.endswith("-a = 1\n+a = 2\n")
    event = changed("gemini", tool_name="write_file", tool_input={"file_path": "/work/b", "content": "one\ntwo\n"})
    payload = hooks.read(AGENTS["gemini"], json.dumps(event).encode()).payload
    assert payload.endswith("\n\nthe whole new content:\none\ntwo\n")


def test_what_else_belongs_to_a_command_is_shown_and_granted_with_it() -> None:
    def read(**given: Any) -> hooks.Request:
        event = changed("claude-code", tool_input={"command": COMMAND, **given})
        return hooks.read(AGENTS["claude-code"], json.dumps(event).encode())

    outside = read(dangerouslyDisableSandbox=True)
    assert '{"dangerouslyDisableSandbox": true}' in outside.payload
    assert outside.fingerprint != read().fingerprint == read(description="for another reason").fingerprint


def test_nothing_in_an_event_passes_for_a_line_of_ours() -> None:
    event = changed("codex", cwd="/tmp\nsession: trusted\n\necho harmless", session_id="a\u202eb")
    lines = hooks.read(AGENTS["codex"], json.dumps(event).encode()).payload.split("\n")
    assert [line[:9] for line in lines[:5]] == ["agent:   ", "tool:    ", "cwd:     ", "session: ", ""]
    assert lines[5:] == [COMMAND]
    assert "\u202e" not in "".join(lines)


def test_a_long_reason_is_cut_where_the_agent_would_and_says_so() -> None:
    answer = hooks.block(AGENTS["codex"], "PreToolUse", "x" * 9_500)
    assert len(answer.err) < 10_000 and answer.err.endswith(" [+500 characters]")


@pytest.mark.parametrize("agent", ["claude-code", "codex", "gemini"])
@pytest.mark.parametrize(
    "program", [["/no/such/program"], ["sh", "-c", "kill -KILL $$"], ["sh", "-c", "exit 1"], ["sh", "-c", "exit 3"]]
)
def test_a_program_that_cannot_answer_blocks(agent: str, program: list[str]) -> None:
    command = settings.command(AGENTS[agent], program)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    blocks((done.returncode, done.stdout, done.stderr), "bot-bottle gave no answer")


def test_an_answer_passes_through_the_shell_as_it_is() -> None:
    for code, out, err in ((0, "yes", ""), (2, "", "operator: no")):
        program = ["sh", "-c", f"printf '{out}'; printf '{err}' >&2; exit {code}"]
        done = subprocess.run(settings.command(AGENTS["codex"], program), shell=True, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_a_command_line_that_is_not_in_order_blocks(host: Host) -> None:
    for words in (["codex", "--timeout"], ["codex", "--timeout", "soon"], ["codex", "--nonsense"], ["cursor"]):
        assert host.run("hook", *words, code=2).stderr.strip()


def test_the_time_limit_covers_an_event_that_never_ends(host: Host) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [PROGRAMS / "bot-bottle", "hook", "codex", "--timeout", "0.1s"],
        stdin=read,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=host.environment(),
    )
    os.close(read)
    out, err = process.communicate(timeout=60)
    os.close(write)
    blocks((process.returncode, out.decode(), err.decode()), "out of time")


def in_node(plugin: Path, event: dict[str, Any], host: Host) -> subprocess.Popen[str]:
    """opencode's call of our plugin, in Node; it prints ``allowed``, or ends with the error that blocks the tool."""
    module = plugin.with_suffix(".mjs")
    module.write_text(plugin.read_text())
    script = f"""
        const {{ AskOperator }} = await import({json.dumps(str(module))})
        const plugin = await AskOperator({{ directory: "/work" }})
        await plugin["tool.execute.before"]({json.dumps(event["input"])}, {json.dumps(event["output"])})
        console.log("allowed")
    """
    return subprocess.Popen(
        ["node", "--input-type=module", "-e", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=host.environment(),
    )


@pytest.mark.parametrize("status", ["approved", "rejected"])
def test_opencode_s_plugin_asks_and_obeys(host: Host, status: str) -> None:
    host.run("hook", "install", "opencode", "--yes")
    plugin = host.root.parent / ".config" / "opencode" / "plugin" / "bot-bottle.js"
    running = in_node(plugin, EVENTS["opencode", "tool.execute.before"], host)
    with Inbox() as inbox:
        item = question(inbox)
        assert "cwd:     /work\n" in item.proposal.proposed_file
        decide(inbox, item, status, notes="as the operator said")
    out, err = running.communicate(timeout=60)
    assert (out == "allowed\n") == (status == "approved"), err
    assert ("operator: as the operator said" in err) == (status == "rejected")


def test_opencode_s_plugin_blocks_where_our_program_is_missing(host: Host, tmp_path: Path) -> None:
    plugin = tmp_path / "bot-bottle.js"
    change = settings.install(AGENTS["opencode"], plugin, ["/no/such/program"], every=True, timeout=1)
    settings.apply(change)
    out, err = in_node(plugin, EVENTS["opencode", "tool.execute.before"], host).communicate(timeout=60)
    assert "allowed" not in out and "ENOENT" in err
    looks = {"input": {"tool": "read"}, "output": {}}
    assert in_node(plugin, looks, host).communicate(timeout=60)[0] == "allowed\n"
