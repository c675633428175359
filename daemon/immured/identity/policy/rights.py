"""All that a key may do, as values that can be compared: nobody grants more than he has. Pure.

A *reach* is how far one rule carries one key: a permission, over which tenants, under which conditions. A right is had
where one reach contains it, tenant by tenant. Two rules that only together contain a third are not put together: it is
then said that something is lacking which is not, and never the other way about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from immured.errors import Refused
from immured.identity.actor import SPEAK, Actor, Caller
from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider, concerns, in_force
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.identity.policy.schema import DEFAULT_TENANT, Rule, Scope

__all__ = ["EVERYWHERE", "Excess", "Reach", "belongs_to_host", "excess", "excess_of_grant", "persons", "reaches"]

EVERYWHERE: Final = "*"
"""As a reach's tenant: every one, those that are yet to be declared, and the host itself."""
_WIDTH: Final = {Scope.OWN: 0, Scope.TENANT: 1, Scope.HOST: 2}
_SOMEBODY: Final = Caller(0)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one rule carries a key in one tenant (or EVERYWHERE). None: whatever there is."""

    permission: str
    scope: Scope
    tenant: str
    projects: frozenset[str] | None
    classes: frozenset[str] | None
    labels: frozenset[tuple[str, str]]
    session: bool
    until_ms: int | None
    rule: str

    def contains(self, other: Reach) -> bool:
        """Whether whatever `other` allows, this one does."""
        return (
            self.permission == other.permission
            and self.tenant in (EVERYWHERE, other.tenant)
            and _WIDTH[self.scope] >= _WIDTH[other.scope]
            and _within(other.projects, self.projects)
            and _within(other.classes, self.classes)
            and self.labels <= other.labels
            and (other.session or not self.session)
            and (self.until_ms is None or (other.until_ms is not None and other.until_ms <= self.until_ms))
        )


@dataclass(frozen=True, slots=True)
class Excess:
    """What would be granted, and is not had by who grants it."""

    permission: str
    scope: str
    tenant: str
    rule: str

    def refused(self) -> Refused:
        """The refusal."""
        where = "on the whole host" if self.tenant == EVERYWHERE else f"in the tenant {self.tenant!r}"
        return Refused(
            "escalation",
            f"that would give {self.permission!r} (scope {self.scope}) {where}, which you do not have yourself",
            "grant less, for no longer than your own key serves, or have somebody grant it who has it",
            details={"permission": self.permission, "scope": self.scope, "tenant": self.tenant, "rule": self.rule},
        )


def persons(decider: Decider, record: KeyRecord) -> list[Actor]:
    """The actors that a key can be, one a role: its own, and those among its personas. With a session.

    Roles that its own includes are less than that, so they are not asked.
    """
    roles = [record.role, *sorted(name for name in record.personas if decider.is_role(name))]
    tenant = min(record.tenants or {DEFAULT_TENANT})
    return [
        Actor(record, _SOMEBODY, role, None if role == record.role else role, tenant=tenant, session="any")
        for role in dict.fromkeys(roles)
    ]


def reaches(
    decider: Decider, actor: Actor, now_ms: int, permissions: Iterable[str] = PERMISSIONS, *, later: bool = True
) -> Iterator[Reach]:
    """The reaches of that actor, in every tenant that it is bound to. `later`: of rules, too, that do not hold yet."""
    for permission in permissions:
        if permission == SPEAK and _fixed(actor):
            continue
        if all(permission in link.narrowing.permissions for link in actor.chain):
            for rule in decider.about(actor, permission):
                ended = rule.until_ms is not None and rule.until_ms <= now_ms
                if rule.allow and not ended and (later or in_force(rule, now_ms)):
                    yield from _reach(actor, permission, rule)


def _reach(actor: Actor, permission: str, rule: Rule) -> Iterator[Reach]:
    root = actor.root
    tenants: Iterable[str] = rule.tenants or {EVERYWHERE}
    if rule.scope is not Scope.HOST:
        bound = root.tenants or {DEFAULT_TENANT}
        tenants = bound & rule.tenants if rule.tenants else bound
    narrowings = [link.narrowing for link in actor.chain]
    projects = _both(_all(rule.projects), _all(root.projects), *(one.projects for one in narrowings))
    classes = _both(_all(rule.classes), *(one.classes for one in narrowings))
    labels = frozenset(chain(rule.labels, *(one.labels for one in narrowings)))
    # Nor does what a key leaves behind outlive it: one for a week, or one that another took the place of.
    ends = (rule.until_ms, root.expires_ms, *(one.until_ms for one in narrowings))
    until = min((at for at in ends if at is not None), default=None)
    for tenant in sorted(_tenants(tenants, [one.tenants for one in narrowings])):
        yield Reach(permission, rule.scope, tenant, projects, classes, labels, rule.session, until, rule.name)


def _tenants(given: Iterable[str], narrowed: Iterable[frozenset[str] | None]) -> set[str]:
    left = set(given)
    for narrowing in narrowed:
        if narrowing is not None:
            left = set(narrowing) if EVERYWHERE in left else left & narrowing
    return left


def belongs_to_host(decider: Decider, record: KeyRecord) -> bool:
    """Whether some rule lets that key act beyond its tenants: only scope `host` reaches it then."""
    return any(
        rule.allow and rule.scope is Scope.HOST and concerns(rule, person)
        for person in persons(decider, record)
        for rule in decider.policy.rules
        if not rule.roles or rule.roles & decider.roles(person.role)
    )


def excess(decider: Decider, actor: Actor, record: KeyRecord, now_ms: int) -> Excess | None:
    """What that record would give to its key that `actor` does not have as it acts now. None: nothing."""
    for person in persons(decider, record):
        wanted = reaches(decider, person, now_ms)
        if (found := _lacking(decider, actor, person, wanted, now_ms)) is not None:
            return found
    return _lacking_names(decider, actor, record, now_ms)


def excess_of_grant(
    decider: Decider, actor: Actor, permission: str, tenant: str, project: str | None, until_ms: int, now_ms: int
) -> Excess | None:
    """What a grant of one command, over all of that tenant (and project), would give that `actor` does not have."""
    where = EVERYWHERE if PERMISSIONS[permission] is TargetKind.HOST else tenant
    projects = None if project is None else frozenset({project})
    wanted = Reach(permission, Scope.TENANT, where, projects, None, frozenset(), False, until_ms, "")
    if where == EVERYWHERE:
        wanted = Reach(permission, Scope.HOST, where, None, None, frozenset(), False, until_ms, "")
    return _lacking(decider, actor, None, [wanted], now_ms)


def _lacking(
    decider: Decider, actor: Actor, person: Actor | None, wanted: Iterable[Reach], now_ms: int
) -> Excess | None:
    had: dict[str, list[Reach]] = {}
    for reach in reaches(decider, actor, now_ms, later=False):
        had.setdefault(reach.permission, []).append(reach)
    for reach in wanted:
        contained = any(mine.contains(reach) for mine in had.get(reach.permission, ()))
        if not contained or _denied(decider, actor, person, reach, now_ms):
            return Excess(reach.permission, reach.scope.value, reach.tenant, reach.rule)
    return None


def _denied(decider: Decider, actor: Actor, person: Actor | None, reach: Reach, now_ms: int) -> bool:
    """Whether a rule denies `actor` some of it, and would not deny the same to `person`."""
    for rule in _denials(decider, actor, reach.permission):
        if rule.until_ms is not None and rule.until_ms <= now_ms:
            continue
        apart = (
            (rule.tenants and reach.tenant != EVERYWHERE and reach.tenant not in rule.tenants)
            or (rule.projects and reach.projects is not None and not rule.projects & reach.projects)
            or (rule.classes and reach.classes is not None and not rule.classes & reach.classes)
        )
        # What is one's own is not the other's: a denial of that is not the same denial for both.
        both = (
            person is not None and rule.scope is not Scope.OWN and rule in _denials(decider, person, reach.permission)
        )
        if not apart and not both:
            return True
    return False


def _denials(decider: Decider, actor: Actor, permission: str) -> list[Rule]:
    # Those too that hold in sessions alone: who is denied it in one leaves his out now, and the other key opens one.
    asked = actor if actor.session is not None else replace(actor, session="any")
    return [rule for rule in decider.about(asked, permission) if not rule.allow]


def _lacking_names(decider: Decider, actor: Actor, record: KeyRecord, now_ms: int) -> Excess | None:
    """Names that manifests, and those who read the ledger, trust: `sub`, and personas that are no roles."""
    fixed = _fixed(actor)
    anybody = not fixed and decider.holds(actor, SPEAK, now_ms)
    for subject in sorted(record.subjects - (fixed & actor.root.subjects if fixed else actor.root.subjects)):
        if not anybody:
            return Excess(SPEAK, Scope.OWN.value, actor.tenant, f"subject {subject}")
    keeper = any(reach.tenant == EVERYWHERE for reach in reaches(decider, actor, now_ms, ("key.bind",), later=False))
    for persona in sorted(record.personas - actor.root.personas):
        if not keeper and not decider.is_role(persona):
            return Excess("key.bind", Scope.HOST.value, EVERYWHERE, f"persona {persona}")
    return None


def _fixed(actor: Actor) -> frozenset[str]:
    """On whose behalf alone it may act, where its certificates say so."""
    return frozenset(link.sub for link in actor.chain if link.sub is not None)


def _all(given: frozenset[str]) -> frozenset[str] | None:
    return given or None


def _both(*sets: frozenset[str] | None) -> frozenset[str] | None:
    """What is in all of them; None is everything."""
    found: frozenset[str] | None = None
    for each in sets:
        if each is not None:
            found = each if found is None else found & each
    return found


def _within(inner: frozenset[str] | None, outer: frozenset[str] | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)
