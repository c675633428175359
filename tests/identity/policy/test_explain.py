"""Why: which rule, and which condition of the nearest ones failed."""

from __future__ import annotations

from typing import Any

import pytest

from immured.identity.actor import Actor
from immured.identity.policy.decide import Decider
from immured.identity.policy.explain import Explanation, explain
from immured.identity.policy.warrant import HOST, Narrowing, Target
from tests.identity.policy.people import NOW, actor, key, policy
from tests.identity.policy.test_decide import certified

TEXT = """
[roles.viewer]
[roles.operator]
includes = ["viewer"]
[tenants.acme]
projects = ["web"]
[tenants.beta]
[[rules]]
name = "allows"
roles = ["operator"]
allow = ["sandbox.kill"]
"""


def why(conditions: str, who: Actor, on: Target | None = None, extra: str = "") -> Explanation:
    return explain(Decider(policy(TEXT + conditions + extra)), who, "sandbox.kill", NOW, on)


@pytest.mark.parametrize(
    ("conditions", "who", "on", "failed"),
    [
        ("scope='own'", {"role": "viewer"}, {}, ["role: it is for operator, and 'viewer' includes none of them"]),
        ("scope='own'\nkeys=['eve']", {}, {}, ["key: it is for eve"]),
        ("scope='own'\nsession=true", {}, {}, ["session: it holds only in a session"]),
        ("scope='own'\nfrom=2030-01-01T00:00:00Z", {}, {}, ["time: it begins at 2030-01-01T00:00:00Z"]),
        ("scope='own'\nuntil=2020-01-01T00:00:00Z", {}, {}, ["time: it ended at 2020-01-01T00:00:00Z"]),
        ("scope='own'", {}, {"owners": ("ed25519:x",)}, ["scope: it reaches what is one's own, and that is not"]),
        (
            "scope='tenant'",
            {},
            {"tenant": "acme"},
            ["scope: it reaches the tenant 'default', and that belongs to the tenant 'acme'"],
        ),
        (
            "scope='tenant'",
            {},
            {"tenant": HOST},
            ["scope: it reaches the tenant 'default', and that belongs to the host"],
        ),
        ("scope='tenant'", {"tenant": "acme"}, {"tenant": "acme"}, ["tenant: the key is not bound to 'acme'"]),
        ("scope='host'\ntenants=['acme']", {}, {}, ["tenant: it is for acme, and that is 'default'"]),
        ("scope='host'\nprojects=['web']", {}, {}, ["project: it is for web, and that is 'default'"]),
        ("scope='host'\nclasses=['open']", {}, {}, ["class: it is for open, and that is of none"]),
        ("scope='host'\nlabels={team='red'}", {}, {}, ["label: it asks for team = 'red'"]),
        (
            "scope='host'",
            {"projects": ["web"], "tenants": ["acme"], "tenant": "acme", "project": "web"},
            {"tenant": "acme"},
            ["project: the key is bound to web"],
        ),
        (
            "scope='own'\nsession=true\nkeys=['eve']\nfrom=2030-01-01T00:00:00Z",
            {},
            {},
            ["key: it is for eve", "session: it holds only in a session", "time: it begins at 2030-01-01T00:00:00Z"],
        ),
    ],
)
def test_every_condition_that_fails_is_named(
    conditions: str, who: dict[str, Any], on: dict[str, Any], failed: list[str]
) -> None:
    names = {name: who.pop(name) for name in ("tenant", "project") if name in who}
    asking = actor(key(who.pop("role", "operator"), **who), **names)
    place = Target(on.pop("tenant", "default"), "default", on.pop("owners", asking.owners), **on)
    said = why(conditions, asking, place)
    assert not said.allowed
    assert [(one.rule, one.effect, list(one.failed)) for one in said.rules] == [("allows", "allow", failed)]


def test_the_rule_that_allows_is_said() -> None:
    said = why("scope = 'own'", actor(key("operator")))
    assert (said.allowed, said.rule, said.why) == (True, "allows", "the rule 'allows' allows it")
    assert said.to_map()["rules"] == [{"rule": "allows", "effect": "allow", "failed": []}]


def test_the_rule_that_denies_is_said() -> None:
    deny = "\n[[rules]]\nname = 'denies'\nroles = ['viewer']\ndeny = ['sandbox.kill']\n"
    said = why("scope = 'own'", actor(key("operator")), extra=deny)
    assert (said.allowed, said.rule) == (False, "denies")
    assert "'denies' denies 'sandbox.kill'" in said.why
    assert [one.rule for one in said.rules] == ["allows", "denies"]


def test_a_denial_by_default_names_no_rule() -> None:
    assert "rule" not in why("scope = 'own'", actor(key("viewer"))).to_map()


def test_a_persona_that_leaves_a_keys_own_rule_behind() -> None:
    own = "\n[[rules]]\nname = 'keys'\nkeys = ['bob']\nallow = ['sandbox.kill']\nscope = 'host'\n"
    said = why("scope = 'own'\nkeys=['eve']", actor(key("operator"), persona="viewer"), extra=own)
    assert not said.allowed
    by = {one.rule: one.failed for one in said.rules}
    assert by["keys"] == ("persona: the rule is the key's own, and the command is given as 'viewer'",)


def test_controls_that_wait_are_said() -> None:
    control = "\n[[controls]]\nname = 'two'\npermissions = ['sandbox.kill']\napprovers = ['viewer']\n"
    said = why("scope = 'own'", actor(key("operator")), extra=control)
    assert said.allowed
    assert said.controls == ("two",)
    assert "once two is fulfilled" in said.why


def test_a_certificate_that_does_not_pass_it_on() -> None:
    said = why("scope = 'own'", certified(Narrowing(frozenset({"run"})), root="operator"))
    assert not said.allowed
    assert said.rules[0].failed == ("certificate: it does not pass that on",)


def test_the_nearest_rules_come_first() -> None:
    farther = "\n[[rules]]\nname='far'\nkeys=['eve']\nroles=['viewer']\nallow=['sandbox.kill']\nscope='host'\n"
    farther += "session=true\n"
    said = why("scope = 'own'\nkeys=['eve']", actor(key("operator")), extra=farther)
    assert [one.rule for one in said.rules] == ["allows", "far"]
