"""Does the operator's screen work in a real terminal of the smallest usual size, with a real editor?"""

from __future__ import annotations

from bot_bottle import Inbox
from cli_process import Host
from seat_screen import press, terminal


def test_an_edit_is_sent_once_its_whole_diff_was_seen(host: Host) -> None:
    payload = "FROM debian:12\n" + "".join(f"RUN echo {number}\n" for number in range(200))
    proposal = host.propose(payload, tool="capability-block")
    with terminal(host, "supervise", EDITOR="sed -i s/echo/printf/") as screen:
        press(screen, "m", "Send your version instead?")
        press(screen, "\x1b[1;5F", "Enter yes")  # Ctrl+End
        screen.send("\r")
        screen.expect_exact(f"modified {proposal.id}")
    with Inbox() as inbox:
        answer = inbox.read(proposal.id).response
    assert answer is not None
    assert answer.final_file == payload.replace("echo", "printf")
