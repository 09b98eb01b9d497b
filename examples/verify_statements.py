"""Was every statement in a database signed by a key in this keyring? Written from docs/statements.md alone.

    python examples/verify_statements.py ~/.bot-bottle/db/bot-bottle.db ~/.bot-bottle/keys/public/keyring

It needs `pip install cryptography` and nothing of bot-bottle, so that it can disagree. It prints what does not verify,
and ends with 1 if there is anything. It reads with the standard library's sqlite3: run it as a process of its own.
"""

from __future__ import annotations

import base64
import hashlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


def decisions(rows: Callable[..., list[sqlite3.Row]]) -> Iterator[Statement]:
    for r in rows(
        "SELECT p.id, p.bottle_slug, p.tool, p.proposed_file, r.* "
        "FROM responses r JOIN proposals p ON p.seq = r.proposal_seq"
    ):
        final = {"approved": r["proposed_file"], "modified": r["final_file"]}.get(r["status"])
        yield Statement(f"the decision on {r['id']}", r["key_id"], r["signature"], r["decided_at"], r["decided_by"], [
            "bot-bottle/decision/1", r["key_id"], r["id"], r["bottle_slug"], r["tool"], sha256(r["proposed_file"]),
            r["review_sha256"], r["status"], None if final is None else sha256(final), sha256(r["notes"]), r["scope"],
            r["decided_by"], r["surface"], r["decided_at"],
        ])  # fmt: skip


def questions(rows: Callable[..., list[sqlite3.Row]]) -> Iterator[Statement]:
    for r in rows(
        "SELECT m.*, p.id AS about, p.bottle_slug, p.tool, p.proposed_file "
        "FROM messages m JOIN proposals p ON p.seq = m.proposal_seq WHERE m.sender = 'operator'"
    ):
        yield Statement(f"question {r['id']}", r["key_id"], r["signature"], r["written_at"], r["written_by"], [
            "bot-bottle/question/1", r["key_id"], r["id"], r["about"], r["bottle_slug"], r["tool"],
            sha256(r["proposed_file"]), sha256(r["text"]), r["written_by"], r["surface"], r["written_at"],
        ])  # fmt: skip


def grants(rows: Callable[..., list[sqlite3.Row]]) -> Iterator[Statement]:
    for r in rows("SELECT * FROM grants"):
        yield Statement(f"grant {r['id']}", r["key_id"], r["signature"], r["created_at"], r["created_by"], [
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
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, encode(statement.fields))
    except (ValueError, InvalidSignature):
        return "the signature does not fit"
    return None


def main(database: str, keyring_file: str) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row

    def rows(sql: str, *values: str) -> list[sqlite3.Row]:
        return connection.execute(sql, values).fetchall()

    keys = keyring(keyring_file)
    checked = wrong = 0
    for kind in (decisions, questions, grants, registrations):
        for statement in kind(rows):
            checked += 1
            if reason := problem(statement, keys):
                wrong += 1
                print(f"{statement.subject}: {reason}")
    print(f"{checked} statements, {wrong} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
