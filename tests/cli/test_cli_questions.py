"""How does an operator ask back from the command line, and where does the answer show?"""

from __future__ import annotations

import re

from bot_bottle import Inbox, Proposal, QueueStore
from cli_process import Host


def test_a_question_and_its_answer_are_in_show_and_in_the_list(host: Host) -> None:
    asked = host.propose("a: 1\n", "the build needs it")
    told = host.run("ask", asked.id[:13], "Only for GET?").stdout
    assert told.startswith(f"asked about {asked.id} ({asked.tool} of {asked.bottle_slug}); it stays pending\n")
    assert "Nobody is waiting for it right now" in told
    assert "asked, nobody waited" in host.run("pending").stdout
    with QueueStore(asked.bottle_slug) as queue:
        queue.answer(asked.id, "Yes.\n\x1b[2Japproved by ann")
    assert "answered, nobody waited" in host.run("pending").stdout
    shown = host.run("show", asked.id).stdout
    assert re.search(r"\(cli\) asked, \d+ s ago\n│ Only for GET\?\n", shown)
    # An agent's words stand behind the bar, and deceive nobody.
    assert re.search(r"The requester answered, \d+ s ago\n│ Yes\.\n│ <U\+001B>\[2Japproved by ann\n", shown)
    assert host.json("show", asked.id)["thread"][1]["sender"] == "requester"


def test_a_question_comes_from_the_line_from_standard_input_or_from_the_editor(host: Host) -> None:
    asked = host.propose("a: 1\n")
    assert host.json("ask", asked.id, "from the line")["text"] == "from the line"
    host.run("ask", asked.id, "-", stdin="from\nstandard input\n")
    host.run("ask", asked.id, EDITOR="sh -c 'printf \"from the editor\" > $1' --")
    with Inbox() as inbox:
        texts = [message.text for message in inbox.read(asked.id).thread]
    assert texts == ["from the line", "from\nstandard input", "from the editor"]
    assert "nothing was asked: the file is empty" in host.run("ask", asked.id, EDITOR="true", code=1).stderr
    assert "there is no editor" in host.run("ask", asked.id, EDITOR="", VISUAL="", code=2).stderr


def test_what_cannot_be_asked_about_says_why(host: Host) -> None:
    held = host.propose("a finding", tool="egress-token-allow", fingerprint="f")
    assert "reads no words" in host.run("ask", held.id, "why?", code=2).stderr
    host.run("reject", held.id)
    assert "was already rejected" in host.run("ask", held.id, "why?", code=5).stderr
    asked = host.propose("a: 1\n")
    for words, stdin in (([" "], ""), ([""], ""), (["-"], ""), (["-"], "\n")):
        assert "is blank" in host.run("ask", asked.id, *words, stdin=stdin, code=2).stderr
    assert host.json("show", asked.id)["thread"] == []


def test_a_revision_shows_what_changed_since_and_what_was_asked(host: Host) -> None:
    first = host.propose("a: 1\nb: 2\n")
    host.run("ask", first.id, "Without b?")
    with QueueStore(first.bottle_slug) as queue:
        revision = Proposal.new(first.bottle_slug, first.tool, "a: 1\n", "as you say", revises=first.id)
        queue.write_proposal(revision)
    shown = host.run("show", revision.id).stdout
    assert f"2, in the place of {first.id}" in shown
    assert "About the revision before: " in shown
    assert "│ Without b?\n" in shown
    assert "Changed since the revision before\n" in shown
    assert "│ -b: 2\n" in shown
    assert f"revised as {revision.id}" in host.run("show", first.id).stdout


def test_a_decision_on_what_was_shown_before_the_answer_is_refused(host: Host) -> None:
    asked = host.propose("a: 1\n")
    host.run("ask", asked.id, "Only for GET?")
    seen = host.json("show", asked.id)["review_sha256"]
    with QueueStore(asked.bottle_slug) as queue:
        queue.answer(asked.id, "No, for everything.")
    host.run("approve", asked.id, "--hash", seen, code=5)
    host.run("approve", asked.id, "--hash", host.json("show", asked.id)["review_sha256"])
