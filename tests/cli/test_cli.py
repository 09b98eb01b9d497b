"""Does each command of `bot-bottle` do its job, end to end, as a process?"""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from bot_bottle import AuditEntry, AuditStore, BottleStore, GrantStore, Inbox, Proposal, QueueStore
from cli_process import MORE_ROUTES, ROUTES, Host


def test_pending_on_a_new_host_finds_nothing_and_creates_nothing(host: Host) -> None:
    host.root.mkdir()
    assert host.run("pending").stdout == "No proposal is pending.\n"
    assert host.json("pending") == []
    assert list(host.root.iterdir()) == []


def test_pending_lists_the_oldest_first_and_one_bottle_on_demand(host: Host) -> None:
    first = host.propose("a: 1\n", "the first")
    second = host.propose("a: 2\n", "the second", slug="other")
    assert [item["id"] for item in host.json("pending")] == [first.id, second.id]
    assert [item["id"] for item in host.json("pending", "--bottle", "other")] == [second.id]
    table = host.run("pending").stdout
    assert table.index("the first") < table.index("the second")
    host.run("reject", second.id)
    assert host.run("pending", "--bottle", "other").stdout == "No proposal of bottle other is pending.\n"


def test_pending_prints_what_the_inbox_reads(host: Host) -> None:
    host.propose(expires_in=600)
    with Inbox() as inbox:
        (item,) = inbox.pending()
    assert host.json("pending") == [item.to_dict()]


def test_pending_says_who_waits_when_it_lapses_and_how_often_it_was_asked(host: Host) -> None:
    host.propose(expires_in=600)
    host.propose(expires_in=600)
    table = host.run("pending").stdout
    assert "nobody waited, 2x" in table
    assert "in 10 min" in table


def test_pending_counts_what_it_leaves_out(host: Host) -> None:
    host.propose(justification="x" * 130 + "\nand more")
    output = host.run("pending").stdout
    assert "x" * 100 + " [+39 characters]" in output
    assert "bot-bottle show ID has all of it" in output


def test_short_ids_of_pending_are_accepted_by_show(host: Host) -> None:
    ids = [host.propose(f"n: {n}\n").id for n in range(20)]
    shown = [line.split()[0] for line in host.run("pending").stdout.splitlines()[1:]]
    assert len(shown) == len(set(shown)) == 20
    for full, short in zip(ids, shown, strict=True):
        assert full.startswith(short)
        assert host.json("show", short)["id"] == full


def test_show_prints_the_change_to_the_managed_file(host: Host) -> None:
    host.routes_file()
    proposal = host.propose(justification="to open the pull request", against=ROUTES)
    output = host.run("show", proposal.id[:20]).stdout
    for part in (proposal.id, "to open the pull request", proposal.payload_sha256, "│ +  - host: api.github.com"):
        assert part in output
    assert "WARNING" not in output


def test_show_warns_when_the_managed_file_has_changed_since(host: Host) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    path.write_text("routes: []\n")
    assert f"WARNING: {path} has changed since this was proposed" in host.run("show", proposal.id).stdout


def test_show_says_when_the_managed_file_cannot_be_compared(host: Host) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    path.write_bytes(b"routes: \xff\n")
    output = host.run("show", proposal.id).stdout
    assert "cannot be compared: it is not UTF-8 text (byte 8)" in output
    assert "│   - host: api.github.com" in output
    path.unlink()
    path.symlink_to("/etc/passwd")
    output = host.run("show", proposal.id).stdout
    assert "cannot be compared" in output
    assert "root:" not in output


def test_show_prints_a_payload_without_managed_file_whole(host: Host) -> None:
    payload = "".join(f"line {n} {'y' * 300}\n" for n in range(2000))
    proposal = host.propose(payload, "because\nof\nthat", tool="capability-block")
    output = host.run("show", proposal.id).stdout
    assert "".join(f"│ {line}\n" for line in payload.splitlines()) in output
    assert "│ because\n│ of\n│ that\n" in output


