"""Do rules decide what they say, and nothing else?"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle import AuditStore, Inbox, InvalidInputError, Proposal, render_diff
from bot_bottle.documents import toml
from bot_bottle.policy import rules, watching
from bot_bottle.policy.judging import judge, matches
from bot_bottle.policy.rules import Policy
from bot_bottle.policy.subject import Subject, before, of_review
from checkout import CHECKOUT
from cli_process import MORE_ROUTES, ROUTES, Host
from policy_process import at_work, state, write
from store_process import eventually

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)
GITHUB = """
[[rule]]
name = "github"
verdict = "approve"
tool = "egress-allow"
host_suffix = "github.com"
reason = "we work there"
"""


def rule(text: str) -> str:
    return f"[[rule]]\nname = 'a'\n{text}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule", "policy.toml"),
        ("rule = " + "[" * 5000, "policy.toml"),
        (".".join("x" * 3_000) + " = 1", "nested too deeply"),
        (rule(f"tool = 'x'\nmax_bytes = 0x{'f' * 5_000}"), "more than 64 bits"),
        ("rules = []", "rules in the file is not known"),
        ("[[rule]]\ntool = 'x'", "each rule needs a name"),
        (rule("colour = 'red'\ntool = 'x'"), "colour in rule 'a' is not known"),
        (rule("verdict = 'maybe'\ntool = 'x'"), "approve, reject, ask, notify"),
        (rule(""), "would match everything"),
        (rule("verdict = 'reject'\nreason = 'no'\nbottle = 'dev'\nmax_bytes = 9"), "would match everything"),
        (rule("verdict = 'approve'\ntool = 'egress-allow'"), "would approve whatever is asked with that tool"),
        (rule("verdict = 'approve'\nhost_suffix = 'com'"), "every host below 'com'"),
        (rule("verdict = 'approve'\npath = '/'"), "path in rule 'a' cannot be '/'"),
        (rule("verdict = 'approve'\npath = 'a/../../b'"), "path in rule 'a' cannot be"),
        (rule("verdict = 'approve'\nhost_suffix = []"), "host_suffix in rule 'a' is empty"),
        (rule("verdict = 'approve'\nhost_suffix = '*'"), "host_suffix in rule 'a'"),
        (rule("verdict = 'approve'\nsha256 = 'abc'"), "sha256 in rule 'a' cannot be"),
        (rule("verdict = 'approve'\ntool = 'gitleaks-allow'\npath = 'tests'"), "needs a reason"),
        (rule("verdict = 'approve'\nhost_suffix = 'a.org'\nscope = 'for:ever'"), "scope in rule 'a'"),
        (rule("verdict = 'reject'\ntool = 'x'"), "needs a reason: the agent reads it"),
        (rule("verdict = 'reject'\nreason = 'no'\ntool = 'x'\nscope = 'once'"), "goes with verdict = 'approve' alone"),
        (rule("tool = 'x'\ntime = '9-17'"), "09:00-18:00"),
        (rule("tool = 'x'\nuntil = 2026-01-31T12:00:00"), "no time with its zone"),
        (rule("tool = 'x'\nmax_bytes = -1"), "max_bytes in rule 'a'"),
        (rule("tool = 'x'") * 2, "two rules are named 'a'"),
        ("[[bottle.dev.rule]]\nname = 'a'\nbottle = 'other'\ntool = 'x'", "bottle has no place in it"),
        ("[bottle.dev]\nrules = 3", "rules in [bottle.dev] is not known"),
    ],
)
def test_a_rule_that_is_not_understood_or_matches_everything_is_named(host: Host, text: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        rules.parse(text)
    assert said in str(raised.value)


def test_only_a_file_of_ones_own_that_nobody_else_reads_counts(host: Host) -> None:
    assert rules.read() == Policy()
    write(host, GITHUB)
    path = host.root / "policy.toml"
    assert [each.name for each in rules.read().rules] == ["github"]
    path.chmod(0o620)
    with pytest.raises(InvalidInputError, match="chmod 600"):
        rules.read()
    path.chmod(0o600)
    path.rename(host.root / "elsewhere")
    path.symlink_to(host.root / "elsewhere")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        rules.read()
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(InvalidInputError, match="no regular file"):
        rules.read()


def subject(host: Host, proposed: str, base: str = ROUTES) -> Subject:
    """What a proposal to change a bottle's routes from ``base`` to ``proposed`` is about."""
    path = host.root / "bottles" / "demo" / "routes.yaml"
    if not path.exists():
        host.routes_file()
    path.write_text(base)
    with Inbox() as inbox:
        return of_review(inbox.review(host.propose(proposed, against=base).id))


