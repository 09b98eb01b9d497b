"""How does a coding agent on this host ask its operator before it acts?

The commands named after an agent are what that agent starts; the others put them into its settings. Whatever happens to
such a command, it ends as the agent's yes or as its no with a reason, and never in a way that the agent takes for a
broken hook.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from bot_bottle import GrantStore, QueueStore, render_diff
from bot_bottle.agents import hooks, settings
from bot_bottle.agents.hooks import AGENTS, Agent, Answer
from bot_bottle.cli.declare import OneOf, argument, group, option
from bot_bottle.cli.options import duration, json_option, yes_option
from bot_bottle.cli.screen import confirm, print_json, print_quoted, say
from bot_bottle.errors import (
    BotBottleError,
    NotFoundError,
    ProposalExpiredError,
    ProposalWithdrawnError,
    WaitTimeoutError,
)

HOST: Final = "host"
_WAIT: Final = "10m"
_agent_argument = argument("name", metavar="AGENT", type=OneOf(*AGENTS))
_bottle_option = option(
    "--bottle", metavar="SLUG", default=HOST, help="Under which name the operator sees what is asked."
)
_timeout_option = option(
    "--timeout", type=duration, default=_WAIT, metavar="DURATION", help="How long to wait for the operator."
)
_project_option = option("--project", is_flag=True, help="The settings of the project in this directory, not yours.")


class _EndedError(BaseException):
    """A signal ends this, or the time is up; the message says which."""


@group()
def hook() -> None:
    """Have a coding agent on this host ask you before it acts.

    The commands named after an agent are for the agent to start, not for you.

    \b
      bot-bottle hook install claude-code    # from now on it asks here
      bot-bottle hook test claude-code       # show that it does
      bot-bottle hook undo claude-code       # as it was before
    """


def _answering(agent: Agent) -> Callable[..., None]:
    def run(bottle: str, timeout: float) -> None:
        _end(_answer(agent, bottle, timeout))

    run.__doc__ = f"""Answer a hook of {agent.title}, which starts this itself.

    It reads the event on standard input, asks the operator, and ends as {agent.title}'s yes or no. Every failure is a
    no with a reason.

    \b
      bot-bottle hook {agent.name} --bottle {HOST} --timeout {_WAIT}
    """
    return _bottle_option(_timeout_option(run))


for _agent in AGENTS.values():
    hook.command(_agent.name, begins=True)(_answering(_agent))


@hook.command(begins=True)
@_agent_argument
@option("--every", is_flag=True, help="Before each command and change to a file, not only when it would ask you.")
@_project_option
@_bottle_option
@_timeout_option
@yes_option
@json_option
def install(name: str, every: bool, project: bool, bottle: str, timeout: float, yes: bool, as_json: bool) -> None:
    """Have an agent ask here, after showing what that changes in its settings.

    \b
      bot-bottle hook install claude-code
      bot-bottle hook install codex --every --bottle laptop --yes
    """
    agent = AGENTS[name]
    file = settings.path(agent, Path.cwd() if project else None)
    program = [*_program(), "hook", name, "--timeout", f"{timeout:g}s", "--bottle", bottle]
    change = settings.install(agent, file, program, every=every, timeout=timeout)
    asks_each = every or agent.prompt is None
    when = "before each command and change to a file" if asks_each else "whenever it would ask its own user"
    _carry_out(change, f"{agent.title} asks here {when}", _left(agent, asks_each=asks_each), yes=yes, as_json=as_json)


@hook.command(begins=True)
@_agent_argument
@_project_option
@yes_option
@json_option
def undo(name: str, project: bool, yes: bool, as_json: bool) -> None:
    """Take the hook out of an agent's settings again; the rest of them stays.

    \b
      bot-bottle hook undo claude-code    # shows the change, and asks
      bot-bottle hook undo claude-code --yes
    """
    agent = AGENTS[name]
    change = settings.uninstall(agent, settings.path(agent, Path.cwd() if project else None))
    _carry_out(change, f"{agent.title} does not ask here any more", "", yes=yes, as_json=as_json)


@hook.command(begins=True)
@_agent_argument
@_project_option
@json_option
def test(name: str, project: bool, as_json: bool) -> None:
    """Show that an agent's hook asks, and what it makes of a yes, a no, and a failure.

    It runs what stands in the agent's settings as the agent would, about a command that does nothing, and answers in
    your own inbox: once yes and once no. Both stay in its history.

    \b
      bot-bottle hook test claude-code    # after each upgrade of Claude Code
    """
    from bot_bottle.cli.hook_trial import trial

    agent = AGENTS[name]
    file = settings.path(agent, Path.cwd() if project else None)
    command = settings.installed(agent, file)
    if command is None:
        raise NotFoundError(f"{file} has no hook of bot-bottle: 'bot-bottle hook install {name}' puts it there")
    results = trial(agent, command)
    failed = [each for each in results if not each.passed]
    if as_json:
        print_json({"agent": name, "file": str(file), "passed": not failed, "trials": [r._asdict() for r in results]})
    else:
        for each in results:
            say(f"{'ok ' if each.passed else 'NOT OK '} {each.what}: {each.seen}", "good" if each.passed else "alarm")
    if failed:
        raise BotBottleError(f"the hook of {agent.title} does not do what it should: {failed[0].what}")


def _left(agent: Agent, *, asks_each: bool) -> str:
    """The gaps that no setting of the agent closes, in a sentence."""
    if agent.name == "codex":
        headless = "" if asks_each else " 'codex exec' has no prompts, so there only --every asks."
        return f"Codex skips a hook without a word until you have trusted it: open /hooks in Codex once.{headless}"
    if agent.name == "claude-code":
        return (
            "Claude Code's mode bypassPermissions has no prompts, so there only --every asks." if not asks_each else ""
        )
    return ""


def _carry_out(change: settings.Change, done: str, left: str, *, yes: bool, as_json: bool) -> None:
    """Shows the change, asks, and makes it."""
    difference = render_diff(change.before or "", change.after or "", label=change.path.name)
    copy = None
    if difference:
        if not as_json:
            say(f"{change.path}:")
            print_quoted(difference, diff=True)
        confirm("Write this?", yes=yes, undecided="nothing was written")
        copy = settings.apply(change)
    if as_json:
        kept = None if copy is None else str(copy)
        print_json({"file": str(change.path), "changed": bool(difference), "backup": kept, "left": left})
        return
    say(f"{done}." if difference else f"{change.path} says so already.")
    if copy:
        say(f"What was there before is in {copy}.", "quiet")
    if left:
        say(left, "soon")


def _program() -> list[str]:
    """How this program is started from any directory, for the root that is in use."""
    import shutil

    found = shutil.which(sys.argv[0])
    program = [os.path.abspath(found)] if found else [sys.executable, os.path.abspath(sys.argv[0])]
    root = os.environ.get("BOT_BOTTLE_ROOT")
    return ["env", f"BOT_BOTTLE_ROOT={os.path.abspath(root)}", *program] if root else program


def _answer(agent: Agent, bottle: str, timeout: float) -> Answer:
    event = None
    try:
        with _ending():
            signal.setitimer(signal.ITIMER_REAL, max(timeout, 0.1))
            request = hooks.read(agent, _event(agent))
            event = request.event
            signal.setitimer(signal.ITIMER_REAL, signal.getitimer(signal.ITIMER_REAL)[0] + hooks.GRACE)
            return _asked(agent, request, bottle, timeout)
    except _EndedError as ended:
        return hooks.block(agent, event, f"blocked: {ended}")
    except BotBottleError as error:
        return hooks.block(agent, event, f"blocked, as nobody could be asked: {error}")
    except OSError as error:
        reason = error.strerror or str(error)
        return hooks.block(agent, event, f"blocked, as nobody could be asked: {reason}")
    except BaseException as error:  # also an interrupt between two lines: there is no third way to end
        return hooks.block(agent, event, f"blocked, as nobody could be asked: {type(error).__name__}: {error}")


def _event(agent: Agent) -> bytes:
    event = sys.stdin.buffer.read(hooks.MOST_BYTES + 1)
    if len(event) > hooks.MOST_BYTES:
        raise BotBottleError(f"the event of {agent.title} is longer than {hooks.MOST_BYTES:,} bytes")
    return event


def _asked(agent: Agent, request: hooks.Request, bottle: str, timeout: float) -> Answer:
    """Asks the operator, unless an approval already covers it.

    Raises:
        BotBottleError: nobody could be asked.
        _EndedError: the wait ended without an answer; the question is withdrawn.
    """
    proposal = hooks.proposal(bottle, request, timeout)
    if hooks.is_granted(GrantStore(), bottle, request):
        return hooks.allow(agent, request.event, "allowed before")
    with QueueStore(bottle) as queue:
        queue.write_proposal(proposal)
        try:
            response = queue.wait_for_response(proposal.id, timeout + hooks.GRACE)
        except (ProposalExpiredError, WaitTimeoutError):
            raise _EndedError(f"the operator did not decide within {timeout:g} s") from None
        except ProposalWithdrawnError as error:
            raise _EndedError(f"the question was withdrawn: {error.reason}") from None
        except BaseException:
            with contextlib.suppress(BotBottleError):
                queue.withdraw_proposal(proposal.id, "the agent was interrupted")
            raise
    said = hooks.verdict(response)
    return (hooks.allow if said.allowed else hooks.block)(agent, request.event, said.reason)


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Turns the signals by which an agent gets rid of its hook, and the end of its time, into :class:`_EndedError`."""

    def end(number: int, frame: Any) -> NoReturn:
        late = number == signal.SIGALRM
        raise _EndedError("out of time" if late else f"interrupted by {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, end)
    try:
        yield
    finally:
        # Now it can only say no, and another signal must not change that.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)


def _end(answer: Answer) -> NoReturn:
    code = answer.code
    try:
        sys.stderr.write(f"{answer.err}\n" if answer.err else "")
        sys.stderr.flush()
        sys.stdout.write(f"{answer.out}\n" if answer.out else "")
        sys.stdout.flush()
    except OSError:
        code = hooks.BLOCKED
    raise SystemExit(code)
