"""What is wrong with a policy that parses: rules that never decide, names that nobody has, ways to more rights. Pure.

`error`: it cannot mean what it says. `warning`: it probably does not. `note`: worth knowing. Rules are judged by
walking through every situation that the policy can tell apart (`space.py`), so that what is called unreachable is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider, in_force
from immured.identity.policy.permissions import ADDING, ALSO_ADD, PERMISSIONS
from immured.identity.policy.schema import Control, Policy, Rule, Scope
from immured.identity.policy.space import Atoms, Situation, Subject, atoms_of, situations
from immured.identity.policy.warrant import holds_of
from immured.wire.strict import nearest

__all__ = ["Finding", "Severity", "analyse"]

_SELF_HELP: Final = (ADDING, *sorted(ALSO_ADD))
"""By these a role makes a second key of its own kind."""


class Severity(StrEnum):
    """How much it matters."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing. `kind` is one of unreachable, redundant, idle, unknown-name, escalation, nobody, unused.

    `where` is the rule, role or control, `of` the permission if it is about one.
    """

    severity: Severity
    kind: str
    where: str
    message: str
    of: str = ""

    def to_map(self) -> dict[str, object]:
        """As `immure policy check --json` shows it."""
        shown: dict[str, object] = {
            "severity": self.severity.value,
            "kind": self.kind,
            "where": self.where,
            "message": self.message,
        }
        return shown | ({"permission": self.of} if self.of else {})


def analyse(
    policy: Policy,
    now_ms: int,
    *,
    records: Collection[KeyRecord] | None = None,
    classes: Collection[str] | None = None,
    paths: Collection[str] | None = None,
) -> list[Finding]:
    """Everything, worst first. What is None is not known, and names of it are not judged.

    Raises ConfigurationError `policy_too_large` where its rules tell more situations apart than can be looked at.
    """
    decider = Decider(policy)
    walk = _walked(decider, now_ms)
    found = [
        *_rules(policy, walk, now_ms),
        *_nobody(walk),
        *_escalations(decider, walk),
        *_unused(policy),
        *_names(policy, records, classes, paths),
    ]
    order = list(Severity)
    return sorted(found, key=lambda one: order.index(one.severity))


# -- what becomes of every rule, in every situation


@dataclass(slots=True)
class _Seen:
    """What became of one rule and one permission, in all situations in which it holds."""

    holds: bool = False
    decides: bool = False
    """Without it the answer would be another."""
    matters: bool = False
    """The answer is its own: it allows and nothing denies, or it denies what something allows."""
    others: frozenset[str] | None = None
    """The rules that hold wherever it matters."""
    against: frozenset[str] | None = None
    """The rules that deny wherever it would allow."""

    def note(self, name: str, allows: frozenset[str], denies: frozenset[str]) -> None:
        """One situation in which it holds, with all the rules that do."""
        self.holds = True
        if name in allows and denies:
            self.against = denies if self.against is None else self.against & denies
            return
        if name in denies and not allows:
            return
        same = (allows if name in allows else denies) - {name}
        self.matters = True
        self.others = same if self.others is None else self.others & same
        self.decides = self.decides or not same


@dataclass(slots=True)
class _Walk:
    """`seen` by rule and permission; `able`: by permission, who may that somewhere, some time; `beyond`: to others'."""

    seen: dict[tuple[str, str], _Seen] = field(default_factory=dict)
    able: dict[str, set[Subject]] = field(default_factory=dict)
    beyond: dict[str, set[Subject]] = field(default_factory=dict)


def _walked(decider: Decider, now_ms: int) -> _Walk:
    walk = _Walk()
    named = {permission for rule in decider.policy.rules for permission in rule.permissions}
    for permission in sorted(named):
        atoms = atoms_of([decider.policy], permission, now_ms)
        for role in decider.policy.roles:
            for key in (None, *atoms.keys):
                _walk_of(decider, walk, Subject(role, key), permission, atoms)
    return walk


def _walk_of(decider: Decider, walk: _Walk, subject: Subject, permission: str, atoms: Atoms) -> None:
    about: dict[bool, tuple[Rule, ...]] = {}
    for asked in situations(subject, permission, atoms):
        session = asked.actor.session is not None
        if session not in about:
            about[session] = decider.about(asked.actor, permission)
        holding = [rule for rule in about[session] if _holds(rule, asked)]
        allows = frozenset(rule.name for rule in holding if rule.allow)
        denies = frozenset(rule.name for rule in holding if not rule.allow)
        if allows and not denies:
            walk.able.setdefault(permission, set()).add(subject)
            if not asked.own:
                walk.beyond.setdefault(permission, set()).add(subject)
        for rule in holding:
            walk.seen.setdefault((rule.name, permission), _Seen()).note(rule.name, allows, denies)


def _holds(rule: Rule, asked: Situation) -> bool:
    if not in_force(rule, asked.now_ms) or (rule.allow and rule.scope is not Scope.HOST and not asked.member):
        return False
    return holds_of(rule, asked.actor, asked.target)


# -- rules that never decide


