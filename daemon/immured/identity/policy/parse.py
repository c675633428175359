"""From a policy's bytes to a Policy: strict, and every name in it is known. Pure.

Raises ConfigurationError `policy_invalid`; the message names the line, the table and, for a name that is not known, the
nearest one that is. Nothing is guessed: a condition that could never hold of what a rule permits is an error too, since
a `deny` that never holds fails open.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

from immured.errors import ConfigurationError, Refused
from immured.identity.policy.lines import line_of
from immured.identity.policy.permissions import CONDITIONS, LOADING, PERMISSIONS, SIGNING, TargetKind
from immured.identity.policy.schema import (
    ADDED,
    DEFAULT_PROJECT,
    DEFAULT_TENANT,
    Control,
    External,
    ManifestRules,
    Policy,
    Role,
    Rule,
    Scope,
    Tenant,
)
from immured.identity.policy.values import (
    DAY_MS,
    KEY,
    LABEL,
    MAX_LINE,
    NAMES,
    RATE,
    check_known,
    duration_ms_of,
    known_of,
    label_of,
    labels_of,
    matching,
    moment_of,
    names_of,
    pairs_of,
    quota_of,
    rate_of,
    scope_of,
    text_of,
)
from immured.identity.rates import Rates
from immured.wire.strict import Fields, shown, take
from immured.wire.strict_toml import parse_toml

__all__ = ["INVALID", "MAX_TEXT", "SCHEMA", "parse_policy"]

INVALID: Final = "policy_invalid"
MAX_TEXT: Final = 512 * 1024
"""Bytes of a policy: a command that carries one fits a frame."""
SCHEMA: Final = 1

_MAX_WINDOW_MS: Final = 7 * DAY_MS
_MAX_APPROVALS: Final = 16
_MOST: Final = {"roles": 256, "tenants": 1024, "rates": 3, "rules": 1024, "controls": 128, "external": 256}
"""So many of each: a policy is judged on the daemon's own thread as it is set."""

_TOP: Final = "schema roles rules tenants rates controls external manifests".split()
_RULE: Final = "name roles keys allow deny scope tenants projects classes labels from until session".split()
_QUOTA: Final = "sandboxes runs_per_minute cpus memory pids disk wall".split()
_CONTROL: Final = "name permissions classes added approvals approvers window".split()
_MANIFESTS: Final = "signatures only revoked".split()
_EXTERNAL: Final = "issuer claim value role tenant longest".split()

_MAX_SIGNATURES: Final = 8
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)

T = TypeVar("T")


def parse_policy(text: bytes) -> Policy:
    """The policy that these bytes are. Raises ConfigurationError `policy_invalid`."""
    if len(text) > MAX_TEXT:
        raise ConfigurationError(INVALID, f"the policy has {len(text)} bytes; at most {MAX_TEXT}", "make it smaller")
    try:
        values = parse_toml(text)
    except ValueError as error:
        raise ConfigurationError(INVALID, f"the policy is not TOML: {error}", "see https://toml.io") from None
    reader = _Reader(values)
    try:
        return reader.policy(text)
    except Refused as error:
        raise reader.located(error, text.decode()) from None