def test_show_json_is_the_review(host: Host) -> None:
    proposal = host.propose()
    shown = host.json("show", proposal.id)
    with Inbox() as inbox:
        assert shown == inbox.review(proposal.id).to_dict()
        assert shown.items() >= inbox.read(proposal.id).to_dict().items()


def test_approve_puts_the_file_in_effect_and_wakes_the_waiter(host: Host) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    answers = []
    with QueueStore("demo") as queue:
        waiter = threading.Thread(target=lambda: answers.append(queue.wait_for_response(proposal.id, timeout=60)))
        waiter.start()
        output = host.run("approve", proposal.id, "--yes", "--notes", "go ahead").stdout
        waiter.join()
    assert f"approved {proposal.id} (egress-allow of demo); {path} is in effect" in output
    assert path.read_text() == MORE_ROUTES
    assert [(answer.status, answer.notes, answer.surface) for answer in answers] == [("approved", "go ahead", "cli")]


def test_decisions_print_the_response(host: Host) -> None:
    proposal = host.propose(tool="capability-block")
    answer = host.json("modify", proposal.id, "--file", "-", "--notes", "smaller", stdin="FROM scratch\n")
    assert answer["proposal_id"] == proposal.id
    assert (answer["status"], answer["notes"], answer["final_file"]) == ("modified", "smaller", "FROM scratch\n")
    with QueueStore("demo") as queue:
        response = queue.read_response(proposal.id)
    assert response is not None
    assert answer == response.to_dict()


def test_reject_carries_the_reason(host: Host) -> None:
    proposal = host.propose()
    assert host.json("reject", proposal.id, "--notes", "use the mirror")["status"] == "rejected"
    with QueueStore("demo") as queue:
        response = queue.read_response(proposal.id)
    assert response is not None
    assert (response.status, response.notes, response.final_file) == ("rejected", "use the mirror", None)


@pytest.mark.parametrize("verb", ["approve", "reject", "modify"])
def test_a_decision_is_refused_for_another_review_than_the_one_looked_at(host: Host, verb: str) -> None:
    proposal = host.propose()
    reviewed = host.json("show", proposal.id)["review_sha256"]
    assert reviewed in host.run("show", proposal.id).stdout
    version = ["--file", "-"] if verb == "modify" else []
    host.run(verb, proposal.id, "--hash", "0" * 64, *version, code=5, stdin="x\n")
    host.run(verb, proposal.id, "--hash", proposal.payload_sha256, *version, code=5, stdin="x\n")
    host.run(verb, proposal.id, "--hash", reviewed[:15], *version, code=2, stdin="x\n")
    assert len(host.json("pending")) == 1
    host.run(verb, proposal.id, "--hash", reviewed[:16].upper(), *version, stdin="x\n")


def test_modify_reads_a_file(host: Host, tmp_path: Path) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    version = tmp_path / "version.yaml"
    version.write_text("routes: []\n")
    host.run("modify", proposal.id, "--file", str(version))
    assert path.read_text() == "routes: []\n"


EDITOR = """#!/bin/sh
printf '%s\\n' "$1" >> "$EDITOR_LOG"
cp "$1" "$EDITOR_LOG.seen"
{action}
"""


@pytest.fixture
def editor(tmp_path: Path) -> Path:
    path = tmp_path / "my editor"
    path.touch()
    path.chmod(0o755)
    return path