def routes(*more: str) -> str:
    return ROUTES + "".join(f"  - {each}\n" for each in more)


APPROVED = [
    routes("host: github.com"),
    routes("host: api.github.com"),
    routes("host: '*.github.com'"),
    routes("host: api.github.com", "host: raw.github.com"),
]
ASKED = [
    routes("host: evilgithub.com"),
    routes("host: github.com.evil.org"),
    routes("host: api.github.com", "host: evil.org"),
    routes("{host: api.github.com, auth: {scheme: Bearer, token_ref: T}}"),
    routes("{host: api.github.com, dlp: {outbound_detectors: false}}"),
    routes("{host: api.github.com, tunnel: true}"),
    "routes:\n  - host: api.github.com\n",  # takes another away
    "routes:\n  - {host: pypi.org, tunnel: true}\n  - host: api.github.com\n",
    "not: [routes",
    ROUTES,
]


@pytest.mark.parametrize("proposed", APPROVED)
def test_hosts_below_the_suffix_are_approved(host: Host, proposed: str) -> None:
    found = judge(rules.parse(GITHUB), subject(host, proposed), NOON)
    assert found.rule is not None and found.rule.name == "github"


@pytest.mark.parametrize("proposed", ASKED)
def test_whatever_else_is_in_the_change_is_asked(host: Host, proposed: str) -> None:
    assert judge(rules.parse(GITHUB), subject(host, proposed), NOON).rule is None


def test_an_added_route_that_overrides_one_for_a_wildcard_is_asked(host: Host) -> None:
    base = routes("{host: '*.github.com', matches: [{methods: [GET]}]}")
    for each in ("host: api.github.com", "host: '*.api.github.com'"):
        assert not judge(rules.parse(GITHUB), subject(host, f"{base}  - {each}\n", base), NOON).rule, each
    assert judge(rules.parse(GITHUB), subject(host, f"{base}  - host: github.com\n", base), NOON).rule


def test_a_path_alone_approves_no_host_and_with_one_all_paths_must_fit(host: Host) -> None:
    text = "verdict = 'approve'\ntool = 'egress-allow'\npath = '/repos/me'\n"
    alone, with_host = rules.parse(rule(text)), rules.parse(rule(f"{text}host_suffix = 'api.github.com'"))

    def asked(*paths: str) -> Subject:
        listed = ", ".join(f"{{type: prefix, value: {each}}}" for each in paths)
        return subject(host, routes(f"{{host: api.github.com, matches: [{{paths: [{listed}]}}]}}"))

    assert judge(with_host, asked("/repos/me", "/repos/me/app"), NOON).rule
    assert not judge(alone, asked("/repos/me"), NOON).rule
    for each in ("/repos/melon", "/repos", "/repos/me/../you", "/repos/me%2f.."):
        assert not judge(with_host, asked("/repos/me", each), NOON).rule, each
    assert not judge(with_host, subject(host, routes("host: api.github.com")), NOON).rule  # any path


def test_one_host_is_enough_to_reject(host: Host) -> None:
    policy = rules.parse(rule("verdict = 'reject'\nreason = 'no'\nhost_suffix = 'evil.org'"))
    assert judge(policy, subject(host, routes("host: a.org", "{host: x.evil.org, tunnel: true}")), NOON).rule
    assert not judge(policy, subject(host, routes("host: a.org")), NOON).rule


SUBJECT = Subject("dev", "egress-allow", "0" * 64, 100, frozenset(["api.github.com"]), None, True)