class _Reader:
    """Reads one table after another, and knows which, for the message."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self._table = ""
        self._index: int | None = None
        self._roles: dict[str, Role] = {}
        self._tenants: dict[str, Tenant] = {}

    def policy(self, text: bytes) -> Policy:
        top = take(self._values, "policy", _TOP, code=INVALID, unknown=INVALID)
        if top.required("schema", int) != SCHEMA:
            raise top.wrong("schema", f"is {top.values['schema']}", f"this daemon reads schema = {SCHEMA}")
        self._roles = self._read_roles(top)
        self._tenants = self._read_tenants(top)
        return Policy(
            digest="sha256:" + hashlib.sha256(text).hexdigest(),
            text=text,
            roles=self._roles,
            rules=self._named(top, "rules", _RULE, self._rule),
            tenants=self._tenants,
            rates=Rates(**{name: rate_of(fields) for name, fields in self._tables(top, "rates", RATE)}),
            controls=self._named(top, "controls", _CONTROL, self._control),
            external=tuple(map(self._external, self._array(top, "external", _EXTERNAL))),
            manifests=self._manifests(top),
        )

    def located(self, error: Refused, text: str) -> ConfigurationError:
        """The error with the line that it is about."""
        field = str(error.details.get("field", "")).rpartition(".")[2] or None
        line = line_of(text, self._table, self._index, field) or line_of(text, self._table, self._index)
        details = dict(error.details)
        if line is None:
            return ConfigurationError(INVALID, error.message, error.remedy, details=details)
        return ConfigurationError(
            INVALID, f"line {line}: {error.message}", error.remedy, details=details | {"line": line}
        )

    # -- tables

    @contextmanager
    def _at(self, table: str, index: int | None = None) -> Iterator[None]:
        before = self._table, self._index
        self._table, self._index = table, index
        yield
        self._table, self._index = before  # not where it fails: `located` asks

    def _tables(self, top: Fields, name: str, known: Collection[str]) -> Iterator[tuple[str, Fields]]:
        for key, value in (top.sized(name, dict, 0, _MOST[name]) or {}).items():
            with self._at(f"{name}.{key}"):
                where = f"{name}.{key[:64]}"
                if not LABEL.fullmatch(key):
                    raise Refused(INVALID, f"{where} is no name", NAMES, details={"where": where})
                if name == "rates" and key not in ("key", "uid", "tenant"):
                    raise Refused(INVALID, f"{where}: no such rate", "rates are of `key`, `uid` and `tenant`")
                yield key, take(value, where, known, code=INVALID, unknown=INVALID)

    def _array(self, top: Fields, name: str, known: Collection[str]) -> Iterator[Fields]:
        for index, value in enumerate(top.sized(name, list, 0, _MOST[name]) or []):
            with self._at(name, index):
                called = value.get("name") if isinstance(value, Mapping) else None
                where = f"{name}[{called if isinstance(called, str) and LABEL.fullmatch(called) else index}]"
                yield take(value, where, known, code=INVALID, unknown=INVALID)

    def _named(self, top: Fields, name: str, known: Collection[str], read: Callable[[str, Fields], T]) -> tuple[T, ...]:
        found: dict[str, T] = {}
        for fields in self._array(top, name, known):
            called = label_of(fields, "name")
            if called in found:
                raise fields.wrong("name", "stands twice", f"each of {name} has a name of its own")
            found[called] = read(called, fields)
        return tuple(found.values())

    # -- roles and tenants

    def _read_roles(self, top: Fields) -> dict[str, Role]:
        top.required("roles", dict)
        roles: dict[str, Role] = {}
        included: list[tuple[str, Fields]] = []
        for name, fields in self._tables(top, "roles", ("title", "includes")):
            roles[name] = Role(name, fields.sized("title", str, 0, MAX_LINE) or "", tuple(names_of(fields, "includes")))
            included.append((name, fields))
        for name, fields in included:
            with self._at(f"roles.{name}"):
                check_known(fields, "includes", roles[name].includes, roles, "role")
                if (cycle := _cycle(roles, name)) is not None:
                    raise fields.wrong("includes", f"goes round: {' -> '.join(cycle)}", "a role includes lesser ones")
        return roles

    def _read_tenants(self, top: Fields) -> dict[str, Tenant]:
        tenants = {DEFAULT_TENANT: Tenant(DEFAULT_TENANT)}
        for name, fields in self._tables(top, "tenants", ("projects", "paths", "quota")):
            projects = labels_of(fields, "projects")
            with self._at(f"tenants.{name}.quota"):
                given = fields.optional("quota", dict) or {}
                quota = quota_of(take(given, f"tenants.{name}.quota", _QUOTA, code=INVALID, unknown=INVALID))
            paths = frozenset(labels_of(fields, "paths"))
            tenants[name] = Tenant(name, frozenset({DEFAULT_PROJECT, *projects}), paths, quota)
        return tenants

    # -- rules

    def _rule(self, name: str, fields: Fields) -> Rule:
        allow = "allow" in fields
        if allow == ("deny" in fields):
            raise fields.wrong("allow", "and `deny`: there must be exactly one of them", "a rule allows or it denies")
        effect = "allow" if allow else "deny"
        rule = Rule(
            name=name,
            allow=allow,
            permissions=self._permissions(fields, effect),
            scope=scope_of(fields, allow=allow),
            roles=frozenset(self._known_roles(fields, "roles")),
            keys=frozenset(matching(fields, "keys", KEY, "a key's name or id")),
            tenants=frozenset(known_of(fields, "tenants", self._tenants, "tenant")),
            projects=frozenset(labels_of(fields, "projects")),
            classes=frozenset(labels_of(fields, "classes")),
            labels=pairs_of(fields),
            from_ms=moment_of(fields, "from"),
            until_ms=moment_of(fields, "until"),
            session=fields.optional("session", bool) or False,
        )
        if not rule.roles and not rule.keys:
            raise fields.wrong("roles", "and `keys` are both missing", "say whom the rule is about")
        if "session" in fields and not rule.session:
            raise fields.wrong("session", "is false", "write `session = true`, or leave it out")
        if rule.from_ms is not None and rule.until_ms is not None and rule.from_ms >= rule.until_ms:
            raise fields.wrong("until", "is not after `from`: the rule would never hold")
        self._check_projects(fields, rule)
        _check_conditions(fields, rule)
        return rule

    def _permissions(self, fields: Fields, name: str) -> frozenset[str]:
        fields.required(name, list)
        return frozenset(known_of(fields, name, PERMISSIONS, "permission", least=1))

    def _known_roles(self, fields: Fields, name: str, least: int = 0) -> list[str]:
        return known_of(fields, name, self._roles, "role", least=least)

    def _check_projects(self, fields: Fields, rule: Rule) -> None:
        if not rule.projects:
            return
        tenants = rule.tenants or self._tenants
        check_known(
            fields,
            "projects",
            rule.projects,
            {each for name in tenants for each in self._tenants[name].projects},
            "project",
        )

    # -- the rest

    def _control(self, name: str, fields: Fields) -> Control:
        window = duration_ms_of(fields, "window", 60_000, _MAX_WINDOW_MS)
        approvals = fields.integer("approvals", 1, _MAX_APPROVALS)
        for needed in ("approvers", "permissions"):
            fields.required(needed, list)
        control = Control(
            name=name,
            permissions=self._permissions(fields, "permissions"),
            approvers=frozenset(self._known_roles(fields, "approvers", least=1)),
            approvals=1 if approvals is None else approvals,
            window_ms=8 * 3_600_000 if window is None else window,
            classes=frozenset(labels_of(fields, "classes")),
            added=_added(fields),
        )
        if never := sorted(each for each in control.permissions if each.startswith("proposal.")):
            raise fields.wrong("permissions", f"holds {never[0]!r}, which is how approval is given", "leave it out")
        if SIGNING in control.permissions:
            raise fields.wrong(
                "permissions", f"holds {SIGNING!r}, which no command carries", f"control {LOADING!r} instead"
            )
        if control.added and (other := sorted(control.permissions - {LOADING})):
            raise fields.wrong(
                "added", f"never holds of {other[0]!r}, which adds no capabilities", "put it in a control of its own"
            )
        if control.classes:
            for permission in sorted(control.permissions):
                if "classes" not in CONDITIONS[PERMISSIONS[permission]]:
                    raise fields.wrong(
                        "classes", f"never hold of {permission!r}, which acts on no manifest", "leave it out"
                    )
        return control

    def _manifests(self, top: Fields) -> ManifestRules:
        with self._at("manifests"):
            fields = take(top.optional("manifests", dict) or {}, "manifests", _MANIFESTS, code=INVALID, unknown=INVALID)
            signatures = fields.integer("signatures", 1, _MAX_SIGNATURES)
            only = matching(fields, "only", _DIGEST, "a digest, `sha256:` and 64 hex digits")
            revoked = matching(fields, "revoked", _DIGEST, "a digest, `sha256:` and 64 hex digits")
            if both := sorted({*only} & {*revoked}):
                raise fields.wrong("only", f"holds {both[0]}, which is revoked", "leave it out of one of the two")
            return ManifestRules(
                1 if signatures is None else signatures, frozenset(only) if only else None, frozenset(revoked)
            )

    def _external(self, fields: Fields) -> External:
        for name in ("role", "tenant"):
            known: Collection[str] = self._roles if name == "role" else self._tenants
            check_known(fields, name, [fields.required(name, str)], known, name)
        longest = duration_ms_of(fields, "longest", 60_000, DAY_MS)
        return External(
            issuer=text_of(fields, "issuer"),
            claim=text_of(fields, "claim"),
            value=text_of(fields, "value"),
            role=fields.required("role", str),
            tenant=fields.required("tenant", str),
            longest_ms=3_600_000 if longest is None else longest,
        )


def _added(fields: Fields) -> int:
    """The rank that `added` names; 0 where it is absent."""
    given = fields.optional("added", str)
    if given is None:
        return 0
    if given not in ADDED:
        raise fields.wrong("added", f"is {shown(given)}", f"it may be {', '.join(ADDED)}")
    return ADDED.index(given) + 1


# -- what rules must not say


def _check_conditions(fields: Fields, rule: Rule) -> None:
    used = [name for name in ("tenants", "projects", "classes", "labels") if getattr(rule, name)]
    for permission in sorted(rule.permissions):
        kind = PERMISSIONS[permission]
        for name in used:
            if name not in CONDITIONS[kind]:
                problem = f"never hold of {permission!r}, which acts on {_acts_on(kind)}"
                raise fields.wrong(name, problem, "put it in a rule of its own, without that")
        if permission == SIGNING and rule.allow and rule.scope is Scope.OWN:
            raise fields.wrong(
                "scope", f"is 'own', but what {permission!r} is about belongs to tenants", 'write scope = "tenant"'
            )
        if permission == SIGNING and rule.session:
            raise fields.wrong(
                "session", f"never holds of {permission!r}, as nobody signs in one", "put it in a rule of its own"
            )
        if kind is TargetKind.HOST and rule.allow and rule.scope is not Scope.HOST:
            raise fields.wrong(
                "scope", f"is {rule.scope.value!r}, but {permission!r} acts on the whole host", 'write scope = "host"'
            )


def _acts_on(kind: TargetKind) -> str:
    return {TargetKind.NOTHING: "nothing that has one", TargetKind.HOST: "the whole host"}.get(kind, f"a {kind.value}")


def _cycle(roles: Mapping[str, Role], start: str) -> list[str] | None:
    """The way from a role back to itself."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for inner in roles[way[-1]].includes if way[-1] in roles else ():
            if inner == start:
                return [*way, start]
            if inner not in seen:
                seen.add(inner)
                ways.append([*way, inner])
    return None
