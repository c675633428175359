"""Which rule allows or denies one thing, and which condition of the nearest rules failed. Pure.

It asks the same functions that decide, so it cannot say anything else than they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from immured.errors import Refused
from immured.identity.actor import Actor
from immured.identity.policy.decide import Decider, concerns, in_force
from immured.identity.policy.schema import Rule, Scope
from immured.identity.policy.warrant import HOST, Target, holds_of, place_of

__all__ = ["Explanation", "Verdict", "explain"]

_NEAREST = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says. `failed`: its conditions that do not hold, in words; empty: it holds."""

    rule: str
    effect: str
    failed: tuple[str, ...]

    def to_map(self) -> dict[str, object]:
        """As replies show it."""
        return {"rule": self.rule, "effect": self.effect, "failed": list(self.failed)}


@dataclass(frozen=True, slots=True)
class Explanation:
    """`allowed` by `rule`, or denied by it; without one, by default. `why` is the sentence.

    `rules` are those about the permission: those that hold first, then the nearest. `controls` are open until approved.
    """

    allowed: bool
    permission: str
    rule: str | None
    why: str
    rules: tuple[Verdict, ...]
    controls: tuple[str, ...]

    def to_map(self) -> dict[str, object]:
        """As replies show it."""
        shown: dict[str, object] = {
            "allowed": self.allowed,
            "permission": self.permission,
            "why": self.why,
            "rules": [verdict.to_map() for verdict in self.rules],
            "controls": list(self.controls),
        }
        if self.rule is not None:
            shown["rule"] = self.rule
        return shown


def explain(decider: Decider, actor: Actor, permission: str, now_ms: int, target: Target | None = None) -> Explanation:
    """Why `actor` may do that to `target` at that moment, or may not; without one: where the command is given."""
    refused: Refused | None = None
    place = place_of(actor, permission) if target is None else target
    controls: list[str] = []
    try:
        warrant = decider.warrant(actor, permission, now_ms)
        warrant.on_control = lambda control: controls.append(control.name)
        warrant.check(place)
    except Refused as error:
        refused = error
    rules = sorted(_verdicts(decider, actor, permission, now_ms, place), key=lambda one: len(one.failed))
    holding = [one for one in rules if not one.failed]
    nearest = [one for one in rules if one.failed][:_NEAREST]
    if refused is None:
        rule = next(one.rule for one in holding if one.effect == "allow")
        why = f"the rule {rule!r} allows it" + (f", once {', '.join(controls)} is fulfilled" if controls else "")
        return Explanation(True, permission, rule, why, (*holding, *nearest), tuple(dict.fromkeys(controls)))
    denying = next((one.rule for one in holding if one.effect == "deny"), None)
    return Explanation(False, permission, denying, refused.message, (*holding, *nearest), ())


def _verdicts(decider: Decider, actor: Actor, permission: str, now_ms: int, target: Target) -> Iterator[Verdict]:
    for rule in decider.policy.rules:
        if permission in rule.permissions:
            failed = tuple(_failed(decider, actor, permission, rule, now_ms, target))
            yield Verdict(rule.name, "allow" if rule.allow else "deny", failed)


def _failed(decider: Decider, actor: Actor, permission: str, rule: Rule, now_ms: int, target: Target) -> Iterator[str]:
    if rule not in decider.about(actor, permission):
        yield from _not_concerned(decider, actor, rule)
    if not in_force(rule, now_ms):
        ended = rule.until_ms is not None and now_ms >= rule.until_ms
        yield f"time: it ended at {_time(rule.until_ms)}" if ended else f"time: it begins at {_time(rule.from_ms)}"
    if rule.allow and rule.scope is not Scope.HOST and not decider.member(actor):
        yield f"tenant: the key is not bound to {actor.tenant!r}"
    elif not holds_of(rule, actor, target):
        yield from _not_covering(actor, rule, target)
    if rule.allow and actor.root.projects and target.project not in actor.root.projects:
        yield f"project: the key is bound to {_listed(actor.root.projects)}"
    for link in actor.chain:
        if rule.allow and not link.narrowing.covers(permission, target):
            yield "certificate: it does not pass that on"
            break


def _not_concerned(decider: Decider, actor: Actor, rule: Rule) -> Iterator[str]:
    before = list(_unmet(decider, actor, rule))
    yield from before
    if not before and not concerns(rule, actor):
        yield f"persona: the rule is the key's own, and the command is given as {actor.role!r}"


def _unmet(decider: Decider, actor: Actor, rule: Rule) -> Iterator[str]:
    if rule.roles and not rule.roles & decider.roles(actor.role):
        yield f"role: it is for {_listed(rule.roles)}, and {actor.role!r} includes none of them"
    root = actor.root
    if rule.keys and not rule.keys & {*root.called, actor.key_id}:
        yield f"key: it is for {_listed(rule.keys)}"
    if rule.session and actor.session is None:
        yield "session: it holds only in a session"


def _not_covering(actor: Actor, rule: Rule, target: Target) -> Iterator[str]:
    whose = "the host" if target.tenant == HOST else f"the tenant {target.tenant!r}"
    if rule.scope is Scope.TENANT and target.tenant != actor.tenant:
        yield f"scope: it reaches the tenant {actor.tenant!r}, and that belongs to {whose}"
    if rule.scope is Scope.OWN and not actor.owns(target):
        yield "scope: it reaches what is one's own, and that is not"
    for name, wanted, given in (
        ("tenant", rule.tenants, target.tenant),
        ("project", rule.projects, target.project),
        ("class", rule.classes, target.manifest_class),
    ):
        if wanted and given not in wanted:
            yield f"{name}: it is for {_listed(wanted)}, and that is {'of none' if given is None else repr(given)}"
    for key, value in rule.labels:
        if target.labels.get(key) != value:
            yield f"label: it asks for {key} = {value!r}"


def _listed(names: frozenset[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def _time(at_ms: int | None) -> str:
    return "?" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