def test_the_strictest_verdict_counts_in_whatever_order_and_layer() -> None:
    layers = {
        "approve": GITHUB,
        "ask": "[[bottle.dev.rule]]\nname = 'b'\nhost_suffix = 'api.github.com'\n",
        "reject": "[[rule]]\nname = 'c'\nverdict = 'reject'\nreason = 'no'\ntool = 'egress-allow'\n",
        "notify": "[[rule]]\nname = 'd'\nverdict = 'notify'\ntool = 'egress-allow'\n",
    }
    for known in (["approve"], ["ask", "approve"], ["approve", "reject", "ask"], ["reject", "approve"]):
        for order in (known, known[::-1]):
            found = judge(rules.parse(layers["notify"] + "".join(layers[each] for each in order)), SUBJECT, NOON)
            assert found.rule is not None
            assert found.rule.verdict == max(known, key=["approve", "ask", "reject"].index)
            assert [each.name for each in found.notify] == ["d"]
    other = SUBJECT._replace(bottle="other")
    assert judge(rules.parse(layers["ask"]), other, NOON).rule is None
    assert judge(rules.parse(layers["notify"]), SUBJECT, NOON).rule is None


@pytest.mark.parametrize(
    ("condition", "fits", "does_not"),
    [
        ("max_bytes = 100", {"size": 100}, {"size": 101}),
        ("over_bytes = 100", {"size": 101}, {"size": 100}),
        (f"sha256 = '{'0' * 64}'", {}, {"sha256": "1" * 64}),
        ("bottle = ['dev', 'ops']", {"bottle": "ops"}, {"bottle": "other"}),
        ("tool = 'egress-allow'", {}, {"tool": "egress-block"}),
        ("path = 'tests/keys'", {"paths": frozenset(["tests/keys/a.pem"])}, {"paths": frozenset(["tests/keys2"])}),
    ],
)
def test_each_condition_matches_what_it_says(
    condition: str, fits: dict[str, object], does_not: dict[str, object]
) -> None:
    tool = "" if condition.startswith("tool") else "tool = 'egress-allow'\n"
    (found,) = rules.parse(rule(f"{tool}{condition}")).rules
    assert matches(found, SUBJECT._replace(**fits), NOON)  # type: ignore[arg-type]
    assert not matches(found, SUBJECT._replace(**does_not), NOON)  # type: ignore[arg-type]


def test_a_rule_goes_by_the_clock_and_ends() -> None:
    (by_night,) = rules.parse(rule("tool = 'egress-allow'\ntime = '22:00-07:00'")).rules
    assert [hour for hour in range(24) if matches(by_night, SUBJECT, NOON.replace(hour=hour))] == [*range(7), 22, 23]
    (ends,) = rules.parse(rule("tool = 'egress-allow'\nuntil = 2026-01-31T12:00:00Z")).rules
    assert matches(ends, SUBJECT, NOON - timedelta(seconds=1))
    assert not matches(ends, SUBJECT, NOON)


def test_a_finding_is_approved_by_its_path_and_several_at_once_never(host: Host) -> None:
    text = "verdict = 'approve'\ntool = 'gitleaks-allow'\npath = 'tests'\nreason = 'test keys'"
    policy = rules.parse(rule(text))
    with Inbox() as inbox:

        def judged(fingerprint: str) -> object:
            asked = host.propose(fingerprint, tool="gitleaks-allow", fingerprint=fingerprint)
            return judge(policy, of_review(inbox.review(asked.id)), NOON).rule

        assert judged(f"private-key tests/a key.pem {'0' * 32}")
        assert not judged(f"private-key src/tests/a.pem {'0' * 32}")
        assert not judged(f"private-key …tests/a.pem {'0' * 32}")
        assert not judged(f"2 tests/x {'0' * 40}")


LINES = st.lists(
    st.sampled_from(["a", "b", "", "--- a", "+", "@@ -1 +1 @@", "\\ No newline at end of file"]), max_size=12
)


@given(LINES, LINES)
def test_a_diff_of_the_log_leads_back_to_the_file_before_it(old: list[str], new: list[str]) -> None:
    text, proposed = "".join(f"{line}\n" for line in old), "".join(f"{line}\n" for line in new)
    diff = render_diff(text, proposed, label="routes.yaml")
    assert before(diff, proposed) == text
    if diff:
        assert before(diff, "something else\n") != text


def judged_once(policy: str, asked: Proposal) -> list[watching.Applied]:
    with Inbox() as inbox:
        return watching.consider(inbox, rules.parse(policy), asked.id, NOON)


