"""The policy as a function: an actor, a permission and a moment to a warrant, or a typed no. Pure.

Default is deny, a rule that denies overrides those that allow, and all conditions of a rule must hold. What is known
without the target is decided here, and remembered until the next moment at which a rule begins or ends to hold; the
rest is asked of the warrant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.policy.permissions import ADDING, ALSO_ADD, PERMISSIONS
from immured.identity.policy.schema import DEFAULT_TENANT, Control, Policy, Rule, Scope
from immured.identity.policy.warrant import HOST, Ruling, Target, Warrant, holds_of

if TYPE_CHECKING:
    from immured.identity.actor import Actor
    from immured.identity.keyring import KeyRecord

__all__ = ["Decider", "concerns", "in_force"]

_MAX_REMEMBERED: Final = 65_536
"""Rulings. When there are more, all are forgotten: they cost microseconds, and keeping order would cost every time."""

_BOUND_TO_NONE: Final = frozenset({DEFAULT_TENANT})

_Remembered = tuple["KeyRecord", "KeyRecord", tuple[object, ...], Ruling]


class Decider:
    """Decides by one policy. A new policy is a new decider."""

    __slots__ = ("_controls", "_memory", "_rules", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._memory: dict[tuple[str, str, str, str, bool, str], _Remembered] = {}
        self._rules: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._controls = {
            name: tuple(control for control in policy.controls if _controls(control, name)) for name in PERMISSIONS
        }

    def warrant(self, actor: Actor, permission: str, now_ms: int) -> Warrant:
        """May this actor do that, now? Raises Refused `denied` where it may not, whatever the target is."""
        key = (actor.key_id, actor.role, actor.tenant, actor.project, actor.session is not None, permission)
        found = self._memory.get(key)
        if found is not None:
            record, root, chain, ruling = found
            if record is actor.record and root is actor.root and chain == actor.chain and ruling.stands(now_ms):
                return Warrant(actor, permission, ruling, self, now_ms)
        ruling = self._rule(actor, permission, now_ms)
        if len(self._memory) >= _MAX_REMEMBERED:
            self._memory.clear()
        self._memory[key] = (actor.record, actor.root, actor.chain, ruling)
        return Warrant(actor, permission, ruling, self, now_ms)

    def granted(self, actor: Actor, permission: str, now_ms: int) -> Warrant:
        """A warrant that allows nothing of itself: all is for its `on_denied`, where no rule allows but a grant does.

        Rules that deny hold all the same. Raises Refused `denied` where one does whatever the target is.
        """
        if not self._declared(actor):
            raise self.foreign(actor, permission)
        denies = tuple(rule for rule in self.about(actor, permission) if not rule.allow and in_force(rule, now_ms))
        if any(not rule.bound_to_target for rule in denies):
            raise self.refusal(actor, permission, now_ms)
        return Warrant(actor, permission, Ruling((), denies, self._controls[permission]), self, now_ms)

    def holds(self, actor: Actor, right: str, now_ms: int, target: Target | None = None) -> bool:
        """Whether the actor has that permission over `target`, or where the command is given; no control fulfilled."""
        try:
            warrant = self.warrant(actor, right, now_ms)
            return warrant.covers(warrant.place() if target is None else target)
        except Refused:
            return False

    # -- names

    def is_role(self, name: str) -> bool:
        """Whether the policy has that role."""
        return name in self.policy.roles

    def roles(self, role: str) -> frozenset[str]:
        """That role and all that it includes; of one that there is not, nothing."""
        return self.policy.closure(role)

    def control(self, permission: str) -> tuple[Control, ...]:
        """The controls that name that permission, or what it may be used for as well."""
        return self._controls[permission]

    # -- deciding

    def candidates(self, role: str, permission: str) -> tuple[Rule, ...]:
        """The rules about that permission that name that role, one that it includes, or keys alone."""
        found = self._rules.get((role, permission))
        if found is None:
            closure = self.policy.closure(role)
            found = tuple(
                rule
                for rule in self.policy.rules
                if permission in rule.permissions and (not rule.roles or rule.roles & closure)
            )
            if role in self.policy.roles:  # whoever carries other names must not fill the memory
                self._rules[role, permission] = found
        return found

    def about(self, actor: Actor, permission: str) -> tuple[Rule, ...]:
        """The rules about that permission that concern that actor, at whatever time.

        Whoever takes a persona which his role includes has less, never more: what is denied to his role stays so.
        """
        root = actor.root.role
        found = self.candidates(actor.role, permission)
        if actor.role != root and actor.role in self.policy.closure(root):
            denied = [rule for rule in self.candidates(root, permission) if not rule.allow]
            found = tuple(dict.fromkeys([*found, *denied]))
        return tuple(rule for rule in found if concerns(rule, actor))

    def _rule(self, actor: Actor, permission: str, now_ms: int) -> Ruling:
        if not self.member(actor) and not self._reaches(actor, permission, now_ms):
            raise self.foreign(actor, permission)
        if any(permission not in link.narrowing.permissions for link in actor.chain):
            raise self.refusal(actor, permission, now_ms)
        mine = self.about(actor, permission)
        now = [rule for rule in mine if in_force(rule, now_ms)]
        allows = tuple(rule for rule in now if rule.allow and self._may_hold(rule, actor))
        denies = tuple(rule for rule in now if not rule.allow)
        if not allows or any(not rule.bound_to_target for rule in denies):
            raise self.refusal(actor, permission, now_ms)
        turns = [at for rule in mine for at in (rule.from_ms, rule.until_ms) if at is not None]
        since = max((at for at in turns if at <= now_ms), default=None)
        until = min((at for at in turns if at > now_ms), default=None)
        return Ruling(allows, denies, self._controls[permission], since, until)

    def member(self, actor: Actor) -> bool:
        """Whether the tenant and project are there, and are the key's own to act in."""
        return self._declared(actor) and actor.tenant in (actor.root.tenants or _BOUND_TO_NONE)

    def _declared(self, actor: Actor) -> bool:
        tenant = self.policy.tenants.get(actor.tenant)
        if tenant is None or actor.project not in tenant.projects:
            return False
        return not actor.root.projects or actor.project in actor.root.projects

    def _reaches(self, actor: Actor, permission: str, now_ms: int) -> bool:
        """Whether a rule of scope `host` lets the actor into a tenant that is not its own."""
        led = any(
            rule.allow
            and rule.scope is Scope.HOST
            and in_force(rule, now_ms)
            and (not rule.tenants or actor.tenant in rule.tenants)
            for rule in self.about(actor, permission)
        )
        return led and self._declared(actor)  # in this order: a tenant that there is not takes as long as another's

    def _may_hold(self, rule: Rule, actor: Actor) -> bool:
        """Whether an allowing rule may hold of some target: in a tenant that is not one's own, scope `host` alone."""
        if rule.scope is Scope.HOST:
            return True
        return self.member(actor) and (not rule.tenants or actor.tenant in rule.tenants)

    # -- saying no

    def foreign(self, actor: Actor, permission: str) -> Refused:
        """The same words for a tenant or project that there is not, and for one that is another's."""
        where = f"the tenant {actor.tenant!r}"
        if actor.project != DEFAULT_TENANT:
            where = f"the project {actor.project!r} of {where}"
        return Refused(
            "denied",
            f"the key {actor.record.name!r} may not act in {where}",
            "leave it out, or have the key bound to it",
            details={"permission": permission, "role": actor.role, "tenant": actor.tenant},
        )

    def refusal(self, actor: Actor, permission: str, now_ms: int, target: Target | None = None) -> Refused:
        """Why not: the rule that denies, or that none allows; and who may."""
        details: dict[str, object] = {"permission": permission, "role": actor.role, "tenant": actor.tenant}
        who = f"the key {actor.record.name!r} ({actor.role})"
        denying = self._denying(actor, permission, now_ms, target)
        if denying is not None:
            details["rule"] = denying.name
            return Refused(
                "denied",
                f"the rule {denying.name!r} denies {permission!r} to {who}",
                self._who(permission),
                details=details,
            )
        link = next((at for at, link in enumerate(actor.chain) if permission not in link.narrowing.permissions), None)
        if link is not None:
            message = f"the certificate of {who} does not pass on {permission!r}"
            return Refused("denied", message, "have one issued that does", details=details)
        what = f"no rule allows {permission!r} to {who}"
        on_host = target is not None and target.tenant == HOST
        if target is not None:
            what += " on what belongs to the host" if on_host else " on that"
        return Refused("denied", what, self._who(permission, host=on_host), details=details)

    def _denying(self, actor: Actor, permission: str, now_ms: int, target: Target | None) -> Rule | None:
        for rule in self.about(actor, permission):
            if rule.allow or not in_force(rule, now_ms):
                continue
            if not rule.bound_to_target or (target is not None and holds_of(rule, actor, target)):
                return rule
        return None

    def _who(self, permission: str, *, host: bool = False) -> str:
        roles = sorted(
            role
            for role in self.policy.roles
            if any(
                rule.allow and rule.roles and (not host or rule.scope is Scope.HOST)
                for rule in self.candidates(role, permission)
            )
        )
        if not roles:
            return "no role may; the policy would have to change"
        return f"use a key that may: {', '.join(roles)} ({'a role' if len(roles) == 1 else 'roles'} with a rule for it)"


def in_force(rule: Rule, now_ms: int) -> bool:
    """Whether the rule's time has come, and has not passed."""
    return (rule.from_ms is None or rule.from_ms <= now_ms) and (rule.until_ms is None or now_ms < rule.until_ms)


def _controls(control: Control, permission: str) -> bool:
    return permission in control.permissions or (permission in ALSO_ADD and ADDING in control.permissions)


def concerns(rule: Rule, actor: Actor) -> bool:
    """Whether the rule is about that key, in such a command. Roles are the caller's to compare (`Decider.candidates`).

    A rule that allows something to keys alone is about their own role: who takes a persona has that role's rights.
    """
    if rule.session and actor.session is None:
        return False
    if not rule.keys:
        return True
    root = actor.root
    if rule.allow and not rule.roles and actor.role != root.role:
        return False
    return actor.key_id in rule.keys or any(one in rule.keys for one in root.called)
