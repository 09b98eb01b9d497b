"""What was decided, by whom, and has the log been tampered with?"""

from __future__ import annotations

from bot_bottle import AuditEntry, AuditStore, Database, Inbox
from bot_bottle.cli.declare import Whole, group, option
from bot_bottle.cli.options import any_id, bottle_option, digest, json_option, moment
from bot_bottle.cli.screen import print_fields, print_json, print_quoted, print_table, say
from bot_bottle.operator import known, words


@group()
def audit() -> None:
    """Read and verify the append-only log of decisions.

    \b
      bot-bottle audit list --since 2h    # what was decided, and by whom
      bot-bottle audit verify             # is the log complete and unchanged?
      bot-bottle audit proof 0199d2c4-7e01 > proof.json    # of one decision
    """


@audit.command("list")
@bottle_option
@option(
    "--component", metavar="NAME", check=known.component, help="Only of this component; for a decision it is the tool."
)
@option(
    "--since", type=moment, metavar="TIME", help="Only from this time on (2026-01-31T12:00:00Z), or so long ago (2h)."
)
@option("--limit", type=Whole(1), default=100, help="The newest so many.")
@option("--full", is_flag=True, help="Print all of each entry, diffs included, instead of a table.")
@json_option
def list_(bottle: str | None, component: str | None, since: str | None, limit: int, full: bool, as_json: bool) -> None:
    """List entries, oldest first.

    \b
      bot-bottle audit list --since 7d --bottle dev
      bot-bottle audit list --component egress-allow --full    # with the diffs
    """
    with AuditStore() as store:
        entries = store.read_audit_entries(component, bottle, since=since, limit=limit + 1)
    more, entries = len(entries) > limit, entries[-limit:]
    if as_json:
        print_json([entry.to_dict() for entry in entries])
        return
    if not entries:
        say("There are no entries.")
        return
    if full:
        for entry in entries:
            _print_entry(entry)
    else:
        print_table(
            ["Seq", "Time", "Bottle", "Component", "Action", "By", "Notes"],
            [
                (
                    str(entry.seq),
                    words.clock(entry.timestamp),
                    entry.bottle_slug,
                    entry.component,
                    entry.operator_action,
                    words.author(entry),
                    words.first_line(entry.operator_notes),
                )
                for entry in entries
            ],
            text_last=True,
        )
        say("--full adds justifications and diffs, and whatever [+N characters] counts.", "quiet")
    if more:
        say(f"There are older entries; --limit {limit * 10} shows more.", "quiet")


@audit.command()
@option(
    "--head",
    type=digest,
    metavar="HEX",
    help="A head noted earlier; it must be in the log, so a cut or rebuilt log fails.",
)
@json_option
def verify(head: str | None, as_json: bool) -> None:
    """Recompute the log's hash chain; exit code 7 if it does not fit.

    \b
      bot-bottle audit verify                            # note its head
      bot-bottle audit verify --head e3b0c44298fc1c14    # is it still in the log?
    """
    with AuditStore() as store:
        report = store.verify(head=head)
    if as_json:
        print_json(report.to_dict())
    elif report.entries == 0:
        say("The log is empty.")
    else:
        say(f"{report.entries} entries verify, {report.first_seq} to {report.last_seq}.", "good")
        say(f"Head: {report.head}")


@audit.command()
@any_id
def proof(proposal_id: str) -> None:
    """Print all with which others can verify the decision on ID, as JSON.

    It has the decision and what it is about as they were signed, the entries of the log, and the log's head. Whoever
    has the public keys can check it by examples/verify_statements.py (docs/statements.md).

    \b
      bot-bottle audit proof 0199d2c4-7e01 > proof.json
    """
    from bot_bottle.operator.proof import prove

    with Inbox() as inbox, Database() as database:
        print_json(prove(inbox, database, proposal_id))


def _print_entry(entry: AuditEntry) -> None:
    say(f"Entry {entry.seq}", "strong")
    print_fields(
        [
            ("Time", entry.timestamp),
            ("Bottle", entry.bottle_slug),
            ("Component", entry.component),
            ("Action", entry.operator_action),
            ("By", words.author(entry)),
            ("Proposal", entry.proposal_id or "-"),
            ("Payload", entry.payload_sha256 or "-"),
            ("Final", entry.final_sha256 or "-"),
            ("Hash", entry.entry_hash or "-"),
        ]
    )
    for name, text in (("Justification", entry.justification), ("Notes", entry.operator_notes)):
        if text:
            say(name, "quiet")
            print_quoted(text)
    if entry.diff:
        say("Diff", "quiet")
        print_quoted(entry.diff, diff=True)
    say("")
