"""Cedar as the oracle: whatever the policy and the question, it and the daemon's own evaluator say the same."""

from __future__ import annotations

import json
from random import Random

import cedarpy
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.identity.actor import Actor
from immured.identity.policy.cedar import cedar_entities, cedar_policy, cedar_request
from immured.identity.policy.decide import Decider
from immured.identity.policy.explain import explain
from immured.identity.policy.schema import Policy
from immured.identity.policy.warrant import Target
from tests.identity.policy.people import ASKED, NOW, TIMES, actor, any_actor, any_target, key, policies, policy

QUESTIONS = 20


def decides(of: Decider, asking: Actor, permission: str, target: Target, now_ms: int) -> bool:
    try:
        of.warrant(asking, permission, now_ms).check(target)
    except Refused as error:
        if error.code != "denied":
            raise
        return False
    return True


def cedar_decides(
    of: Policy, rules: cedarpy.PolicySet, asking: Actor, permission: str, target: Target, now_ms: int
) -> tuple[bool, set[str]]:
    """Its answer, and the rules that it names for it."""
    request = cedar_request(asking, permission, now_ms)
    answer = cedarpy.is_authorized(request, rules, json.dumps(cedar_entities(of, asking, target)))
    assert not answer.diagnostics.errors, answer.diagnostics.errors
    return bool(answer.allowed), set(answer.diagnostics.id_annotations_by_reason.values())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(of=policies(), seed=st.integers(0, 2**32))
def test_both_say_the_same(of: Policy, seed: int) -> None:
    dice, decider = Random(seed), Decider(of)
    rules = cedarpy.PolicySet.from_str(cedar_policy(of))
    for _ in range(QUESTIONS):
        asking, permission, now_ms = any_actor(dice, of), dice.choice(ASKED), dice.choice(TIMES)
        target = any_target(dice, asking, permission)
        allowed, reasons = cedar_decides(of, rules, asking, permission, target, now_ms)
        event(f"allowed: {allowed}")
        question = (asking, permission, target, now_ms)
        assert decides(decider, *question) is allowed, question
        said = explain(decider, asking, permission, now_ms, target)
        assert said.allowed is allowed
        if said.rule is not None:
            assert said.rule in reasons, (said, reasons)


def test_text_in_labels_cannot_become_policy() -> None:
    """A label's value is an operator's own text: quotes and line breaks in it stay text."""
    hostile = '") }; permit(principal, action, resource); //\u2028é'
    given_policy = policy(
        f"[roles.r]\n[[rules]]\nname = 'a'\nroles = ['r']\nallow = ['sandbox.kill']\nscope = 'host'\n"
        f"labels = {{team = {json.dumps(hostile)}}}\n"
    )
    asking, rules = actor(key("r")), cedarpy.PolicySet.from_str(cedar_policy(given_policy))
    for labels in ({"team": hostile}, {"team": "x"}, {}):
        target = Target("default", "default", (), None, labels)
        expected = labels.get("team") == hostile
        assert cedar_decides(given_policy, rules, asking, "sandbox.kill", target, NOW)[0] is expected
        assert decides(Decider(given_policy), asking, "sandbox.kill", target, NOW) is expected