def edit(host: Host, editor: Path, action: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    editor.write_text(EDITOR.format(action=action))
    log = editor.with_name("log")
    log.unlink(missing_ok=True)
    return host.run(
        "modify", *arguments, code=code, VISUAL=f"'{editor}'", EDITOR_LOG=str(log), TMPDIR=str(editor.parent)
    )


def test_modify_opens_the_proposed_file_in_the_editor(host: Host, editor: Path) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    edit(host, editor, 'sed -i s/api.github.com/github.com/ "$1"', proposal.id)
    assert editor.with_name("log.seen").read_text() == MORE_ROUTES
    opened = Path(editor.with_name("log").read_text().strip())
    assert opened.name == "routes.yaml"
    assert not opened.parent.exists()
    assert path.read_text() == MORE_ROUTES.replace("api.github.com", "github.com")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("true", "the file is empty or unchanged"),
        ('printf "\\n" >> "$1"', "the file is empty or unchanged"),
        (': > "$1"', "the file is empty or unchanged"),
        ("exit 7", "ended with exit code 7"),
    ],
)
def test_an_edit_without_result_decides_nothing(host: Host, editor: Path, action: str, reason: str) -> None:
    proposal = host.propose("FROM scratch", tool="capability-block")
    done = edit(host, editor, action, proposal.id, code=1)
    assert "nothing was decided" in done.stderr
    assert reason in done.stderr
    assert [item["id"] for item in host.json("pending")] == [proposal.id]
    assert not list(editor.parent.glob("bot-bottle-*"))


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("printf 'mine\\377\\n' > \"$1\"", 2),
        ('echo mine > "$1"; exit 7', 1),
        ('echo mine > "$1"; bot-bottle reject $PROPOSAL > /dev/null', 5),
    ],
)
def test_an_edit_that_cannot_be_used_is_kept(host: Host, editor: Path, action: str, code: int) -> None:
    proposal = host.propose(tool="capability-block")
    done = edit(host, editor, action.replace("$PROPOSAL", proposal.id), proposal.id, code=code)
    kept = Path(done.stderr.split("; your version is kept in ")[1].strip())
    assert kept.read_bytes().startswith(b"mine")
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_an_edit_of_what_cannot_be_modified_is_refused_before_the_editor_opens(host: Host, editor: Path) -> None:
    decided = host.propose("a: 1\n")
    host.run("reject", decided.id)
    edit(host, editor, "true", decided.id, code=5)
    secret = host.propose("a key", tool="gitleaks-allow")
    edit(host, editor, "true", secret.id, code=2)
    assert not editor.with_name("log").exists()


def test_modify_says_when_there_is_no_editor(host: Host) -> None:
    proposal = host.propose()
    assert "set $VISUAL or $EDITOR" in host.run("modify", proposal.id, code=2).stderr
    assert "cannot be started" in host.run("modify", proposal.id, code=2, EDITOR="/nowhere/ed").stderr


def test_history_pages_through_every_state(host: Host) -> None:
    ids = [host.propose(f"n: {n}\n").id for n in range(5)]
    host.run("reject", ids[1], "--notes", "not this one")
    newest = host.run("history", "--limit", "3").stdout
    assert f"bot-bottle history --before {ids[2]}" in newest
    assert [item["id"] for item in host.json("history", "--limit", "3")] == ids[:1:-1]
    older = host.json("history", "--before", ids[2])
    assert [(item["id"], item["state"]) for item in older] == [(ids[1], "rejected"), (ids[0], "pending")]
    assert "not this one" in host.run("history").stdout


def test_audit_lists_decisions_and_verifies(host: Host) -> None:
    host.root.mkdir()
    assert host.json("audit", "list") == []
    host.run("approve", host.propose(justification="to fetch").id, "--yes", "--notes", "fine")
    (entry,) = host.json("audit", "list", "--component", "egress-allow", "--bottle", "demo", "--since", "1h")
    assert (entry["surface"], entry["operator_notes"], entry["justification"]) == ("cli", "fine", "to fetch")
    assert host.json("audit", "list", "--since", "2999-01-01T00:00:00Z") == []
    assert "fine" in host.run("audit", "list").stdout
    assert entry["entry_hash"] in host.run("audit", "list", "--full").stdout
    report = host.json("audit", "verify")
    assert (report["entries"], report["head"]) == (1, entry["entry_hash"])
    assert entry["entry_hash"] in host.run("audit", "verify", "--head", entry["entry_hash"]).stdout
    host.run("audit", "verify", "--head", "f" * 64, code=7)