def test_a_decision_of_a_rule_is_signed_and_says_which_rule_of_which_file(host: Host) -> None:
    path = host.routes_file()
    asked = host.propose(against=ROUTES)
    (applied,) = judged_once(GITHUB, asked)
    assert (applied.did, applied.rule) == ("approved", "github")
    assert path.read_text() == MORE_ROUTES
    with Inbox() as inbox:
        answer = inbox.read(asked.id).response
    assert answer is not None and answer.signed
    assert (answer.surface, answer.decided_by) == ("policy", "policy: github")
    assert answer.notes == f"we work there [policy 'github', policy.toml {rules.parse(GITHUB).sha256}]"
    with AuditStore() as store:
        (entry,) = store.read_audit_entries("egress-allow")
        assert (entry.surface, entry.operator_notes) == ("policy", answer.notes)
    assert host.json("stats")["oversight"]["total"]["by_policy"] == 1
    assert judged_once(GITHUB, asked) == []


def test_what_is_odd_or_has_no_scope_to_give_is_left_to_a_person(host: Host) -> None:
    path = host.routes_file()
    odd = host.propose(MORE_ROUTES, "pay\u202epal", against=ROUTES)
    assert [each.did for each in judged_once(GITHUB, odd)] == ["left"]
    asked = host.propose(MORE_ROUTES + "# again\n", against=ROUTES)
    assert [each.did for each in judged_once(GITHUB + "scope = 'for:1h'\n", asked)] == ["left"]
    assert path.read_text() == ROUTES
    token = host.propose("a request", tool="egress-token-allow", fingerprint=f"api.github.com:{'0' * 64}")
    policy = GITHUB.replace("egress-allow", "egress-token-allow") + "scope = 'uses:2'\n"
    assert [each.did for each in judged_once(policy, token)] == ["approved"]
    (grant,) = host.json("grants", "list")
    assert (grant["uses_left"], grant["created_by"]) == (2, "policy: github")


def test_run_applies_the_rules_to_what_waits_and_arrives_and_as_they_change(host: Host) -> None:
    path = host.routes_file()
    first = host.propose(against=ROUTES)
    other = host.propose("FROM a\n", tool="capability-block")
    write(host, GITHUB)
    with at_work(host) as process:
        assert process.stdout is not None
        assert "approved" in process.stdout.readline()
        eventually(lambda: state(first) == "approved")
        assert path.read_text() == MORE_ROUTES
        # One at a time; and a rule that comes later is for what waits too.
        assert "another 'bot-bottle policy run'" in host.run("policy", "run", code=2).stderr
        assert host.json("policy", "check")["running"]
        assert state(other) == "pending"
        no_images = "[[rule]]\nname = 'images'\nverdict = 'reject'\nreason = 'ask me'\ntool = 'capability-block'\n"
        write(host, GITHUB + no_images)
        eventually(lambda: state(other) == "rejected")
        assert "by rule 'images': ask me" in process.stdout.readline()
        # What cannot be understood leaves everything to a person.
        write(host, no_images + "[[")
        assert "no rule counts" in process.stdout.readline()
        asked = host.propose("FROM b\n", tool="capability-block")
        write(host, no_images)
        eventually(lambda: state(asked) == "rejected")
    with AuditStore() as store:
        changed = store.read_audit_entries("policy")
    assert [entry.operator_action for entry in changed] == ["policy-changed"] * 4
    assert changed[2].operator_notes == "no rules"
    assert changed[0].operator_notes.endswith(rules.parse(GITHUB).sha256)
    assert '+name = "github"' in changed[0].diff
    assert host.run("audit", "verify").stdout


def test_replay_says_what_a_rule_would_have_done_and_where_a_person_did_otherwise(host: Host) -> None:
    path = host.routes_file()
    yes = host.propose(against=ROUTES)
    host.run("approve", yes.id, "--yes")
    path.write_text(ROUTES)
    no = host.propose(routes("host: raw.github.com"), against=ROUTES)
    host.run("reject", no.id, "--notes", "not raw")
    host.run("reject", host.propose(routes("host: evil.org"), against=ROUTES).id)
    write(host, GITHUB)
    (found,) = host.json("policy", "test")["rules"]
    assert sorted(found["matched"]) == sorted([yes.id, no.id])
    assert found["otherwise"] == [{"id": no.id, "status": "rejected"}]
    printed = host.run("policy", "test").stdout
    assert "github: would have approved 2 of the last 3 decisions: these" in printed
    assert "You decided otherwise on 1 of them." in printed
    assert "no rule 'x'" in host.run("policy", "test", "--rule", "x", code=4).stderr
    assert "They are not applied" in host.run("policy", "check").stdout


