"""What a decision says: whether one actor, under one command, may touch this or that. Pure.

A handler asks its warrant about everything that it acts on, and about nothing else: no other code compares roles,
owners or tenants. A command that was answered without its warrant having been asked is a mistake that the dispatcher
finds (`Warrant.checked`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.identity.policy.schema import Control, Policy, Rule, Scope

if TYPE_CHECKING:
    from immured.identity.actor import Actor
    from immured.identity.policy.decide import Decider

__all__ = ["HOST", "Narrowing", "Ruling", "Target", "Warrant", "holds_of", "place_of"]

HOST: Final = ""
"""As a target's tenant: it belongs to the host, and only a rule of scope `host` reaches it."""

_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Target:
    """What is acted on. `owners`: the key that made it, then those by which that key was certified. `added`: the rank
    of what a manifest that is loaded adds (`schema.ADDED`; 0: nothing); None: that is not known, and may be anything.
    """

    tenant: str
    project: str
    owners: tuple[str, ...]
    manifest_class: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    added: int | None = None


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What one certificate of a chain leaves over. None: all that its issuer has.

    `until_ms` is when it ends: what is granted by it must not outlive it. Whether it has ended is not asked here.
    """

    permissions: frozenset[str]
    tenants: frozenset[str] | None = None
    projects: frozenset[str] | None = None
    classes: frozenset[str] | None = None
    labels: tuple[tuple[str, str], ...] = ()
    until_ms: int | None = None

    def covers(self, permission: str, target: Target) -> bool:
        """Whether that is left over."""
        return (
            permission in self.permissions
            and (self.tenants is None or target.tenant in self.tenants)
            and (self.projects is None or target.project in self.projects)
            and (self.classes is None or not _has_class(permission) or target.manifest_class in self.classes)
            and all(target.labels.get(key) == value for key, value in self.labels if _has_labels(permission))
        )


@dataclass(frozen=True, slots=True)
class Ruling:
    """What policy says of one actor and one permission, before the target is known.

    It stands from `since_ms` until before `expires_ms`: between two moments at which a rule begins or ends to hold.
    """

    allows: tuple[Rule, ...]
    denies: tuple[Rule, ...]
    controls: tuple[Control, ...]
    since_ms: int | None = None
    expires_ms: int | None = None

    def stands(self, now_ms: int) -> bool:
        """Whether no rule has begun or ended since. A clock may also be set back."""
        return (self.expires_ms is None or now_ms < self.expires_ms) and (
            self.since_ms is None or self.since_ms <= now_ms
        )


class Warrant:
    """One command's. `checked`: somebody asked.

    `on_denied` is asked about a target that no rule allows, and that none denies: whether a grant covers it; `grant` is
    that one. `on_control` is called with each control of policy that the target is under, and raises where it is not
    fulfilled; without it such a control refuses. `proposal` is the approved one that fulfils them. `consent`: the entry
    of the consent by which it is done.
    """

    __slots__ = (
        *("actor", "checked", "consent", "grant", "now_ms", "on_control", "on_denied", "permission", "proposal"),
        *("_decider", "_ruling"),
    )

    def __init__(self, actor: Actor, permission: str, ruling: Ruling, decider: Decider, now_ms: int) -> None:
        self.actor = actor
        self.permission = permission
        self.now_ms = now_ms
        self.grant: str | None = None
        self.proposal: str | None = None
        self.consent: int | None = None
        self.checked = False
        self.on_denied: Callable[[Target], bool] | None = None
        self.on_control: Callable[[Control], None] | None = None
        self._ruling = ruling
        self._decider = decider

    @property
    def controls(self) -> tuple[Control, ...]:
        """Every control of policy that names the command, whatever it acts on."""
        return self._ruling.controls

    @property
    def policy(self) -> Policy:
        """By which it was decided."""
        return self._decider.policy

    # -- about a target

    def covers(self, target: Target) -> bool:
        """Whether the actor may do this to that. Raises Refused `approval_required` as `check` does."""
        self.checked = True
        if not self._covers(target):
            return False
        for control in self._ruling.controls:
            if self.permission not in control.permissions and self.actor.owns(target):
                continue  # one's own key stays one voice, whatever one makes of it
            if control.added and target.added is not None and target.added < control.added:
                continue
            if not control.classes or target.manifest_class in control.classes:
                self._control(control)
        return True

    def check(self, target: Target) -> None:
        """Raises Refused `denied` where `covers` says no, `approval_required` where it is under an open control."""
        if not self.covers(target):
            raise self._decider.refusal(self.actor, self.permission, self.now_ms, target)

    def check_command(self) -> None:
        """`check` of the command itself, where it acts on nothing that belongs to anybody, or on the host."""
        self.check(self.place())

    def place(self) -> Target:
        """Where the command is given, as a target: what it makes stands there, and is the actor's own."""
        return place_of(self.actor, self.permission)

    @property
    def anywhere(self) -> bool:
        """Whether some rule of scope `host` may hold: lookups search every tenant then."""
        return any(rule.scope is Scope.HOST for rule in self._ruling.allows)

    # -- about other rights of the same actor, now

    def holds(self, right: str, target: Target | None = None) -> bool:
        """Whether the actor has another right too, over `target` (or where the command is given)."""
        return self._decider.holds(self.actor, right, self.now_ms, target)

    def require(self, right: str, target: Target | None = None) -> None:
        """Raises Refused `denied` where `holds` says no; a right may be under a control too."""
        other = self._decider.warrant(self.actor, right, self.now_ms)
        other.on_control = self.on_control
        other.check(other.place() if target is None else target)

    def to_map(self) -> dict[str, object]:
        """What an entry says besides the actor: by which grant or proposal it is allowed."""
        shown: dict[str, object] = {}
        if self.grant is not None:
            shown["grant"] = self.grant
        if self.proposal is not None:
            shown["proposal"] = self.proposal
        return shown

    def _covers(self, target: Target) -> bool:
        actor, ruling = self.actor, self._ruling
        if actor.chain and not all(link.narrowing.covers(self.permission, target) for link in actor.chain):
            return False
        if actor.root.projects and target.project not in actor.root.projects:
            return False
        for rule in ruling.denies:
            if holds_of(rule, actor, target):
                return False
        for rule in ruling.allows:
            if holds_of(rule, actor, target):
                return True
        return self.on_denied is not None and self.on_denied(target)

    def _control(self, control: Control) -> None:
        if self.on_control is not None:
            self.on_control(control)
            return
        raise Refused(
            "approval_required",
            f"{self.permission!r} is under the control {control.name!r}",
            "propose it, and have it approved",
            details={"permission": self.permission, "control": control.name, "approvals": control.approvals},
        )


