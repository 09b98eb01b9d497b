"""Does examples/verify_statements.py, written from docs/statements.md alone, agree with our own verifier?"""

from __future__ import annotations

import json
import random
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle import AuditEntry, AuditStore, BottleStore, Database, GrantStore, Inbox, Keys, Proposal, QueueStore
from bot_bottle.errors import AuditIntegrityError, InvalidInputError, NotFoundError
from bot_bottle.operator.proof import prove
from store_process import witness

VERIFIER = Path(__file__).parents[2] / "examples" / "verify_statements.py"
# What could be taken for a netstring's frame, for another field, or for other bytes than it has.
TEXTS = (
    "",
    "~",
    "0:,",
    "3:abc,",
    "1:a,1:b,",
    "a,b:c",
    "é",
    "e\u0301",
    "\u202e",
    "\U0001f980",
    "\ufeff",
    "\n",
    "x" * 999,
)


def text(chance: random.Random) -> str:
    """A text of the kind that goes wrong."""
    return "".join(chance.choice((*TEXTS, chr(chance.randrange(32, 0x3000)))) for _ in range(chance.randrange(4)))


def verified(file: Path, keyring: Path) -> tuple[int, list[str]]:
    """How the verifier ends, and its lines."""
    ran = subprocess.run([sys.executable, VERIFIER, file, keyring], capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""
    return ran.returncode, ran.stdout.splitlines()


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A database with some of each statement, and the keyring."""
    chance = random.Random(20260131)
    db = tmp_path / "shared" / "bot-bottle.db"
    db.parent.mkdir(mode=0o700)
    bottles = BottleStore(db)
    for slug in ("dev", "a", "b.c"):
        tools = ("egress-allow", "capability-block")[: chance.randrange(3)]
        bottles.register(
            slug,
            backend="docker",
            files={tool: tmp_path / f"{slug} {tool}" for tool in tools},
            transport="broker",
        )
        for _ in range(chance.randrange(3)):
            bottles.issue_token(slug)
    bottles.stop("b.c")
    with QueueStore("other", db) as queue, Inbox(db) as inbox:
        for number in range(30):
            tool = chance.choice(("egress-allow", "capability-block", "gitleaks-allow"))
            finding = tool == "gitleaks-allow"
            asked = queue.write_proposal(
                Proposal.new(
                    "other",
                    tool,
                    f"{number} {text(chance)}",
                    text(chance),
                    fingerprint=f"{number}" if finding else None,
                )
            )
            if chance.random() < 0.5:
                inbox.ask(asked.id, f"? {text(chance)}", asked_by=f"ann {number}", surface="tui")
            if number == 15:
                Keys(db).rotate()
            status = chance.choice(("approved", "rejected") if finding else ("approved", "modified", "rejected"))
            inbox.decide(
                asked.id,
                status,  # type: ignore[arg-type]
                review_sha256=inbox.review(asked.id).review_sha256,
                notes=f"because {text(chance)}",
                final_file=f"final {text(chance)}" if status == "modified" else None,
                decided_by=f"bob {number}",
                surface=chance.choice(("cli", "web", "api")),
                grant=chance.choice(("uses:3", "for:7200", "bottle", "once"))
                if finding and status == "approved"
                else None,
            )
    return db, Keys(db).keyring_file


def test_it_agrees_on_random_statements(signed: tuple[Path, Path]) -> None:
    db, keyring = signed
    code, lines = verified(db, keyring)
    assert code == 0, lines
    ((decisions, questions, grants, bottles),) = witness(
        db,
        "SELECT (SELECT count(*) FROM responses), (SELECT count(*) FROM messages), (SELECT count(*) FROM grants), "
        "(SELECT count(*) FROM bottles)",
    )
    assert decisions == 30 and questions > 5 and grants > 1 and bottles == 3
    assert lines == [f"{decisions + questions + grants + bottles} statements, 0 of them wrong"]
    with Inbox(db) as inbox:
        assert not [item for item in inbox.history(limit=100) if item.damaged]
    assert len(GrantStore(db).list_grants(live=False)) == grants
    assert not [bottle for bottle in BottleStore(db).list_bottles() if bottle.damaged]


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        *(
            (f"UPDATE responses SET {column} = {value} WHERE proposal_seq = 1", "the decision on ")
            for column, value in {
                "notes": "notes || ' '",
                "review_sha256": "hex(zeroblob(32))",
                "decided_by": "'mallory'",
                "surface": "'policy'",
                "decided_at": "'2026-01-31T12:00:00.000000Z'",
                "scope": "'bottle'",
                "signature": "(SELECT signature FROM responses WHERE proposal_seq = 2)",
                "key_id": "'0123456789abcdef'",
            }.items()
        ),
        *(
            (f"UPDATE messages SET {column} = {column} || 'x' WHERE seq = 1", "question ")
            for column in ("id", "written_by", "written_at", "text")
        ),
        *(
            (f"UPDATE grants SET {column} = {value} WHERE id = (SELECT min(id) FROM grants)", "grant ")
            for column, value in {
                "bottle_slug": "'dev'",
                "tool": "'egress-token-allow'",
                "fingerprint": "fingerprint || '0'",
                "uses": "ifnull(uses, 0) + 1",
                "created_by": "'mallory'",
                "proposal_id": "NULL",
            }.items()
        ),
        *(
            (f"UPDATE bottles SET {column} = {value} WHERE slug = 'dev'", "bottle dev")
            for column, value in {
                "backend": "'smolmachines'",
                "transport": "'mount'",
                "generation": "generation + 1",
                "stopped_at": "started_at",
            }.items()
        ),
        ("INSERT INTO managed_files VALUES ('dev', 'a', '/etc/passwd', '')", "bottle dev"),
        ("INSERT INTO bottle_tokens VALUES (lower(hex(zeroblob(32))), 'dev', '', NULL)", "bottle dev"),
    ],
)
def test_it_names_what_was_changed(signed: tuple[Path, Path], tmp_path: Path, change: str, subject: str) -> None:
    db, keyring = signed
    copy = tmp_path / "copy.db"
    witness(db, f"VACUUM INTO '{copy}'")
    # What keeps rows as they are stands in the way of a change in place, and an attacker would take it away first.
    guards = witness(copy, "SELECT name FROM sqlite_master WHERE type = 'trigger'")
    witness(copy, *(f'DROP TRIGGER "{name}"' for (name,) in guards), change)
    code, lines = verified(copy, keyring)
    assert code == 1
    assert len(lines) == 2 and lines[0].startswith(subject), lines


def test_it_takes_nothing_of_another_host(signed: tuple[Path, Path], tmp_path: Path) -> None:
    db, _ = signed
    strangers = Keys(tmp_path / "elsewhere.db")
    strangers.rotate()
    code, lines = verified(db, strangers.keyring_file)
    assert code == 1
    assert all("no key" in line for line in lines[:-1])


def test_each_decision_has_a_proof_that_verifies_alone(signed: tuple[Path, Path], tmp_path: Path) -> None:
    db, keyring = signed
    kinds = set()
    with Inbox(db) as inbox, Database(db) as database, AuditStore(db) as log:
        for number, item in enumerate(inbox.history(limit=10)):
            found = prove(inbox, database, item.proposal.id)
            kinds.add((item.state, len(found["grants"]), bool(found["questions"])))
            assert (found["head"]["seq"], found["head"]["entry_hash"]) == (log.verify().last_seq, log.head())
            # It is in the log still: this finds the entry by its hash.
            log.verify(head=found["entries"][0]["entry_hash"])
            path = tmp_path / f"{number}.json"
            path.write_text(json.dumps(found))
            code, lines = verified(path, keyring)
            assert code == 0, lines
            assert lines[1].startswith(f"{item.state} by 'bob ")
    assert {state for state, _, _ in kinds} == {"approved", "modified", "rejected"}
    assert {grants for _, grants, _ in kinds} == {0, 1} and {asked for _, _, asked in kinds} == {False, True}


def test_no_byte_of_a_proof_can_be_another(
    signed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db, keyring = signed
    finding = Proposal.new("other", "gitleaks-allow", "x\u202e\n", "why", fingerprint="f")
    with QueueStore("other", db) as queue, Inbox(db) as inbox, Database(db) as database:
        asked = queue.write_proposal(finding).id
        inbox.ask(asked, "what for?")
        review = inbox.review(asked).review_sha256
        inbox.decide(asked, "approved", review_sha256=review, notes="fine", grant="uses:3")
        content = json.dumps(prove(inbox, database, asked), indent=1).encode()
    verify = runpy.run_path(str(VERIFIER))["main"]
    path = tmp_path / "proof.json"

    def accepted(proof: bytes) -> bool:
        path.write_bytes(proof)
        try:
            return bool(verify(str(path), str(keyring)) == 0)
        except SystemExit as ended:
            assert ended.code
            return False

    assert accepted(content)
    # A tenth of the bytes in each run, so that many runs together try all of them.
    for at in random.sample(range(1, len(content)), len(content) // 10):
        assert not accepted(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]), content[at - 20 : at + 20]
    capsys.readouterr()


@pytest.mark.parametrize("part", ["entries", "grants"])
def test_a_proof_without_a_part_is_refused(signed: tuple[Path, Path], tmp_path: Path, part: str) -> None:
    db, keyring = signed
    with Inbox(db) as inbox, Database(db) as database:
        proofs = [prove(inbox, database, item.proposal.id) for item in inbox.history(limit=30)]
    found = next(each for each in proofs if each["grants"])
    path = tmp_path / "proof.json"
    path.write_text(json.dumps({**found, part: found[part][:-1]}))
    code, lines = verified(path, keyring)
    assert code == 1 and "entries are of it, not" in lines[0]


def test_there_is_no_proof_of_what_was_not_decided_as_it_says(signed: tuple[Path, Path]) -> None:
    db, keyring = signed
    with QueueStore("other", db) as queue, Inbox(db) as inbox, Database(db) as database:
        pending = queue.write_proposal(Proposal.new("other", "capability-block", "FROM x\n", "why")).id
        with pytest.raises(InvalidInputError, match="it is pending, not decided"):
            prove(inbox, database, pending)
        with pytest.raises(NotFoundError):
            prove(inbox, database, "0199d2c4-1a2b")
        decided = inbox.history(limit=2)[1].proposal.id
        # Whoever can write the log can add to it, and what is added takes no place of what is there.
        first = prove(inbox, database, decided)
        other = {name: first["entries"][0][name] for name in ("timestamp", "bottle_slug", "component")}
        forged = AuditEntry(**other, operator_action=first["decision"]["status"], proposal_id=decided, decided_by="eve")
        with AuditStore(db) as log:
            log.write_audit_entry(forged)
        assert prove(inbox, database, decided)["entries"] == first["entries"]
    keyring.write_text(keyring.read_text().splitlines()[0] + "\n")
    with Inbox(db) as inbox, Database(db) as database, pytest.raises(AuditIntegrityError, match="no proof of"):
        prove(inbox, database, decided)
