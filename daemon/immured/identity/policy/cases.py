"""What a policy is expected to say, as a file beside it: `immure policy test`. Pure.

    schema = 1

    [[cases]]
    name = "partners do not see one another's files"
    role = "partner-developer"        # or key = "alice", which needs the keyring
    permissions = ["file.get", "file.list"]
    tenant = "acme"                   # under which the command is given; "default" otherwise
    bound = true                      # whether the key is bound to that tenant
    project = "web"
    session = true
    at = 2026-12-24T18:00:00Z         # now otherwise
    target = {own = false, tenant = "acme", project = "web", class = "default", labels = {team = "red"}}
    expect = "deny"                   # or "allow"
    rule = "partners-apart"           # optional: which rule says so
    controls = ["two-for-policy"]     # optional: exactly these wait to be fulfilled

Without a `target` it is the command's own place, as it is for `run`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.identity.actor import Actor
from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider
from immured.identity.policy.explain import Explanation, explain
from immured.identity.policy.permissions import PERMISSIONS
from immured.identity.policy.schema import DEFAULT_PROJECT, DEFAULT_TENANT
from immured.identity.policy.space import Subject
from immured.identity.policy.warrant import Target, place_of
from immured.wire.strict import Fields, nearest, shown, take

__all__ = ["Case", "Outcome", "parse_cases", "try_cases"]

INVALID: Final = "cases_invalid"
_CASE: Final = "name role key permissions tenant bound project session at target expect rule controls".split()
_TARGET: Final = "own tenant project class labels".split()
_NOBODY: Final = ("ed25519:" + 32 * "0",)


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation, of each of its permissions. `own`: what is acted on is the key's own."""

    name: str
    role: str | None
    key: str | None
    permissions: tuple[str, ...]
    tenant: str
    bound: bool
    project: str
    session: bool
    at_ms: int | None
    target: Target | None
    own: bool
    expect: bool
    rule: str | None
    controls: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case and permission. `problem` is None where it is as expected."""

    case: str
    permission: str
    problem: str | None
    why: str

    def to_map(self) -> dict[str, object]:
        """As `immure policy test --json` shows it."""
        shown_: dict[str, object] = {"case": self.case, "permission": self.permission, "ok": self.problem is None}
        return shown_ | {"why": self.why} | ({} if self.problem is None else {"problem": self.problem})


def parse_cases(text: bytes) -> list[Case]:
    """The cases of a file. Raises ConfigurationError `cases_invalid`."""
    try:
        values = tomllib.loads(text.decode("utf-8"))
        top = take(values, "cases", ("schema", "cases"), code=INVALID, unknown=INVALID)
        if top.required("schema", int) != 1:
            raise top.wrong("schema", f"is {values['schema']}", "write schema = 1")
        given = top.required("cases", list)
        if not given:
            raise top.wrong("cases", "is empty", "a file of no cases expects nothing")
        cases = [_case(index, value) for index, value in enumerate(given)]
    except Refused as error:
        raise ConfigurationError(INVALID, error.message, error.remedy, details=error.details) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(INVALID, f"the cases are not TOML: {error}", "see https://toml.io") from None
    return cases


def _case(index: int, value: object) -> Case:
    called = value.get("name") if isinstance(value, dict) else None
    where = f"cases[{called if isinstance(called, str) else index}]"
    fields = take(value, where, _CASE, code=INVALID, unknown=INVALID)
    role, key = fields.optional("role", str), fields.optional("key", str)
    if (role is None) == (key is None):
        raise fields.wrong("role", "and `key`: there must be exactly one of them")
    expect = fields.required("expect", str)
    if expect not in ("allow", "deny"):
        raise fields.wrong("expect", f"is {shown(expect)}", '"allow" or "deny"')
    tenant = fields.optional("tenant", str) or DEFAULT_TENANT
    project = fields.optional("project", str) or DEFAULT_PROJECT
    target, own = _target(fields, tenant, project)
    bound, controls = fields.optional("bound", bool), fields.optional("controls", list)
    return Case(
        name=fields.required("name", str),
        role=role,
        key=key,
        permissions=tuple(_permissions(fields)),
        tenant=tenant,
        bound=True if bound is None else bound,
        project=project,
        session=fields.optional("session", bool) or False,
        at_ms=_moment(fields),
        target=target,
        own=own,
        expect=expect == "allow",
        rule=fields.optional("rule", str),
        controls=None if controls is None else tuple(str(name) for name in controls),
    )


def _permissions(fields: Fields) -> Iterator[str]:
    fields.required("permissions", list)
    for name in fields.sized("permissions", list, 1, len(PERMISSIONS)) or []:
        if not isinstance(name, str) or name not in PERMISSIONS:
            near = nearest(str(name), PERMISSIONS)
            remedy = f"did you mean {near!r}?" if near else ""
            raise fields.wrong("permissions", f"holds {shown(str(name))}, which is no permission", remedy)
        yield name


def _target(fields: Fields, tenant: str, project: str) -> tuple[Target | None, bool]:
    given = fields.optional("target", dict)
    if given is None:
        return None, True
    inner = take(given, f"{fields.where}.target", _TARGET, code=INVALID, unknown=INVALID)
    own = inner.required("own", bool)
    named = inner.optional("tenant", str)
    labels = {str(key): str(value) for key, value in (inner.optional("labels", dict) or {}).items()}
    place = tenant if named is None else named
    return Target(place, inner.optional("project", str) or project, (), inner.optional("class", str), labels), own


def _moment(fields: Fields) -> int | None:
    value = fields.values.get("at")
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise fields.wrong("at", "is no moment with an offset", "write at = 2026-12-01T00:00:00Z, unquoted")
    return int(value.timestamp() * 1000)


def try_cases(
    decider: Decider, cases: Collection[Case], now_ms: int, records: Collection[KeyRecord] | None = None
) -> list[Outcome]:
    """What comes of each, in their order. Raises ConfigurationError `cases_invalid` for who is not there."""
    return [
        _try(decider, case, permission, _actor(decider, case, records), now_ms)
        for case in cases
        for permission in case.permissions
    ]


def _actor(decider: Decider, case: Case, records: Collection[KeyRecord] | None) -> Actor:
    if case.role is not None:
        if not decider.is_role(case.role):
            raise _absent(case, "role", case.role, decider.policy.roles)
        return Subject(case.role).actor(case.tenant, member=case.bound, project=case.project, session=case.session)
    if records is None:
        raise ConfigurationError(INVALID, f"the case {case.name!r} is about a key", "say whose: --state DIR")
    found = next((one for one in records if case.key in (one.name, one.id) and one.successor is None), None)
    if found is None:
        raise _absent(case, "key", str(case.key), [one.name for one in records])
    return Subject(found.role, None, found).actor(case.tenant, member=True, project=case.project, session=case.session)


def _absent(case: Case, what: str, name: str, known: Collection[str]) -> ConfigurationError:
    near = nearest(name, known)
    remedy = f"did you mean {near!r}?" if near else ""
    return ConfigurationError(INVALID, f"the case {case.name!r}: no {what} is called {name!r}", remedy)


def _try(decider: Decider, case: Case, permission: str, actor: Actor, now_ms: int) -> Outcome:
    target = place_of(actor, permission)
    if case.target is not None:
        target = replace(case.target, owners=actor.owners if case.own else _NOBODY)
    said = explain(decider, actor, permission, now_ms if case.at_ms is None else case.at_ms, target)
    return Outcome(case.name, permission, _problem(case, said), said.why)


def _problem(case: Case, said: Explanation) -> str | None:
    if said.allowed is not case.expect:
        return f"it is {'allowed' if said.allowed else 'denied'}"
    if case.rule is not None and said.rule != case.rule:
        holding = [one.rule for one in said.rules if not one.failed and (one.effect == "allow") is said.allowed]
        if case.rule not in holding:
            return f"not by the rule {case.rule!r}, but by {said.rule or 'default'!r}"
    if case.controls is not None and set(case.controls) != set(said.controls):
        return f"the controls that it waits for are {', '.join(said.controls) or 'none'}"
    return None
