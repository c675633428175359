"""Who gains and who loses what by another policy. Pure.

Both policies are asked every question that either can tell apart (`space.py`); what differs in the text alone is no
difference. Roles that only one of them has are asked in the other as roles that nothing is allowed to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.identity.policy.schema import ADDED, Control, Policy, Rule, Tenant
from immured.identity.policy.space import OTHER, Atoms, Situation, Subject, allowed, atoms_of, situations
from immured.identity.quotas import Quota
from immured.identity.rates import Rate, Rates

__all__ = ["Change", "diff"]


@dataclass(frozen=True, slots=True)
class Change:
    """`subject` (a role, or a key by its name and role) `gains` or `loses` a permission, `where`: in words.

    With the permission "" it is about something else than a rule: a tenant, a rate, a control.
    """

    subject: str
    permission: str
    effect: str
    where: str

    def to_map(self) -> dict[str, object]:
        """As `immure policy diff --json` shows it."""
        return {"subject": self.subject, "permission": self.permission, "effect": self.effect, "where": self.where}


def diff(before: Policy, after: Policy, now_ms: int, records: Collection[KeyRecord] | None = None) -> list[Change]:
    """What `after` changes, by role; with `records`, by key. Raises ConfigurationError `policy_too_large`."""
    # A tenant or project that only one of them has is said once, and not for everybody who may act in any.
    deciders = Decider(_declaring(before, after)), Decider(_declaring(after, before))
    changes: list[Change] = []
    for permission in PERMISSIONS:
        touched = _touched(before, after, permission)
        if not touched:
            continue
        atoms = atoms_of((before, after), permission, now_ms)
        for subject in _subjects(before, after, atoms, records):
            if any(_concerns(rule, subject, deciders) for rule in touched):
                changes += _changes(deciders, subject, permission, atoms, now_ms)
    changes.sort(key=lambda change: change.subject)
    return [
        *changes,
        *_tenants(before, after),
        *_controls(before, after),
        *_rates(before, after),
        *_manifests(before, after),
    ]


def _touched(before: Policy, after: Policy, permission: str) -> list[Rule]:
    """The rules about that permission that only one of them has, whatever they are called and permit besides."""
    old, new = (
        Counter(
            replace(rule, name="", permissions=frozenset({permission}))
            for rule in policy.rules
            if permission in rule.permissions
        )
        for policy in (before, after)
    )
    if before.closures != after.closures:
        return [*old, *new]
    return [*(old - new), *(new - old)]


def _concerns(rule: Rule, subject: Subject, deciders: tuple[Decider, Decider]) -> bool:
    """Whether it could be about them; if no rule that changes is, nothing changes for them."""
    if rule.keys:
        record = subject.record
        if not rule.keys & ({subject.key} if record is None else {record.name, record.id}):
            return False
    # As a denial it holds of the lesser roles of whoever has it, too.
    names = {subject.role} if subject.record is None else {subject.role, subject.record.role}
    return not rule.roles or any(rule.roles & decider.roles(name) for decider in deciders for name in names)


def _declaring(policy: Policy, other: Policy) -> Policy:
    """The policy with the other's tenants and projects too."""
    tenants = dict(policy.tenants)
    for name, tenant in other.tenants.items():
        mine = tenants.get(name, tenant)
        tenants[name] = replace(mine, projects=mine.projects | tenant.projects)
    return replace(policy, tenants=tenants)


def _subjects(before: Policy, after: Policy, atoms: Atoms, records: Collection[KeyRecord] | None) -> Iterator[Subject]:
    roles = sorted({*before.roles, *after.roles})
    if records is None:
        for role in roles:
            for key in (None, *atoms.keys):
                yield Subject(role, key)
        return
    for record in records:
        for role in dict.fromkeys((record.role, *sorted(record.personas & set(roles)))):
            yield Subject(role, record.name, record)


def _changes(
    deciders: tuple[Decider, Decider], subject: Subject, permission: str, atoms: Atoms, now_ms: int
) -> Iterator[Change]:
    before, after = deciders
    every = list(situations(subject, permission, atoms))
    gained: list[Situation] = []
    lost: list[Situation] = []
    for asked in every:
        was, will = allowed(before, asked), allowed(after, asked)
        if was is not will:
            (gained if will else lost).append(asked)
    if subject.record is None and subject.key is not None:
        # What the role gains or loses anyway is said of the role.
        same = {_place(asked) for asked in _of_role(deciders, subject.role, permission, atoms)}
        gained = [asked for asked in gained if _place(asked) not in same]
        lost = [asked for asked in lost if _place(asked) not in same]
    for effect, found in (("gains", gained), ("loses", lost)):
        if found:
            yield Change(str(subject), permission, effect, _where(found, every, PERMISSIONS[permission], now_ms))


def _of_role(deciders: tuple[Decider, Decider], role: str, permission: str, atoms: Atoms) -> Iterator[Situation]:
    for asked in situations(Subject(role), permission, atoms):
        if allowed(deciders[0], asked) is not allowed(deciders[1], asked):
            yield asked


def _place(asked: Situation) -> tuple[object, ...]:
    """A situation but for who is in it."""
    target = asked.target
    return (
        *(asked.actor.tenant, asked.member, asked.actor.session, asked.now_ms, asked.own),
        *(target.project, target.manifest_class, *sorted(target.labels.items())),
    )


