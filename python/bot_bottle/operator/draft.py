"""Where does an operator write their own version of a proposed file, and where is it kept if something fails?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bot_bottle.errors import BotBottleError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle import InboxItem


@contextlib.contextmanager
def drafted(item: InboxItem, kept: Callable[[str], object]) -> Iterator[Path]:
    """A file with the proposed text, for an editor. It is deleted afterwards, unless its use failed
    and the operator has worked on it: then the error says where it is, or ``kept`` is called with its path."""
    import tempfile
    from pathlib import Path

    proposed = item.proposal.proposed_file.encode()
    # A private directory (0700), so that the file can have the name by which editors recognise its kind.
    name = os.path.basename(item.managed_file) if item.managed_file else "proposal.txt"
    draft = Path(tempfile.mkdtemp(prefix="bot-bottle-"), name)
    draft.write_bytes(proposed)
    try:
        yield draft
    except BaseException as error:
        if draft.exists() and not _without_result(draft.read_bytes(), proposed):
            where = f"your version is kept in {draft}"
            if isinstance(error, BotBottleError):
                error.message += f"; {where}"
            else:
                kept(where)
            raise
        _discard(draft)
        raise
    _discard(draft)


def edited(item: InboxItem, draft: Path, *, editor: str = "") -> bytes:
    """Opens ``draft`` in the operator's editor, or else in ``editor``; returns what they made of it.

    Raises:
        BotBottleError: unchanged, empty, or the editor failed.
        InvalidInputError: there is no editor to start.
    """
    _edit(draft, editor, "nothing was decided")
    final = draft.read_bytes()
    if _without_result(final, item.proposal.proposed_file.encode()):
        raise BotBottleError(
            "nothing was decided: the file is empty or unchanged; "
            f"to let it run as it is: bot-bottle approve {item.proposal.id}"
        )
    return final


def written(name: str, *, editor: str = "", undone: str) -> str:
    """What the operator writes in the editor, into an empty file of this name; ``undone`` begins what an error says.

    Raises:
        BotBottleError: nothing, or the editor failed.
        InvalidInputError: there is no editor to start, or it is not UTF-8.
    """
    import tempfile
    from pathlib import Path

    draft = Path(tempfile.mkdtemp(prefix="bot-bottle-"), name)
    draft.touch()
    try:
        _edit(draft, editor, undone)
        text = draft.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{undone}: what you wrote is not UTF-8") from None
    finally:
        _discard(draft)
    if not text:
        raise BotBottleError(f"{undone}: the file is empty")
    return text


def _edit(draft: Path, editor: str, undone: str) -> None:
    import shlex
    import subprocess

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or editor
    if not editor:
        raise InvalidInputError("there is no editor: set $VISUAL or $EDITOR")
    try:
        code = subprocess.run([*shlex.split(editor), str(draft)], check=False).returncode
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"the editor '{editor}' cannot be started ({error}): set $VISUAL or $EDITOR") from error
    if code != 0:
        raise BotBottleError(f"{undone}: the editor '{editor}' ended with exit code {code}")


def _discard(draft: Path) -> None:
    import shutil

    # Editors leave backups and swap files beside it.
    shutil.rmtree(draft.parent, ignore_errors=True)


def _without_result(final: bytes, proposed: bytes) -> bool:
    # Editors add a newline at the end of a file that has none.
    return not final.strip() or final in (proposed, proposed + b"\n")
