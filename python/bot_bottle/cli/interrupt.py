"""What does Ctrl-C do to a decision? It undoes it or, if that is too late, the command first prints the decision."""

from __future__ import annotations

# `signal` turns everything into enums, and importing it takes too long for a decision.
import _signal  # type: ignore[import-not-found]

from bot_bottle._native import committed_decisions


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
    """Inside, Ctrl-C hides no decision that was committed; :func:`told` says when the operator knows of it."""

    _is_set = False

    def __enter__(self) -> None:
        # A program with a handler of its own deals with it.
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _decisions.interrupt)
            self._is_set = True

    def __exit__(self, *_: object) -> None:
        if self._is_set:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def told() -> None:
    """Must be called once the operator can read what was decided.

    Raises:
        KeyboardInterrupt: Ctrl-C came when it had been committed already.
    """
    _decisions.told = committed_decisions()
    if _decisions.pressed:
        _decisions.pressed = False
        raise KeyboardInterrupt("interrupted, but the decision above had been made already, and it stands")
