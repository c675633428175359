"""Who gains and who loses what: what is said is so, and all that is so is said."""

from __future__ import annotations

from hypothesis import HealthCheck, event, given, settings

from immured.identity.policy.diff import diff
from immured.identity.policy.schema import Policy
from tests.identity.policy.people import ASKED, NOW, key, policies, policy
from tests.identity.policy.test_analyse import differs

HEAD = "[roles.low]\n[roles.high]\nincludes = ['low']\n"
TENANT = "[tenants.acme]\nprojects = ['web']\n"
KILL = "[[rules]]\nname = 'a'\nroles = ['high']\nallow = ['sandbox.kill']\n"


def changes(before: str, after: str) -> list[str]:
    found = diff(policy(HEAD + before), policy(HEAD + after), NOW)
    return [f"{one.subject} {one.effect} {one.permission}: {one.where}" for one in found]


def test_other_words_are_no_difference() -> None:
    both = KILL + "scope = 'own'\n"
    assert changes(both, "# a note\n" + both.replace("'a'", "'b'").replace("['high']", "['high', 'high-er']").replace(
        ", 'high-er'", "")) == []  # fmt: skip


def test_a_rule_that_changes_nothing_is_no_difference() -> None:
    assert (
        changes(KILL + "scope = 'host'\n", KILL + "scope = 'host'\n" + KILL.replace("'a'", "'b'") + "scope='own'\n")
        == []
    )


def test_what_a_role_gains_and_loses() -> None:
    own, tenant, host = (KILL + f"scope = '{scope}'\n" for scope in ("own", "tenant", "host"))
    assert changes("", own) == ["high gains sandbox.kill: in its own tenants, what is its own"]
    assert changes(tenant, own) == ["high loses sandbox.kill: in its own tenants, what is others'"]
    assert changes("", host) == ["high gains sandbox.kill: in any tenant"]
    assert changes(host, "") == ["high loses sandbox.kill: in any tenant"]


def test_roles_that_include_it_gain_too() -> None:
    after = KILL.replace("'high'", "'low'") + "scope = 'tenant'\n"
    assert changes("", after) == [
        "high gains sandbox.kill: in its own tenants",
        "low gains sandbox.kill: in its own tenants",
    ]


def test_conditions_are_said() -> None:
    more = "scope = 'host'\ntenants = ['acme']\nprojects = ['web']\nclasses = ['open']\nlabels = {team = 'red'}\n"
    more += "from = 2028-01-01T00:00:00Z\nuntil = 2029-01-01T00:00:00Z\nsession = true\n"
    said = "in acme, project web, class open, label team = red, in a session"
    said += ", from 2028-01-01T00:00:00Z, until 2029-01-01T00:00:00Z"
    assert changes(TENANT, TENANT + KILL + more) == [f"high gains sandbox.kill: {said}"]


def test_the_host_is_said() -> None:
    after = KILL.replace("sandbox.kill", "policy.set") + "scope = 'host'\n"
    assert changes("", after) == ["high gains policy.set: on the host"]


def test_a_role_that_ends() -> None:
    before = policy("[roles.gone]\n[roles.low]\n" + KILL.replace("high", "gone") + "scope='own'\n")
    after = policy("[roles.low]\n")
    (one,) = diff(before, after, NOW)
    assert (one.subject, one.effect, one.permission) == ("gone", "loses", "sandbox.kill")


def test_a_key_that_is_named() -> None:
    after = KILL.replace("roles = ['high']", "keys = ['bob']") + "scope = 'own'\n"
    assert changes("", after) == [
        f"bob as {role} gains sandbox.kill: in its own tenants, what is its own" for role in ("high", "low")
    ]


def test_by_key_it_is_the_keys_that_there_are() -> None:
    before, after = policy(HEAD + TENANT), policy(HEAD + TENANT + KILL + "scope = 'tenant'\n")
    records = [key("high", "bob", tenants=["acme"]), key("low", "eve", personas=["high"]), key("low", "carol")]
    said = [f"{one.subject} {one.effect} {one.permission}: {one.where}" for one in diff(before, after, NOW, records)]
    assert said == [
        "bob (high) gains sandbox.kill: in its own tenants",
        "eve (high) gains sandbox.kill: in its own tenants",
    ]


def test_what_is_no_rule() -> None:
    control = "[[controls]]\nname = 'two'\npermissions = ['policy.set']\napprovers = ['high']\n"
    rates = "[rates.key]\nper_second = 5\nburst = 9\n"
    after = "[tenants.acme]\nprojects = ['ml']\npaths = ['data']\n[tenants.acme.quota]\nsandboxes = 3\n"
    assert changes(TENANT, after + "[tenants.beta]\n" + rates + control) == [
        "tenant acme gains : the project ml",
        "tenant acme loses : the project web",
        "tenant acme gains : the host path data",
        "tenant acme loses : quota sandboxes: none -> 3",
        "tenant beta begins : ",
        "control two begins : 1 of high for policy.set",
        "rate of a key changes : none -> 5 a second, 9 at once",
    ]


def test_a_new_tenant_is_not_said_of_everybody() -> None:
    rules = KILL + "scope = 'tenant'\n"
    assert changes(rules, TENANT + rules) == ["tenant acme begins : "]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=policies(), after=policies())
def test_a_permission_is_said_to_change_if_and_only_if_it_does(before: Policy, after: Policy) -> None:
    said = {one.permission for one in diff(before, after, NOW)}
    event(f"changes: {len(said)}")
    for permission in ASKED:
        assert (permission in said) is differs(before, after, permission), permission
