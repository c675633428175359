"""Every situation that a policy can tell apart, as far as one permission goes. Pure.

A rule asks of a name only whether it is one of those that it lists. So the names that the rules about a permission
list, and one that none of them does, stand for all; with the moments at which rules begin and end they make a finite
space. To walk through it answers exactly what would otherwise be guessed: whether a rule can ever decide, and who gains
or loses what by another policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.identity.actor import Actor, Caller
from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider
from immured.identity.policy.permissions import CONDITIONS, PERMISSIONS, TargetKind
from immured.identity.policy.schema import DEFAULT_PROJECT, DEFAULT_TENANT, Control, Policy, Rule
from immured.identity.policy.warrant import HOST, Target
from immured.wire.keys import PublicKey

__all__ = ["OTHER", "Atoms", "Situation", "Subject", "allowed", "atoms_of", "situations"]

OTHER: Final = "(other)"
"""Stands for every name that no rule lists."""
_MOST: Final = 250_000
"""Situations of one subject and permission. More are refused, not passed over."""
_CALLER: Final = Caller(0)
_SOMEBODY: Final = PublicKey(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
"""A public key for keys that there are not: RFC 8032's first test vector."""
_SOMEBODY_ELSE: Final = "ed25519:" + 32 * "0"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whoever has `role`: any key, or the one that rules call `key`. `record`: a real key instead."""

    role: str
    key: str | None = None
    record: KeyRecord | None = None

    def __str__(self) -> str:
        if self.record is not None:
            return f"{self.record.name} ({self.role})"
        return self.role if self.key is None else f"{self.key} as {self.role}"

    def actor(self, tenant: str, *, member: bool, project: str, session: bool) -> Actor:
        """It, in that tenant; `member`: bound to it."""
        record = self.record
        if record is None:
            name = self.key or "(any)"
            record = KeyRecord(_SOMEBODY, name, self.role, "", tenants=frozenset({tenant if member else OTHER}))
        return Actor(record, _CALLER, self.role, tenant=tenant, project=project, session="session" if session else None)


@dataclass(frozen=True, slots=True)
class Atoms:
    """The names that rules about one permission tell apart, each with one more that they do not."""

    tenants: tuple[str, ...]
    projects: Mapping[str, tuple[str, ...]]
    """Of every tenant that is declared."""
    classes: tuple[str | None, ...]
    labels: tuple[tuple[str, tuple[str | None, ...]], ...]
    sessions: tuple[bool, ...]
    owned: tuple[bool, ...]
    times: tuple[int, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Situation:
    """One question: who, what, to what, when. `member`: the key is bound to the tenant of it."""

    actor: Actor
    permission: str
    target: Target
    now_ms: int
    member: bool
    own: bool = field(default=False)


def atoms_of(policies: Iterable[Policy], permission: str, now_ms: int) -> Atoms:
    """What the rules of all these policies about that permission tell apart, from now on."""
    given = list(policies)
    rules = [rule for policy in given for rule in policy.rules if permission in rule.permissions]
    declared = {name for policy in given for name in policy.tenants}
    named = {name for rule in rules for name in rule.tenants}
    labels: dict[str, set[str]] = {}
    for key, value in (pair for rule in rules for pair in rule.labels):
        labels.setdefault(key, set()).add(value)
    kind = PERMISSIONS[permission]
    listed = {name for rule in rules for name in rule.projects}
    tenants = (DEFAULT_TENANT,) if kind is TargetKind.HOST else _and_one(named, declared, DEFAULT_TENANT)
    return Atoms(
        tenants=tenants,
        projects={tenant: _projects(given, tenant, listed) for tenant in declared},
        classes=(None, *sorted({name for rule in rules for name in rule.classes}), *_unlisted("classes", kind, rules)),
        labels=tuple((key, (None, *sorted(values))) for key, values in sorted(labels.items())),
        sessions=(True, False) if any(rule.session for rule in rules) else (False,),
        owned=(True, False) if kind is not TargetKind.HOST and kind is not TargetKind.NOTHING else (True,),
        times=tuple(sorted({now_ms, *(at for rule in rules for at in _turns(rule) if at > now_ms)})),
        keys=tuple(sorted({name for rule in rules for name in rule.keys})),
    )


def situations(subject: Subject, permission: str, atoms: Atoms) -> Iterator[Situation]:
    """All of them for that subject. Raises ConfigurationError `policy_too_large`."""
    whole = PERMISSIONS[permission] is TargetKind.HOST
    members = (True,) if whole else (True, False)
    tenants = atoms.tenants
    if subject.record is not None and not whole:  # one that no rule names is the key's own all the same
        tenants = tuple(dict.fromkeys((*tenants, *sorted(subject.record.tenants & set(atoms.projects)))))
    size = sum(len(atoms.projects[tenant]) for tenant in tenants) * len(atoms.classes) * len(atoms.times) * 8
    for _, values in atoms.labels:
        size *= len(values)
    if size > _MOST:
        raise ConfigurationError(
            "policy_too_large",
            f"the rules about {permission!r} tell {size} situations apart, and at most {_MOST} are looked at",
            "split what they say by fewer labels, classes or projects",
        )
    labels = [
        {key: value for key, value in zip((key for key, _ in atoms.labels), values, strict=True) if value is not None}
        for values in product(*(values for _, values in atoms.labels))
    ]
    for tenant, member, session in product(tenants, members, atoms.sessions):
        if subject.record is not None and member is not (tenant in (subject.record.tenants or {DEFAULT_TENANT})):
            continue
        for project in atoms.projects[tenant]:
            actor = subject.actor(tenant, member=member, project=project, session=session)
            for own, class_, carried, now_ms in product(atoms.owned, atoms.classes, labels, atoms.times):
                owners = actor.owners if own else (_SOMEBODY_ELSE,)
                place = (HOST, "") if whole else (tenant, project)
                target = Target(*place, owners, class_, carried)
                yield Situation(actor, permission, target, now_ms, member, own)


def allowed(decider: Decider, asked: Situation) -> bool:
    """What that policy says of it. Controls are not asked: they wait for more, they do not say no."""
    try:
        warrant = decider.warrant(asked.actor, asked.permission, asked.now_ms)
        warrant.on_control = _wait
        return warrant.covers(asked.target)
    except Refused:
        return False


def _wait(control: Control) -> None:
    del control


def _and_one(named: set[str], declared: set[str], first: str) -> tuple[str, ...]:
    """What is named, and one that is declared and not named: the first of them if it can be."""
    rest = sorted(declared - named)
    one = [first] if first in rest else rest[:1]
    return tuple(sorted(named) + one)


def _projects(policies: list[Policy], tenant: str, listed: set[str]) -> tuple[str, ...]:
    declared = {name for policy in policies if tenant in policy.tenants for name in policy.tenants[tenant].projects}
    return _and_one(listed & declared, declared, DEFAULT_PROJECT)


def _unlisted(name: str, kind: TargetKind, rules: list[Rule]) -> tuple[str, ...]:
    return (OTHER,) if name in CONDITIONS[kind] and any(rule.classes for rule in rules) else ()


def _turns(rule: Rule) -> Iterator[int]:
    for at in (rule.from_ms, rule.until_ms):
        if at is not None:
            yield at
