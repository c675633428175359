"""The same policy as Cedar text, and a question about it as Cedar's entities: for whoever wants Cedar's analysis. Pure.

    immured                     Cedar
    key, as it acts             principal `Key::"<id>"`, whose parents are its role and all that this includes
    role                        `Role::"<name>"`
    permission                  action `Action::"<name>"`
    what is acted on            resource `Target::"<any>"`
    moment, session             `context.now` (milliseconds), `context.session`

Rules become one policy each, annotated `@id` with their name. What the daemon checks beside the rules (tenants that are
declared, the projects that a key is bound to) becomes four `forbid`s. Certificates, grants and controls are no rules:
they narrow, add to, and wait for what the rules say, and are not exported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from immured.identity.actor import Actor
from immured.identity.policy.schema import DEFAULT_TENANT, Policy, Rule, Scope
from immured.identity.policy.warrant import Target

__all__ = ["cedar_entities", "cedar_policy", "cedar_request"]

_OWN: Final = "principal.identities.containsAny(resource.owners)"
_BEYOND_RULES: Final = """\
@id("tenants-are-declared")
forbid (principal, action, resource)
unless {{ {tenants}.contains(principal.tenant) }};

@id("projects-are-declared")
forbid (principal, action, resource)
unless {{ {projects}.contains(principal.place) }};

@id("keys-are-bound-to-projects")
forbid (principal, action, resource)
when {{ principal has projects && (!principal.projects.contains(resource.project) || \
!principal.projects.contains(principal.project)) }};
"""


def cedar_policy(policy: Policy) -> str:
    """The policy as Cedar 4 text, for the entities and the request that the functions beside it make."""
    places = [f"{name}/{project}" for name, tenant in policy.tenants.items() for project in tenant.projects]
    beyond = _BEYOND_RULES.format(tenants=_set(policy.tenants), projects=_set(places))
    return "\n".join([beyond, _carried(policy), *(_rule(rule) for rule in policy.rules)])


def _carried(policy: Policy) -> str:
    """A tenant that is not one's own is carried where a rule of scope `host` reaches into it."""
    ways = ["principal.member"]
    for rule in policy.rules:
        if rule.allow and rule.scope is Scope.HOST:
            parts = [f"action in [{_actions(rule)}]", *_who(rule), *_when(rule)]
            if rule.tenants:
                parts.append(f"{_set(rule.tenants)}.contains(principal.tenant)")
            ways.append(f"({' && '.join(parts)})")
    either = " ||\n  ".join(ways)
    return f'@id("tenants-are-ones-own")\nforbid (principal, action, resource)\nunless {{\n  {either}\n}};\n'


def _actions(rule: Rule) -> str:
    return ", ".join(f"Action::{_text(name)}" for name in sorted(rule.permissions))


def _rule(rule: Rule) -> str:
    effect = "permit" if rule.allow else "forbid"
    conditions = " &&\n  ".join(_conditions(rule)) or "true"
    head = f"@id({_text(rule.name)})\n{effect} (principal, action in [{_actions(rule)}], resource)"
    return f"{head}\nwhen {{\n  {conditions}\n}};\n"


def _conditions(rule: Rule) -> Iterator[str]:
    yield from _who(rule)
    yield from _scope(rule)
    yield from _what(rule)
    yield from _when(rule)


def _who(rule: Rule) -> Iterator[str]:
    if rule.roles:
        roles = ", ".join(f"Role::{_text(name)}" for name in sorted(rule.roles))
        held = f"principal in [{roles}]"
        # What is denied to a role stays denied where one of those that it includes is taken.
        yield held if rule.allow else f"({held} || principal.laidDown.containsAny({_set(rule.roles)}))"
    if rule.keys:
        yield f"{_set(rule.keys)}.containsAny(principal.names)"
        if rule.allow and not rule.roles:
            yield "principal.role == principal.ownRole"


def _what(rule: Rule) -> Iterator[str]:
    if rule.tenants:
        yield f"{_set(rule.tenants)}.contains(resource.tenant)"
    if rule.projects:
        yield f"{_set(rule.projects)}.contains(resource.project)"
    if rule.classes:
        yield f"resource has manifestClass && {_set(rule.classes)}.contains(resource.manifestClass)"
    for key, value in rule.labels:
        yield f"resource.labels.contains({_text(f'{key}={value}')})"


def _when(rule: Rule) -> Iterator[str]:
    if rule.from_ms is not None:
        yield f"context.now >= {rule.from_ms}"
    if rule.until_ms is not None:
        yield f"context.now < {rule.until_ms}"
    if rule.session:
        yield "context.session"


def _scope(rule: Rule) -> Iterator[str]:
    if rule.scope is Scope.OWN:
        yield _OWN
    if rule.allow and rule.scope is not Scope.HOST:
        yield "principal.member"
        yield "resource.tenant == principal.tenant"


def cedar_entities(policy: Policy, actor: Actor, target: Target) -> list[dict[str, Any]]:
    """The key as it acts, what it acts on, and every role, as Cedar's JSON has entities."""
    root = actor.root
    laid_down = policy.closure(root.role) if actor.role in policy.closure(root.role) else frozenset[str]()
    principal: dict[str, Any] = {
        "names": sorted({root.name, root.id, actor.key_id}),
        "identities": list(actor.identities),
        "tenant": actor.tenant,
        "project": actor.project,
        "place": f"{actor.tenant}/{actor.project}",
        "member": actor.tenant in (root.tenants or {DEFAULT_TENANT}),
        "role": actor.role,
        "ownRole": root.role,
        "laidDown": sorted(laid_down),
    }
    if root.projects:
        principal["projects"] = sorted(root.projects)
    resource: dict[str, Any] = {
        "tenant": target.tenant,
        "project": target.project,
        "owners": list(target.owners),
        "labels": [f"{key}={value}" for key, value in target.labels.items()],
    }
    if target.manifest_class is not None:
        resource["manifestClass"] = target.manifest_class
    return [
        _entity("Key", actor.key_id, principal, (actor.role,)),
        _entity("Target", "it", resource, ()),
        *(_entity("Role", role.name, {}, role.includes) for role in policy.roles.values()),
    ]


def cedar_request(actor: Actor, permission: str, now_ms: int) -> dict[str, Any]:
    """The question: may that key do that, then?"""
    return {
        "principal": f"Key::{_text(actor.key_id)}",
        "action": f"Action::{_text(permission)}",
        "resource": 'Target::"it"',
        "context": {"now": now_ms, "session": actor.session is not None},
    }


def _entity(kind: str, name: str, attributes: dict[str, Any], roles: Iterable[str]) -> dict[str, Any]:
    parents = [{"type": "Role", "id": role} for role in roles]
    return {"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": parents}


def _set(names: Iterable[str]) -> str:
    return "[" + ", ".join(map(_text, sorted(names))) + "]"


def _text(value: str) -> str:
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\' or not character.isprintable() or not character.isascii():
        return f"\\u{{{ord(character):x}}}"
    return character
