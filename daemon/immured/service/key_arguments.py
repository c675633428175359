"""What `args` of the key commands hold, made into records: strict, and every name is one that the policy knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from immured.errors import ConfigurationError, Refused
from immured.identity.keyring import (
    MAX_LABELS,
    MAX_TIME_MS,
    KeyRecord,
    check_label,
    check_note,
    check_subject,
    check_uids,
)
from immured.identity.policy.schema import DEFAULT_TENANT, Policy
from immured.wire.keys import PublicKey
from immured.wire.strict import Fields, kind_of, nearest

__all__ = ["BINDINGS", "bound", "check_names", "public_of"]

T = TypeVar("T")

BINDINGS: Final = (
    *("role", "uids", "gids", "personas", "tenants", "projects", "subjects"),
    *("not_before_ms", "expires_ms", "note"),
)


def public_of(fields: Fields) -> PublicKey:
    """`public`, 32 raw bytes. Raises Refused `bad_argument`."""
    try:
        return PublicKey(fields.required("public", bytes))
    except ConfigurationError as error:
        raise Refused("bad_argument", f"args.public: {error.message}", error.remedy) from error


def bound(record: KeyRecord, fields: Fields) -> KeyRecord:
    """The record with what `fields` names in the place of what it had; a time of 0 takes it away.

    Raises Refused `bad_argument`.
    """
    given: dict[str, Any] = {}
    if (role := fields.optional("role", str)) is not None:
        given["role"] = check_label(role, "args.role")
    for name in ("uids", "gids"):
        if (ids := fields.optional(name, list)) is not None:
            given[name] = check_uids(_each(ids, int, f"args.{name}"), name)
    for name in ("personas", "tenants", "projects"):
        if (labels := fields.optional(name, list)) is not None:
            given[name] = _names(labels, f"args.{name}", check_label)
    if (subjects := fields.optional("subjects", list)) is not None:
        given["subjects"] = _names(subjects, "args.subjects", lambda one, _: check_subject(one))
    for name in ("not_before_ms", "expires_ms"):
        if (at := fields.integer(name, 0, MAX_TIME_MS)) is not None:
            given[name] = at or None
    if (note := fields.optional("note", str)) is not None:
        given["note"] = check_note(note, "args.note")
    changed = replace(record, **given)
    first, last = changed.not_before_ms, changed.expires_ms
    if first is not None and last is not None and first >= last:
        raise fields.wrong("not_before_ms", "is not before `expires_ms`")
    return changed


def check_names(policy: Policy, record: KeyRecord) -> None:
    """Whether the policy knows the role, the tenants and the projects. Raises Refused `bad_argument`.

    Ask it after `excess`: who may not give what they stand for is not told what there is.
    """
    if record.role not in policy.roles:
        raise _unknown("role", record.role, policy.roles)
    for tenant in sorted(record.tenants):
        if tenant not in policy.tenants:
            raise _unknown("tenant", tenant, policy.tenants)
    there = {name for tenant in record.tenants or {DEFAULT_TENANT} for name in policy.tenants[tenant].projects}
    for project in sorted(record.projects - there):
        raise _unknown("project", project, there)


def _unknown(what: str, name: str, known: Any) -> Refused:
    near = nearest(name, known)
    return Refused(
        "bad_argument",
        f"the policy has no {what} {name!r}",
        f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(known)[:32])}",
        details={"field": f"args.{what}"},
    )


def _each(values: list[object], kind: type[T], where: str) -> list[T]:
    for one in values:
        if type(one) is not kind:
            raise Refused("bad_argument", f"{where} holds {kind_of(one)}", details={"field": where})
    return values  # type: ignore[return-value]


def _names(values: list[object], where: str, check: Callable[[str, str], str]) -> frozenset[str]:
    if len(values) > MAX_LABELS:
        raise Refused("bad_argument", f"{where} holds {len(values)} names", f"at most {MAX_LABELS}")
    return frozenset(check(one, where) for one in _each(values, str, where))
