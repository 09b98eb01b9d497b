"""Which questions do rules answer, and what would they have answered?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bot_bottle import Inbox
from bot_bottle.cli.declare import Whole, group, option
from bot_bottle.cli.options import json_option
from bot_bottle.cli.screen import print_json, print_table, say, say_bypasses, warn
from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.operator import known, live, words
from bot_bottle.operator.alone import alone, running

if TYPE_CHECKING:
    from bot_bottle.cli.screen import Cell
    from bot_bottle.operator.words import Tone
    from bot_bottle.policy.replay import Past, Replayed
    from bot_bottle.policy.rules import Rule
    from bot_bottle.policy.watching import Applied

_RETRY = 1.0
_TONES: dict[str, Tone] = {"approved": "good", "rejected": "bad", "left": "soon", "notify": "plain"}


@group()
def policy() -> None:
    """Have rules answer what you would answer alike each time.

    They stand in policy.toml in bot-bottle's root directory (docs/policy.md). Without a rule that fits, you are asked.

    \b
      bot-bottle policy suggest    # rules from what you decided
      bot-bottle policy test       # what the rules would have decided
      bot-bottle policy run        # apply them
    """


@policy.command()
def run() -> None:
    """Apply the rules to what waits and to what arrives, until interrupted.

    The file is read again when it changes. While it cannot be read or understood no rule counts, and everything is
    asked. Each decision is signed and logged as the policy's, with the rule's name and the hash of the file.

    \b
      bot-bottle policy run                        # in a terminal that stays open
      bot-bottle service install policy --start    # in each session
    """
    from bot_bottle.policy.rules import read
    from bot_bottle.policy.watching import Watcher

    read()  # what cannot be understood at the start is an error
    with alone("policy"):
        while True:
            try:
                with Inbox() as inbox:
                    watcher = Watcher(inbox, _tell, warn)
                    for rows in live.follow(inbox, stopped=watcher.look_again):
                        watcher.take(rows)
            except InvalidInputError:
                raise
            except BotBottleError as error:
                warn(f"{error}; trying again")
                time.sleep(_RETRY)


def _tell(applied: Applied) -> None:
    did = {"left": "left to you", "notify": "matched"}.get(applied.did, applied.did)
    why = f": {words.first_line(applied.why)}" if applied.why else ""
    short = words.short_ids([applied.id])[applied.id]
    about = f"{short}  {applied.tool} of {applied.bottle_slug}"
    say(f"{did:<11}  {about}  by rule '{applied.rule}'{why}", _TONES[applied.did])


@policy.command()
@json_option
def check(as_json: bool) -> None:
    """Say whether the rules can be understood, what they are, and whether they are applied.

    \b
      bot-bottle policy check    # after each change of policy.toml
    """
    from bot_bottle.policy import rules

    found, at_work = rules.read(), running("policy")
    if as_json:
        listed = [_as_json(rule) for rule in found.rules]
        print_json({"path": rules.path(), "sha256": found.sha256 or None, "running": at_work, "rules": listed})
        return
    say_bypasses()
    if not found.sha256:
        say(f"There are no rules: {rules.path()} does not exist. Everything is asked.")
        return
    say(f"{len(found.rules)} rules in {rules.path()}, sha256 {found.sha256}.")
    if found.rules:
        print_table(
            ["Rule", "Verdict", "Matches", "Ends"],
            [((rule.name, "strong"), *rules.described(rule)) for rule in found.rules],
        )
    if at_work:
        say("'bot-bottle policy run' is at work.", "good")
    else:
        say("They are not applied: 'bot-bottle policy run' is not at work.", "soon")


def _as_json(rule: Rule) -> dict[str, Any]:
    return rule._asdict() | {"until": rule.until.isoformat() if rule.until else None}


@policy.command()
@option("--rule", "name", metavar="NAME", help="Only this one.")
@option("--last", "limit", type=Whole(1), default=1000, metavar="N", help="Look at the last N proposals.")
@json_option
def test(name: str | None, limit: int, as_json: bool) -> None:
    """Replay the rules over what people decided: what they would have answered, and where you answered otherwise.

    \b
      bot-bottle policy test
      bot-bottle policy test --rule "package indexes" --last 100
    """
    from bot_bottle.policy import replay, rules

    found = rules.read().rules
    chosen = [rule for rule in found if name in (None, rule.name)]
    if not chosen and name is not None:
        raise known.missing("rule", name, [rule.name for rule in found], where=f" in {rules.path()}")
    if not chosen:
        raise InvalidInputError(f"{rules.path()} has no rules; 'bot-bottle policy suggest' looks for some")
    with Inbox() as inbox:
        decided = replay.past(inbox, limit)
    results = [replay.replay(rule, decided) for rule in chosen]
    if as_json:
        print_json({"decided": len(decided), "rules": [_replayed(each) for each in results]})
        return
    for each in results:
        _print_replayed(each, len(decided))


def _replayed(found: Replayed) -> dict[str, Any]:
    return {
        "rule": found.rule.name,
        "verdict": found.rule.verdict,
        "matched": [each.id for each in found.matched],
        "otherwise": [{"id": each.id, "status": each.status} for each in found.otherwise],
    }


def _print_replayed(found: Replayed, decided: int) -> None:
    would = {"approve": "would have approved", "reject": "would have rejected", "ask": "would have asked about"}
    verb = would.get(found.rule.verdict, "would have told of")
    these = ": these" if found.matched else ""
    say(f"{found.rule.name}: {verb} {len(found.matched)} of the last {decided} decisions{these}", "strong")
    if found.matched:
        _print_past(found.matched, {each.id for each in found.otherwise})
    if found.otherwise:
        say(f"You decided otherwise on {len(found.otherwise)} of them.", "alarm")


def _print_past(found: list[Past], marked: set[str]) -> None:
    ids = words.short_ids(each.id for each in found)
    rows: list[tuple[Cell, ...]] = []
    for each in found:
        proposal = each.item.proposal
        status = words.state(each.status)
        rows.append(
            (
                ids[each.id],
                proposal.bottle_slug,
                proposal.tool,
                words.age(proposal.arrival_timestamp),
                (f"{status[0]} (otherwise)", "alarm") if each.id in marked else status,
                words.first_line(proposal.justification),
            )
        )
    print_table(["ID", "Bottle", "Tool", "Age", "You", "Justification"], rows, text_last=True)


@policy.command()
@option("--least", type=Whole(2), default=3, metavar="N", help="How often the same must have been decided alike.")
@option("--last", "limit", type=Whole(1), default=1000, metavar="N", help="Look at the last N proposals.")
@json_option
def suggest(least: int, limit: int, as_json: bool) -> None:
    """Suggest rules from what was decided alike several times and never otherwise, with the evidence.

    Nothing is written: put what you agree with into policy.toml, and try it with 'bot-bottle policy test'.

    \b
      bot-bottle policy suggest
      bot-bottle policy suggest --least 5 --last 200
    """
    from bot_bottle.policy import replay, rules

    with Inbox() as inbox:
        decided = replay.past(inbox, limit)
    found = list(replay.suggest(rules.read(), decided, least))
    if as_json:
        print_json([{"rule": each.rule, "evidence": [past.id for past in each.evidence]} for each in found])
        return
    if not found:
        say(f"Nothing was decided alike {least} times, and never otherwise, that no rule says already.")
    for each in found:
        say(each.rule.rstrip())
        say(f"These {len(each.evidence)} were decided so:", "quiet")
        _print_past(each.evidence, set())