def test_an_approval_that_came_with_a_grant_is_replayed_by_its_own_entry(host: Host) -> None:
    host.routes_file()
    asked = host.propose(against=ROUTES, fingerprint="api.github.com:0")
    host.run("approve", asked.id, "--yes", "--grant", "uses:2")
    write(host, GITHUB)
    (found,) = host.json("policy", "test")["rules"]
    assert (found["matched"], found["otherwise"]) == ([asked.id], [])


def test_what_was_decided_alike_three_times_is_suggested_with_its_evidence(host: Host) -> None:
    path = host.routes_file()
    asked = []
    for name in ("api", "raw", "docs"):
        path.write_text(ROUTES)
        asked.append(host.propose(routes("host: api.github.com", f"host: {name}.example.com"), against=ROUTES))
        host.run("approve", asked[-1].id, "--yes")
    path.write_text(ROUTES)
    for name in "abc":
        host.run("reject", host.propose(routes("host: evil.org", f"host: {name}.org"), against=ROUTES).id)
    # An approval by the host alone would not have let any of the first three through: each was about another one too.
    (found,) = host.json("policy", "suggest")
    (suggested,) = rules.parse(found["rule"]).rules
    assert (suggested.verdict, suggested.host_suffix, suggested.bottle) == ("reject", ("evil.org",), ("demo",))
    assert len(found["evidence"]) == 3
    assert "evil.org" in host.run("policy", "suggest").stdout
    for number in range(3):
        path.write_text(ROUTES)
        one = host.propose(routes("host: api.github.com") + f"# {number}\n", against=ROUTES)
        host.run("approve", one.id, "--yes")
    both = host.json("policy", "suggest")
    assert [rules.parse(each["rule"]).rules[0].verdict for each in both] == ["approve", "reject"]
    write(host, "".join(each["rule"] for each in both))
    assert host.json("policy", "suggest") == []
    assert "Nothing was decided alike" in host.run("policy", "suggest").stdout


def test_a_rule_s_text_is_quoted_whatever_is_in_it() -> None:
    for text in ('"', "\\", 'a"\nverdict = "approve', "\x7f\x00", "ü"):
        (found,) = rules.parse(rule(f"tool = 'x'\nreason = {toml.quoted(f'-{text}')}")).rules
        assert found.reason == f"-{text}"


def test_the_document_s_example_is_understood() -> None:
    text = (CHECKOUT / "docs" / "policy.md").read_text().partition("```toml\n")[2].partition("```")[0]
    assert [each.verdict for each in rules.parse(text).rules] == ["approve", "approve", "reject", "reject"]


def test_a_rejection_is_remembered_as_a_rule_with_an_end(host: Host) -> None:
    write(host, GITHUB)
    asked = host.propose("FROM a\n", tool="capability-block")
    said = host.run("reject", asked.id, "--notes", 'not "that"', "--remember", "1h").stdout
    assert "by a rule in policy.toml" in said and "which it is not" in said
    assert (host.root / "policy.toml").stat().st_mode & 0o777 == 0o600
    kept, added = rules.read().rules
    assert kept == rules.parse(GITHUB).rules[0]
    assert added.until is not None
    again = host.propose("FROM a\n", tool="capability-block")
    elsewhere = host.propose("FROM a\n", tool="capability-block", slug="other")
    now = added.until - timedelta(minutes=59)
    with Inbox() as inbox:
        for each, expected in ((elsewhere, []), (again, ["rejected"])):
            assert [one.did for one in watching.consider(inbox, rules.read(), each.id, now)] == expected
        answer = inbox.read(again.id).response
    assert answer is not None and answer.notes.startswith(f"not \"that\" [policy 'rejected {asked.id}'")
    third = host.propose("FROM a\n", tool="capability-block")
    with Inbox() as inbox:
        assert watching.consider(inbox, rules.read(), third.id, added.until) == []


def test_a_rejection_that_could_not_be_remembered_is_refused_before(host: Host) -> None:
    write(host, "[[")
    asked = host.propose("FROM a\n", tool="capability-block")
    assert "policy.toml" in host.run("reject", asked.id, "--remember", "1h", code=2).stderr
    assert state(asked) == "pending"
