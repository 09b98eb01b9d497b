"""Was every statement in a database, or in the proof of one decision, signed by a key in this keyring?

    python examples/verify_statements.py ~/.bot-bottle/db/bot-bottle.db ~/.bot-bottle/keys/public/keyring
    python examples/verify_statements.py proof.json ~/.bot-bottle/keys/public/keyring

It is written from docs/statements.md and docs/audit.md alone. It needs `pip install cryptography` and nothing of
bot-bottle, so that it can disagree. It prints what does not verify, and ends with 1 if there is anything. It reads a
database with the standard library's sqlite3: run it as a process of its own.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Key(NamedTuple):
    role: str
    name: str
    public: bytes
    revoked_at: str


class Statement(NamedTuple):
    subject: str
    key_id: str
    signature: str
    made_at: str
    made_by: str | None  # None: a registration, which only the host's own key may sign
    fields: list[str | None]  # the first two, domain and key id, included


def encode(fields: list[str | None]) -> bytes:
    return b"".join(b"~" if f is None else b"%d:%s," % (len(f.encode()), f.encode()) for f in fields)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def keyring(path: str) -> dict[str, Key]:
    with open(path) as file:
        first, *lines = file.read().splitlines()
    if first != "bot-bottle/keyring/1":
        sys.exit(f"{path} is not a keyring")
    keys = {}
    for line in lines:
        identity, role, name, public, _, _, revoked_at = line.split(" ")
        keys[identity] = Key(role, name, base64.b64decode(public, validate=True), revoked_at)
        assert identity == hashlib.sha256(keys[identity].public).hexdigest()[:16]
    return keys


def decision(r: Any) -> Statement:
    final = {"approved": r["proposed_file"], "modified": r["final_file"]}.get(r["status"])
    return Statement(f"the decision on {r['id']}", r["key_id"], r["signature"], r["decided_at"], r["decided_by"], [
        "bot-bottle/decision/1", r["key_id"], r["id"], r["bottle_slug"], r["tool"], sha256(r["proposed_file"]),
        r["review_sha256"], r["status"], None if final is None else sha256(final), sha256(r["notes"]), r["scope"],
        r["decided_by"], r["surface"], r["decided_at"],
    ])  # fmt: skip


def question(r: Any) -> Statement:
    return Statement(f"question {r['id']}", r["key_id"], r["signature"], r["written_at"], r["written_by"], [
        "bot-bottle/question/1", r["key_id"], r["id"], r["about"], r["bottle_slug"], r["tool"],
        sha256(r["proposed_file"]), sha256(r["text"]), r["written_by"], r["surface"], r["written_at"],
    ])  # fmt: skip


def grant(r: Any) -> Statement:
    return Statement(f"grant {r['id']}", r["key_id"], r["signature"], r["created_at"], r["created_by"], [
        "bot-bottle/grant/1", r["key_id"], r["id"], r["bottle_slug"], r["tool"], r["fingerprint"], r["scope"],
        None if r["uses"] is None else str(r["uses"]), r["expires_at"], r["proposal_id"], r["created_at"],
        r["created_by"],
    ])  # fmt: skip


def registrations(rows: Callable[..., list[sqlite3.Row]]) -> Iterator[Statement]:
    for r in rows("SELECT * FROM bottles"):
        files = rows("SELECT tool, path FROM managed_files WHERE bottle_slug = ? ORDER BY tool", r["slug"])
        valid = "SELECT token_sha256 FROM bottle_tokens WHERE bottle_slug = ? AND revoked_at IS NULL ORDER BY 1"
        tokens = rows(valid, r["slug"])
        yield Statement(f"bottle {r['slug']}", r["key_id"], r["signature"], r["stopped_at"] or r["started_at"], None, [
            "bot-bottle/registration/1", r["key_id"], r["slug"], r["backend"], r["transport"], str(r["generation"]),
            r["started_at"], r["stopped_at"], str(len(files)), *(word for file in files for word in file),
            str(len(tokens)), *(token[0] for token in tokens),
        ])  # fmt: skip


def in_database(path: str) -> Iterator[Statement]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row

    def rows(sql: str, *values: str) -> list[sqlite3.Row]:
        return connection.execute(sql, values).fetchall()

    asked = "FROM proposals p JOIN responses r ON r.proposal_seq = p.seq"
    yield from map(decision, rows(f"SELECT p.id, p.bottle_slug, p.tool, p.proposed_file, r.* {asked}"))
    asked = "FROM messages m JOIN proposals p ON p.seq = m.proposal_seq WHERE m.sender = 'operator'"
    yield from map(question, rows(f"SELECT m.*, p.id AS about, p.bottle_slug, p.tool, p.proposed_file {asked}"))
    yield from map(grant, rows("SELECT * FROM grants"))
    yield from registrations(rows)


def in_proof(proof: Any) -> Iterator[Statement]:
    r = proof["decision"]
    yield decision(r)
    about = {"about": r["id"], "bottle_slug": r["bottle_slug"], "tool": r["tool"], "proposed_file": r["proposed_file"]}
    yield from (question({**about, **each}) for each in proof["questions"])
    yield from map(grant, proof["grants"])


def entry_hash(e: Any) -> str:
    names = (
        "timestamp", "bottle_slug", "component", "operator_action", "operator_notes", "justification", "diff",
        "decided_by", "surface", "proposal_id", "payload_sha256", "final_sha256",
    )  # fmt: skip
    fields = ["bot-bottle.audit.v1", str(e["seq"]), e["prev_hash"], *(e[name] for name in names)]
    return hashlib.sha256(encode(fields)).hexdigest()


def disagreements(proof: Any) -> Iterator[str]:
    """Where the audit log does not say what the decision says. Its entry is followed by that of its grant, if any."""
    r, entries, head = proof["decision"], proof["entries"], proof["head"]
    final = {"approved": r["proposed_file"], "modified": r["final_file"]}.get(r["status"])
    of_both = {
        "proposal_id": r["id"], "bottle_slug": r["bottle_slug"], "component": r["tool"], "timestamp": r["decided_at"],
        "decided_by": r["decided_by"], "surface": r["surface"],
    }  # fmt: skip
    decided = {
        "operator_action": r["status"], "operator_notes": r["notes"], "payload_sha256": sha256(r["proposed_file"]),
        "final_sha256": None if final is None else sha256(final),
    }  # fmt: skip
    wanted = [of_both | decided, *(of_both | {"operator_action": "grant-given"} for _ in proof["grants"])]
    if len(entries) != len(wanted):
        yield f"{len(entries)} entries are of it, not {len(wanted)}"
    for entry, says in zip(entries, wanted, strict=False):
        if entry_hash(entry) != entry["entry_hash"]:
            yield f"entry {entry['seq']}: its hash does not fit"
        yield from (f"entry {entry['seq']}: {name} is another" for name in says if entry[name] != says[name])
    for one, after in itertools.pairwise(entries):
        if (after["seq"], after["prev_hash"]) != (one["seq"] + 1, one["entry_hash"]):
            yield f"entry {after['seq']} does not follow entry {one['seq']}"
    for entry in entries:
        if head["seq"] < entry["seq"] or (head["seq"] == entry["seq"] and head["entry_hash"] != entry["entry_hash"]):
            yield f"entry {entry['seq']} is not in the log of this head"
    for given in proof["grants"]:
        if given["proposal_id"] != r["id"]:
            yield f"grant {given['id']} comes from another decision"


def problem(statement: Statement, keys: dict[str, Key]) -> str | None:
    key = keys.get(statement.key_id)
    if key is None:
        return f"no key {statement.key_id!r} is in the keyring"
    if statement.made_by is None and key.role != "host":
        return f"{key.name} is no host"
    if key.revoked_at != "-" and statement.made_at > key.revoked_at:
        return f"the key was revoked at {key.revoked_at}"
    if key.role == "operator" and statement.made_by != key.name:
        return f"it is signed by {key.name}, not by {statement.made_by}"
    try:
        signature = base64.b64decode(statement.signature, validate=True)
        if base64.b64encode(signature).decode() != statement.signature:
            return "the signature has another spelling than its own"
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, encode(statement.fields))
    except (ValueError, InvalidSignature):
        return "the signature does not fit"
    return None


def main(path: str, keyring_file: str) -> int:
    keys = keyring(keyring_file)
    with open(path, "rb") as file:
        is_proof = file.read(1) == b"{"
    if not is_proof:
        return report(list(in_database(path)), keys, [])
    try:
        with open(path, encoding="utf-8") as text:
            proof = json.load(text)
        if proof["format"] != "bot-bottle/proof/1":
            raise ValueError(proof["format"])
        if report(list(in_proof(proof)), keys, list(disagreements(proof))):
            return 1
        r, entry, head = proof["decision"], proof["entries"][0], proof["head"]
        print(f"{r['status']} by {r['decided_by']!r} at {r['decided_at']}: {r['tool']} of {r['bottle_slug']}")
        print(f"entry {entry['seq']} of the log: {entry['entry_hash']}")
        print(f"entry {head['seq']} was the newest: {head['entry_hash']}")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        sys.exit(f"{path} is not a proof: {error!r}")
    return 0


def report(statements: list[Statement], keys: dict[str, Key], disagree: list[str]) -> int:
    reasons = ((statement.subject, problem(statement, keys)) for statement in statements)
    wrong = [f"{subject}: {reason}" for subject, reason in reasons if reason]
    for line in (*wrong, *disagree):
        print(line)
    print(f"{len(statements)} statements, {len(wrong)} of them wrong")
    return 1 if wrong or disagree else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