def test_audit_list_says_when_there_is_more(host: Host) -> None:
    with AuditStore() as store:
        store.write_audit_entries(
            [AuditEntry("2026-01-01T00:00:00.000000Z", "demo", "egress", f"act-{n}") for n in range(4)]
        )
    output = host.run("audit", "list", "--limit", "3").stdout
    assert "act-0" not in output
    assert "There are older entries" in output
    assert len(host.json("audit", "list", "--limit", "3")) == 3


def test_an_approval_can_grant_and_a_grant_be_revoked(host: Host) -> None:
    proposal = host.propose("a secret at x.py:3", tool="gitleaks-allow", fingerprint="rule:x.py:abc")
    host.run("approve", proposal.id, "--yes", "--notes", "a test key", "--grant", "uses:2")
    (grant,) = host.json("grants", "list")
    assert (grant["fingerprint"], grant["uses_left"]) == ("rule:x.py:abc", 2)
    assert "2 more uses" in host.run("grants", "list").stdout
    host.run("grants", "revoke", grant["id"])
    assert host.json("grants", "list") == []
    assert GrantStore().use_grant("demo", "gitleaks-allow", "rule:x.py:abc") is None
    assert "revoked" in host.run("grants", "list", "--all").stdout


def test_a_grant_may_last_for_a_time(host: Host) -> None:
    proposal = host.propose("token", tool="egress-token-allow", fingerprint="api.github.com:abc")
    host.run("approve", proposal.id, "--yes", "--notes", "own token", "--grant", "for:2h")
    assert "for 2 h" in host.run("grants", "list").stdout


def test_bottles_lists_the_running_ones(host: Host) -> None:
    path = host.routes_file()
    host.propose()
    (bottle,) = host.json("bottles")
    assert (bottle["slug"], bottle["pending"], bottle["files"]) == ("demo", 1, {"egress-allow": str(path)})
    assert f"egress-allow → {path}" in host.run("bottles").stdout
    BottleStore().stop("demo")
    assert host.json("bottles") == []
    assert [bottle["slug"] for bottle in host.json("bottles", "--all")] == ["demo"]
    assert "demo" in host.run("bottles", "--all").stdout


def test_a_grant_is_shown_with_each_of_its_uses(host: Host) -> None:
    asked = host.propose("a key", tool="gitleaks-allow", fingerprint="f")
    host.run("approve", asked.id, "--yes", "--notes", "n", "--grant", "uses:5")
    with closing(GrantStore()) as grants:
        (grant,) = grants.list_grants()
        for _ in range(2):
            assert grants.use_grant("demo", "gitleaks-allow", "f")
    shown = host.json("grants", "show", grant.id[:13])
    assert (shown["id"], shown["uses_left"], shown["proposal_id"]) == (grant.id, 3, asked.id)
    entries = {entry["seq"]: entry for entry in host.json("audit", "list")}
    assert [entries[use["seq"]]["timestamp"] for use in shown["used"]] == [use["at"] for use in shown["used"]]
    assert len(shown["used"]) == 2
    printed = host.run("grants", "show", grant.id).stdout
    assert "2 times" in printed and str(shown["used"][1]["seq"]) in printed
    assert "there is no grant" in host.run("grants", "show", "0199d2c4", code=4).stderr


def test_stats_count(host: Host) -> None:
    host.propose()
    with Inbox() as inbox:
        expected = inbox.stats()
    counts = host.json("stats")
    assert counts.keys() == expected.keys() | {"oversight"}
    assert host.run("stats").stdout


def test_db_says_where_and_what_the_database_is(host: Host) -> None:
    assert host.run("db", "path").stdout == f"{host.root}/bot-bottle.db\n"
    assert host.json("db", "status")["exists"] is False
    assert not host.root.exists()
    versions = host.json("db", "migrate")
    state = host.json("db", "status")
    assert {name: module["found"] for name, module in state["modules"].items()} == versions
    text = host.run("db", "status").stdout
    assert all(name in text for name in versions)