def _where(found: list[Situation], every: list[Situation], kind: TargetKind, now_ms: int) -> str:
    """In how much of all that is possible, as words."""
    if kind is TargetKind.HOST:
        parts = ["on the host"]
    else:
        beyond = any(not asked.member for asked in found)
        parts = ["in any tenant" if beyond else "in its own tenants"]
        tenants = {asked.target.tenant for asked in found}
        if tenants != {asked.target.tenant for asked in every if beyond or asked.member}:
            parts[0] = f"in {_names(tenants)}" if beyond else f"bound to {_names(tenants)}"
        if all(asked.own for asked in found) and not all(asked.own for asked in every):
            parts.append("what is its own")
        elif not any(asked.own for asked in found):
            parts.append("what is others'")
    parts += _some("project", found, every, lambda asked: asked.target.project)
    parts += _some("class", found, every, lambda asked: asked.target.manifest_class)
    parts += _labels(found, every)
    if all(asked.actor.session for asked in found):
        parts.append("in a session")
    first = min(asked.now_ms for asked in found)
    if first > now_ms:
        parts.append(f"from {_time(first)}")
    later = [asked.now_ms for asked in every if asked.now_ms > max(one.now_ms for one in found)]
    if later:
        parts.append(f"until {_time(min(later))}")
    return ", ".join(parts)


def _some(
    what: str, found: list[Situation], every: list[Situation], ask: Callable[[Situation], str | None]
) -> Iterator[str]:
    some, all_of = {ask(asked) for asked in found}, {ask(asked) for asked in every}
    if some != all_of:
        yield f"{what} {_names(name or 'none' for name in some)}"


def _labels(found: list[Situation], every: list[Situation]) -> Iterator[str]:
    for key in sorted({name for asked in every for name in asked.target.labels}):
        values = {asked.target.labels.get(key) for asked in found}
        if values != {asked.target.labels.get(key) for asked in every}:
            yield f"label {key} = {_names(value or 'none' for value in values)}"


# -- what is no rule


def _tenants(before: Policy, after: Policy) -> Iterator[Change]:
    for name in sorted({*before.tenants, *after.tenants}):
        was, will = before.tenants.get(name), after.tenants.get(name)
        if was is None or will is None:
            yield Change(f"tenant {name}", "", "begins" if was is None else "ends", "")
        else:
            yield from _tenant(was, will)


def _tenant(was: Tenant, will: Tenant) -> Iterator[Change]:
    subject = f"tenant {was.name}"
    for what, old, new in (("project", was.projects, will.projects), ("host path", was.paths, will.paths)):
        for name in sorted(new - old):
            yield Change(subject, "", "gains", f"the {what} {name}")
        for name in sorted(old - new):
            yield Change(subject, "", "loses", f"the {what} {name}")
    for field in fields(Quota):
        old_bound, new_bound = getattr(was.quota, field.name), getattr(will.quota, field.name)
        if old_bound != new_bound:
            more = new_bound is None or (old_bound is not None and new_bound > old_bound)
            effect = "gains" if more else "loses"
            yield Change(subject, "", effect, f"quota {field.name}: {_bound(old_bound)} -> {_bound(new_bound)}")


def _controls(before: Policy, after: Policy) -> Iterator[Change]:
    old, new = ({control.name: control for control in policy.controls} for policy in (before, after))
    for name in sorted({*old, *new}):
        was, will = old.get(name), new.get(name)
        if was != will:
            effect = "begins" if was is None else "ends" if will is None else "changes"
            yield Change(f"control {name}", "", effect, _control(will or was))


def _control(control: Control | None) -> str:
    if control is None:
        return ""
    only = f" that adds what is {ADDED[control.added - 1]} or more" if control.added else ""
    return f"{control.approvals} of {_names(control.approvers)} for {_names(control.permissions)}{only}"


def _rates(before: Policy, after: Policy) -> Iterator[Change]:
    for field in fields(Rates):
        was, will = getattr(before.rates, field.name), getattr(after.rates, field.name)
        if was != will:
            yield Change(f"rate of a {field.name}", "", "changes", f"{_rate(was)} -> {_rate(will)}")


def _manifests(before: Policy, after: Policy) -> Iterator[Change]:
    was, will = before.manifests, after.manifests
    if was.signatures != will.signatures:
        yield Change("manifests", "", "changes", f"signatures: {was.signatures} -> {will.signatures}")
    if (was.only is None) != (will.only is None):
        effect = "begins" if was.only is None else "ends"
        yield Change("manifests", "", effect, "only those that are listed may be used")
    for what, old, new in (
        ("allowed", was.only or frozenset(), will.only or frozenset()),
        ("revoked", was.revoked, will.revoked),
    ):
        for digest in sorted(old ^ new):
            yield Change(f"manifest {digest}", "", "begins" if digest in new else "ends", what)


def _rate(rate: Rate | None) -> str:
    return "none" if rate is None else f"{rate.per_second} a second, {rate.burst} at once"


def _bound(value: int | None) -> str:
    return "none" if value is None else str(value)


def _names(names: Iterable[str]) -> str:
    return " or ".join("any other" if name == OTHER else name for name in sorted(names))


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
