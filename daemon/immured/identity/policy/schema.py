"""A policy as values. Frozen, complete and checked: see `parse.py`. Times are milliseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final

from immured.identity.quotas import Quota
from immured.identity.rates import Rates

__all__ = [
    "ADDED",
    "DEFAULT_PROJECT",
    "DEFAULT_TENANT",
    "Control",
    "External",
    "ManifestRules",
    "Policy",
    "Role",
    "Rule",
    "Scope",
    "Tenant",
]

DEFAULT_TENANT: Final = "default"
DEFAULT_PROJECT: Final = "default"
ADDED: Final = ("low", "medium", "high", "critical")
"""How severe it is what a manifest adds to its baseline, by rank: the first is 1, and 0 is that it adds nothing."""


class Scope(StrEnum):
    """How far a rule reaches."""

    OWN = "own"
    """What one's key, a key certified by it, or a key that it succeeded, made."""
    TENANT = "tenant"
    """Everything in the tenant that the command is given under."""
    HOST = "host"
    """Everything in every tenant, and the daemon itself."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role, and those whose rules hold for it too."""

    name: str
    title: str = ""
    includes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. All its conditions must hold; an empty one always does. `from_ms` is the first moment of it, `until_ms`
    the first after it.

    `keys` are names or ids. `session`: only for commands that carry one.
    """

    name: str
    allow: bool
    permissions: frozenset[str]
    scope: Scope
    roles: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()
    from_ms: int | None = None
    until_ms: int | None = None
    session: bool = False

    @property
    def bound_to_target(self) -> bool:
        """Whether it depends on what is acted on, and not only on who acts, when."""
        return bool(self.tenants or self.projects or self.classes or self.labels) or self.scope is not Scope.HOST


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant. `projects` always has `default`; `paths` are names of config.toml's host paths."""

    name: str
    projects: frozenset[str] = frozenset({DEFAULT_PROJECT})
    paths: frozenset[str] = frozenset()
    quota: Quota = field(default_factory=Quota)


@dataclass(frozen=True, slots=True)
class Control:
    """Commands that run only once `approvals` keys in the role of `approvers` agreed: of others than the proposer, and
    than who gives it.

    `classes` empty: whatever is acted on; else only with a manifest of one of these classes. `added`: only where what
    is loaded adds something of that rank (`ADDED`) or above; 0: whatever is loaded.
    """

    name: str
    permissions: frozenset[str]
    approvers: frozenset[str]
    approvals: int
    window_ms: int
    classes: frozenset[str] = frozenset()
    added: int = 0


@dataclass(frozen=True, slots=True)
class ManifestRules:
    """What a manifest needs to be used. `signatures`: of so many keys that may sign it; `only` (digests, None: any) and
    `revoked` are about every one: loaded, built in, inline."""

    signatures: int = 1
    only: frozenset[str] | None = None
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class External:
    """Of whom `issuer` says that his `claim` has `value`, he may have a grant of `role` in `tenant`, for so long."""

    issuer: str
    claim: str
    value: str
    role: str
    tenant: str
    longest_ms: int


@dataclass(frozen=True)
class Policy:
    """A whole policy. `text` is the file's bytes, `digest` is `sha256:` and the hex of their SHA-256."""

    digest: str
    text: bytes
    roles: Mapping[str, Role]
    rules: tuple[Rule, ...]
    tenants: Mapping[str, Tenant]
    rates: Rates
    controls: tuple[Control, ...]
    external: tuple[External, ...]
    manifests: ManifestRules = field(default_factory=ManifestRules)

    @cached_property
    def closures(self) -> Mapping[str, frozenset[str]]:
        """For each role: itself and all that it includes, through others too."""
        found: dict[str, frozenset[str]] = {}

        def close(name: str) -> frozenset[str]:
            if name not in found:
                found[name] = frozenset({name}).union(*(close(inner) for inner in self.roles[name].includes))
            return found[name]

        for name in self.roles:
            close(name)
        return found

    def closure(self, role: str) -> frozenset[str]:
        """The role and all that it includes; of no role of this policy, nothing."""
        return self.closures.get(role, frozenset())

    def quota(self, tenant: str) -> Quota | None:
        """What that tenant may have; None where it is not declared."""
        found = self.tenants.get(tenant)
        return None if found is None else found.quota