def test_db_backup_and_restore_bring_a_state_back(host: Host, tmp_path: Path) -> None:
    proposal = host.propose()
    copy = tmp_path / "copy.db"
    assert host.json("db", "backup", str(copy))["bytes"] == copy.stat().st_size
    host.run("db", "backup", str(copy), code=2)
    host.run("reject", proposal.id)
    before = host.json("db", "restore", str(copy), "--yes")["backup"]
    assert Path(before).is_file()
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


def test_db_rollback_leaves_a_backup_and_migrate_comes_back(host: Host) -> None:
    version = host.json("db", "migrate")["grant_store"]
    result = host.json("db", "rollback", "grant_store", "--to", str(version - 1), "--yes")
    assert Path(result["backup"]).is_file()
    assert host.json("db", "status")["modules"]["grant_store"]["found"] == version - 1
    assert host.json("db", "migrate")["grant_store"] == version


def test_db_check_finds_a_sound_file_sound(host: Host) -> None:
    host.propose()
    assert host.json("db", "check") == []
    assert host.run("db", "check").stdout == "The database is sound.\n"


def test_db_prune_deletes_what_ended_long_ago(host: Host) -> None:
    proposal = host.propose()
    host.run("reject", proposal.id)
    host.propose("still: pending\n")
    assert host.json("db", "prune", "--older-than", "30d") == {"deleted": 0, "backup": None}
    assert "needs --yes" in host.run("db", "prune", "--older-than", "0s", code=2).stderr
    done = host.json("db", "prune", "--older-than", "0s", "--yes")
    assert done["deleted"] == 1
    assert len(Inbox(done["backup"]).history()) == 2
    assert len(host.json("history")) == 1
    assert [entry["operator_action"] for entry in host.json("audit", "list")] == ["rejected", "pruning"]


def test_db_query_reads_every_table_and_writes_none(host: Host) -> None:
    host.propose()
    sql = "select bottle_slug, count(*) as n, null as none, x'00ff' as raw, 9e999 as far from proposals group by 1"
    assert host.json("db", "query", sql) == [{"bottle_slug": "demo", "n": 1, "none": None, "raw": "00ff", "far": "inf"}]
    assert "NULL" in host.run("db", "query", sql).stdout
    assert host.run("db", "query", "select 1 where 0").stdout == "no rows\n"
    host.run("db", "query", "delete from proposals", code=2)
    host.run(
        "db",
        "query",
        "with recursive n(i) as (select 1 union all select i + 1 from n) select sum(i) from n",
        "--timeout",
        "1s",
        code=6,
    )


def test_a_table_is_drawn_without_what_rich_has_besides(host: Host) -> None:
    host.propose()
    report = host.run("pending", PYTHONPROFILEIMPORTTIME="1").stderr
    imported = {line.rsplit("|", 1)[1].strip() for line in report.splitlines()}
    assert "rich.cells" in imported
    unneeded = {"asyncio", "subprocess", "rich.syntax", "rich.markdown", "pygments", "bot_bottle.cli.review"}
    assert not imported & unneeded


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["approve", "\udcff"], "UTF-8 text"),
        (["show", "0192\udcff"], "UTF-8 text"),
        (["history", "--bottle", "\udcff"], "UTF-8 text"),
        (["history", "--limit", str(2**32)], "is more than"),
        (["watch", "--since", str(2**63)], "is more than"),
        (["db", "rollback", "queue_store", "--to", "9" * 30, "--yes"], "is more than"),
    ],
)
def test_what_no_argument_can_be_is_refused_as_such(host: Host, arguments: list[str], says: str) -> None:
    QueueStore("dev").write_proposal(Proposal.new("dev", "capability-block", "x"))
    said = host.run(*arguments, code=2).stderr
    assert says in said
    assert "a bug" not in said
    if says == "UTF-8 text":
        assert json.loads(host.run(*arguments, "--json", code=2).stderr)["error"] == "InvalidInputError"
