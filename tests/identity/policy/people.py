"""Keys, actors and policies to ask about, and a strategy that makes any of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from hypothesis import strategies as st

from immured.identity.actor import Actor, Caller
from immured.identity.keyring import KeyRecord
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.permissions import CONDITIONS, PERMISSIONS, TargetKind
from immured.identity.policy.schema import Policy
from immured.identity.policy.warrant import HOST, Target, place_of
from immured.wire.keys import PrivateKey, PublicKey

NOW = 1_800_000_000_000


@cache
def public(name: str) -> PublicKey:
    """A key for each name."""
    del name
    return PrivateKey.generate().public


def key(role: str, name: str = "bob", **bindings: Any) -> KeyRecord:
    """A record; `tenants`, `projects`, `personas` and `subjects` from any collection."""
    sets = ("tenants", "projects", "personas", "subjects")
    bound: dict[str, Any] = {field: frozenset(value) if field in sets else value for field, value in bindings.items()}
    return replace(KeyRecord(public(name), name, role, "2026-01-02T03:04:05Z"), **bound)


def actor(record: KeyRecord, **names: Any) -> Actor:
    """As `bind` makes one: the persona, if there is one, is the role."""
    role = names.pop("role", names.get("persona") or record.role)
    return Actor(record, Caller(1000), role, **names)


def policy(text: str) -> Policy:
    return parse_policy(("schema = 1\n" + text).encode())


# -- any policy, and any question about it

ROLES = ("low", "mid", "top", "apart")
TENANTS = ("default", "acme", "beta")
PROJECTS = ("default", "web")
CLASSES = ("open", "closed")
LABELS = {"team": ("red", "blue"), "tier": ("one",)}
KEYS = ("bob", "eve")
TIMES = (NOW - 1000, NOW, NOW + 1000)
ASKED = ("status", "policy.set", "run", "sandbox.kill", "volume.list", "key.add", "manifest.inline")

HEAD = """
[roles.low]
[roles.mid]
includes = ["low"]
[roles.top]
includes = ["mid"]
[roles.apart]
[tenants.default]
projects = ["web"]
[tenants.acme]
projects = ["web"]
[tenants.beta]
projects = ["web"]
"""


FIRST = public("eve's first").id


def _some(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=2)


@st.composite
def rules(draw: st.DrawFn, number: int) -> str:
    """One rule as TOML, valid: it names no condition that its permissions cannot have."""
    permissions = draw(st.lists(st.sampled_from(ASKED), unique=True, min_size=1, max_size=3))
    may = frozenset.intersection(*(CONDITIONS[PERMISSIONS[name]] for name in permissions))
    allow = draw(st.booleans())
    whole = any(PERMISSIONS[name] is TargetKind.HOST for name in permissions)
    scopes = ("host",) if allow and whole else ("own", "tenant", "host") if allow else ("own", "host")
    given: dict[str, Any] = {"name": f"rule-{number}", "allow" if allow else "deny": permissions}
    given["scope"] = draw(st.sampled_from(scopes))
    given["roles"], given["keys"] = draw(_some(ROLES)), draw(_some(KEYS))
    if not given["roles"] and not given["keys"]:
        given["roles"] = ["low"]
    for name, values in (("tenants", TENANTS), ("projects", PROJECTS), ("classes", CLASSES)):
        given[name] = draw(_some(values)) if name in may else []
    lines = [f"{name} = {value!r}" for name, value in given.items() if value]
    if "labels" in may and draw(st.integers(0, 3)) == 0:
        chosen = draw(st.sampled_from(sorted(LABELS)))
        lines.append(f"labels = {{{chosen} = {draw(st.sampled_from(LABELS[chosen]))!r}}}")
    lines += draw(st.sampled_from(((), ("from = 2027-01-15T08:00:00Z",), ("until = 2027-01-15T08:00:00Z",))))
    if draw(st.integers(0, 3)) == 0:
        lines.append("session = true")
    return "[[rules]]\n" + "\n".join(lines)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    many = draw(st.integers(1, 6))
    return policy(HEAD + "\n".join(draw(rules(number)) for number in range(many)))


def any_actor(dice: Random, of: Policy) -> Actor:
    """Mostly somebody whom the policy knows."""
    role = dice.choice(ROLES)
    record = key(
        role,
        dice.choice(KEYS),
        tenants=dice.choice(((), (), ("acme",), ("default", "acme"), ("beta",))),
        projects=dice.choice(((), (), (), ("web",), ("default", "web"))),
        predecessors=dice.choice(((), (FIRST,))),
    )
    taken = dice.choice((role, role, dice.choice(ROLES), dice.choice(sorted(of.closure(role)))))
    tenant = dice.choice((*(record.tenants or ("default",)), *TENANTS, "nowhere"))
    project = dice.choice((*(record.projects or PROJECTS), "default", "nothing"))
    session = dice.choice((None, "session"))
    return Actor(record, Caller(1000), taken, tenant=tenant, project=project, session=session)


def any_target(dice: Random, asking: Actor, permission: str) -> Target:
    """Mostly something near to whoever asks."""
    if PERMISSIONS[permission] in (TargetKind.NOTHING, TargetKind.HOST):
        return place_of(asking, permission)
    return Target(
        dice.choice((asking.tenant, asking.tenant, *TENANTS, HOST)),
        dice.choice((asking.project, *PROJECTS)),
        dice.choice((asking.owners, asking.owners, (FIRST,), (public("nobody").id,), ())),
        dice.choice((None, *CLASSES)),
        {name: dice.choice(values) for name, values in LABELS.items() if dice.random() < 0.6},
    )
