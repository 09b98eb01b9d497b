"""How does an operator approve everything that one bottle asks for, for a while and without being asked?"""

from __future__ import annotations

from bot_bottle.cli.declare import argument, group, option
from bot_bottle.cli.options import bottle_argument, duration, json_option, yes_option
from bot_bottle.cli.screen import confirm, print_json, print_table, say, say_unapplied
from bot_bottle.operator import words
from bot_bottle.operator.alone import running
from bot_bottle.policy import bypass as bypasses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.policy.bypass import Bypass


@group()
def bypass() -> None:
    """Approve what one bottle asks for, unasked and for a while; each call is recorded.

    'bot-bottle policy run' applies it. A rule that rejects or asks counts all the same, and what is damaged or odd is
    left to you. Every face shows it while it is on.

    \b
      bot-bottle bypass start dev --reason "the migration, beside me" --yes
      bot-bottle bypass list
      bot-bottle bypass end dev
    """


@bypass.command(writes=True)
@bottle_argument
@option("--for", "seconds", type=duration, default="1h", metavar="TIME", help="For so long; 8h at most.")
@option("--reason", required=True, metavar="TEXT", help="Why; it stands in the log, and the agent reads it.")
@option(
    "--tool",
    "tools",
    metavar="TOOL",
    multiple=True,
    help="For this tool alone. Those that let a secret pass have to be named. Repeatable.",
)
@yes_option
@json_option
def start(slug: str, seconds: float, reason: str, tools: Sequence[str], yes: bool, as_json: bool) -> None:
    """Begin one, for a bottle that you name.

    \b
      bot-bottle bypass start dev --reason "the migration, beside me" --yes
      bot-bottle bypass start dev --for 20m --reason "new packages" --yes
      bot-bottle bypass start dev --tool egress-allow --reason "a demo" --yes
    """
    what = f" with {', '.join(tools)}" if tools else ", but for what lets a secret pass,"
    confirm(
        f"Approve whatever {slug} asks for{what} for {words.span(seconds)}, without being asked?",
        yes=yes,
        undecided="nothing is bypassed",
    )
    made = bypasses.start(slug, seconds, reason, tuple(tools))
    if as_json:
        print_json({**made.to_dict(), "applied": running("policy")})
        return
    say(f"What {slug} asks for is approved until {words.clock(made.until)}.", "soon")
    say_unapplied("alarm")


@bypass.command(writes=True)
@argument("slug", optional=True)
@json_option
def end(slug: str | None, as_json: bool) -> None:
    """End it now: that of a bottle, or all.

    \b
      bot-bottle bypass end dev
      bot-bottle bypass end    # all that are on
    """
    over = bypasses.end(slug)
    if as_json:
        print_json([_as_json(each) for each in over])
    for each in [] if as_json else over:
        say(f"{each.bottle} is asked about again; {_calls(each)} approved by the bypass.")


@bypass.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List those that are on, and how many calls each has approved.

    \b
      bot-bottle bypass list    # of which bottles, and until when
    """
    found = bypasses.settle()
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    if not found:
        say("Nothing is bypassed.")
        return
    print_table(
        ["Bottle", "Tools", "Ends", "Approved", "Reason"],
        [
            (
                (each.bottle, "strong"),
                ", ".join(each.tools) or "all but secrets",
                (f"in {words.span(each.seconds_left)}", "soon"),
                _calls(each),
                each.reason,
            )
            for each in found
        ],
        text_last=True,
    )
    say_unapplied("alarm")


def _as_json(each: Bypass) -> dict[str, object]:
    return {**each.to_dict(), "calls": each.calls()}


def _calls(each: Bypass) -> str:
    calls = each.calls()
    return "an unknown number of calls" if calls is None else f"{calls} calls" if calls != 1 else "1 call"
