"""How is the egress proxy started? As the program ``bot-bottle-egress``, which takes the place of this process.

``python -m bot_bottle.sidecars.egress`` runs beside the other daemons; your own image can run the program directly.
``python -m bot_bottle.sidecars.egress scan FILE`` says what it would find in a file.
``docs/egress.md`` has its settings.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from typing import Final

from bot_bottle.errors import InvalidInputError

PROGRAM: Final = "bot-bottle-egress"


def main() -> int:
    """Becomes the proxy; returns an exit code only if that fails, or if it has scanned a file instead."""
    if sys.argv[1:2] == ["scan"]:
        from bot_bottle.sidecars.egress import scan_file

        return scan_file.main(sys.argv[2:])
    if sys.argv[1:]:
        words = (
            "it takes no arguments but scan FILE, which says what it would find there; docs/egress.md has its settings."
        )
        print(f"egress: {words}", file=sys.stderr)
        return InvalidInputError.exit_code
    found = shutil.which(PROGRAM, path=sysconfig.get_path("scripts")) or shutil.which(PROGRAM)
    if found is None:
        missing = f"{PROGRAM} is neither in this installation nor on PATH; `make build` makes it, and the image has it."
        print(f"egress: {missing}", file=sys.stderr)
        return InvalidInputError.exit_code
    os.execv(found, [found])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.exit(main())
