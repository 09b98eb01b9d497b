"""What does Ctrl-C do to what a command writes? It undoes it or, if that is too late, the operator is told so."""

from __future__ import annotations

# `signal` turns everything into enums, and importing it takes too long for a decision.
import _signal  # type: ignore[import-not-found]

from bot_bottle._native import committed_decisions, committed_writes


class _Decisions:
    """Those of this process: how many the operator was told of, and whether Ctrl-C came before the last one was."""

    told = 0
    pressed = False

    def interrupt(self, _number: int, _frame: object) -> None:
        # The core counts a decision at the moment it has committed it, before any handler can run. One that is still on
        # its way ends by the exception, and is undone. A second Ctrl-C ends it in any case.
        if self.pressed or committed_decisions() == self.told:
            raise KeyboardInterrupt
        self.pressed = True


_decisions = _Decisions()


class undone_or_told:  # used like a function
    """Inside, Ctrl-C hides no decision that was committed; :func:`told` says when the operator knows of it. One that
    comes before a decision says that nothing was ``done``."""

    _is_set = False

    def __init__(self, done: str = "decided") -> None:
        self.done = done

    def __enter__(self) -> None:
        # A program with a handler of its own deals with it.
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _decisions.interrupt)
            self._is_set = True

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if self._is_set:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        if isinstance(error, KeyboardInterrupt) and not error.args:
            if committed_decisions() > _decisions.told:
                raise KeyboardInterrupt("interrupted twice: what had been decided stands, 'bot-bottle history' has it")
            raise KeyboardInterrupt(f"interrupted: nothing {'more ' if _decisions.told else ''}was {self.done}")


def what_was_written() -> str:
    """What a command that writes says when Ctrl-C ends it."""
    if committed_writes():
        return "interrupted: what it had written by then stands; look at that before you run it again"
    return "interrupted: nothing was written"


def told() -> None:
    """Must be called once the operator can read what was decided.

    Raises:
        KeyboardInterrupt: Ctrl-C came when it had been committed already.
    """
    _decisions.told = committed_decisions()
    if _decisions.pressed:
        _decisions.pressed = False
        raise KeyboardInterrupt("interrupted, but the decision above had been made already, and it stands")