def _rules(policy: Policy, walk: _Walk, now_ms: int) -> Iterator[Finding]:
    for rule in policy.rules:
        if rule.until_ms is not None and rule.until_ms <= now_ms:
            yield Finding(Severity.ERROR, "unreachable", rule.name, f"the rule {rule.name!r} has ended")
            continue
        nothing = _Seen()
        yield from _judged(rule, {name: walk.seen.get((rule.name, name), nothing) for name in sorted(rule.permissions)})


def _judged(rule: Rule, seen: dict[str, _Seen]) -> Iterator[Finding]:
    name = rule.name
    for permission, one in seen.items():
        if not one.holds:
            message = f"the rule {name!r} never holds for {permission!r}: nobody and nothing can meet its conditions"
            yield Finding(Severity.ERROR, "unreachable", name, message, permission)
        elif not one.matters and rule.allow:
            by = f": {_listed(one.against)} denies it" if one.against else ": rules that deny it are always there"
            message = f"the rule {name!r} never allows {permission!r}{by}"
            yield Finding(Severity.ERROR, "unreachable", name, message, permission)
        elif not one.matters:
            message = f"the rule {name!r} denies {permission!r}, which no rule allows to anybody that it is about"
            yield Finding(Severity.NOTE, "idle", name, message, permission)
        elif not one.decides:
            by = f"{_listed(one.others)} says the same" if one.others else "other rules say the same"
            message = f"the rule {name!r} is not needed for {permission!r}: {by}"
            yield Finding(Severity.NOTE, "redundant", name, message, permission)


# -- permissions that nobody has


def _nobody(walk: _Walk) -> Iterator[Finding]:
    for permission in PERMISSIONS:
        if permission not in walk.able:
            yield Finding(Severity.WARNING, "nobody", permission, f"nobody may {permission!r}, ever", permission)


# -- who can give himself what


def _escalations(decider: Decider, walk: _Walk) -> Iterator[Finding]:
    policy = decider.policy
    whole = [control for control in policy.controls if not control.classes and not control.added]
    controlled = {name for control in whole for name in control.permissions}
    if ADDING in controlled:
        controlled |= ALSO_ADD
    for role in _roles(walk, "policy.set"):
        if "policy.set" not in controlled:
            message = f"one key of the role {role!r} can give itself everything: 'policy.set' is under no control"
            yield Finding(Severity.NOTE, "escalation", role, message, "policy.set")
    for control in policy.controls:
        yield from _self_approval(decider, walk, control, controlled)


def _roles(walk: _Walk, permission: str) -> list[str]:
    # One's own key, whatever one makes of it, stays one voice.
    able = (walk.beyond if permission in ALSO_ADD else walk.able).get(permission, ())
    return sorted({subject.role for subject in able if subject.key is None})


def _self_approval(decider: Decider, walk: _Walk, control: Control, controlled: set[str]) -> Iterator[Finding]:
    """Who may do what is controlled, approve it, and make a second key to approve it with, is under no control."""
    doing = {subject.role for name in control.permissions for subject in walk.able.get(name, ())}
    for role in sorted(doing & set(_roles(walk, "proposal.approve"))):
        by = [name for name in _SELF_HELP if role in _roles(walk, name) and name not in controlled]
        if by and decider.roles(role) & control.approvers:
            message = (
                f"the role {role!r} can approve what it proposes itself under the control {control.name!r}: "
                f"it makes the second key by {by[0]!r}, which is under no control"
            )
            yield Finding(Severity.WARNING, "escalation", control.name, message, by[0])


# -- names


def _unused(policy: Policy) -> Iterator[Finding]:
    named = {name for rule in policy.rules for name in rule.roles}
    for role in policy.roles:
        if not policy.closure(role) & named:
            message = f"no rule is about the role {role!r}: whoever has it may do nothing"
            yield Finding(Severity.WARNING, "unused", role, message)


def _names(
    policy: Policy,
    records: Collection[KeyRecord] | None,
    classes: Collection[str] | None,
    paths: Collection[str] | None,
) -> Iterator[Finding]:
    if records is not None:
        known = {name for record in records for name in (record.name, record.id)}
        for rule in policy.rules:
            yield from _unknown(rule.name, "key", rule.keys, known)
        for record in records:
            yield from _unknown(f"key {record.name}", "role", {record.role}, policy.roles)
            yield from _unknown(f"key {record.name}", "tenant", record.tenants, policy.tenants)
    if classes is not None:
        listed = [(rule.name, rule.classes) for rule in policy.rules]
        listed += [(control.name, control.classes) for control in policy.controls]
        for where, named in listed:
            yield from _unknown(where, "class", named, classes)
    if paths is not None:
        for tenant in policy.tenants.values():
            yield from _unknown(f"tenant {tenant.name}", "host path", tenant.paths, paths)


def _unknown(where: str, what: str, given: Iterable[str], known: Collection[str]) -> Iterator[Finding]:
    for name in sorted(set(given) - set(known)):
        near = nearest(name, known)
        hint = f"; did you mean {near!r}?" if near else ""
        yield Finding(Severity.ERROR, "unknown-name", where, f"{where}: no {what} is called {name!r}{hint}")


def _listed(names: Iterable[str] | None) -> str:
    return ", ".join(repr(name) for name in sorted(names or ()))