def place_of(actor: Actor, permission: str) -> Target:
    """Where a command of that actor is given, or the host, if it acts on the host."""
    if PERMISSIONS[permission] is TargetKind.HOST:
        return Target(HOST, "", actor.owners)  # of no project: a key that is bound to some does not reach it
    return Target(actor.tenant, actor.project, actor.owners)


def holds_of(rule: Rule, actor: Actor, target: Target) -> bool:
    """Whether the rule's scope and conditions hold of that target."""
    if rule.scope is Scope.OWN:
        if not any(each in target.owners for each in actor.identities) or (
            rule.allow and target.tenant != actor.tenant
        ):
            return False
    elif rule.scope is Scope.TENANT and target.tenant != actor.tenant:
        return False
    return (
        (not rule.tenants or target.tenant in rule.tenants)
        and (not rule.projects or target.project in rule.projects)
        and (not rule.classes or target.manifest_class in rule.classes)
        and all(target.labels.get(key) == value for key, value in rule.labels)
    )


def _has_class(permission: str) -> bool:
    return PERMISSIONS[permission] in (TargetKind.SANDBOX, TargetKind.RUN, TargetKind.MANIFEST)


def _has_labels(permission: str) -> bool:
    return PERMISSIONS[permission] is TargetKind.SANDBOX
