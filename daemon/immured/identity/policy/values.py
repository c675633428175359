"""The values of a policy's tables, checked one by one. Pure; raises Refused `policy_invalid` that names the field."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Final

from immured.identity.policy.schema import Scope
from immured.identity.quotas import Quota
from immured.identity.rates import Rate
from immured.manifest.units import cpus_of, duration_of, size_of
from immured.wire.strict import Fields, kind_of, nearest, shown

__all__ = [
    "DAY_MS", "KEY", "LABEL", "MAX_LINE", "NAMES", "RATE",
    "check_known", "duration_ms_of", "known_of", "label_of", "labels_of", "matching", "moment_of", "names_of",
    "pairs_of", "quota_of", "rate_of", "scope_of", "text_of",
]  # fmt: skip

DAY_MS: Final = 24 * 3_600_000
_MAX_ITEMS: Final = 4096
"""Of any list."""
MAX_LINE: Final = 256
"""Characters of any text."""
LABEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
KEY: Final = re.compile(r"ed25519:[0-9a-f]{32}|[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
NAMES: Final = "names are a-z, 0-9, '.', '_' and '-', at most 64, and begin with a letter or digit"
RATE: Final = ("per_second", "burst")
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", re.ASCII)
_MAX_INTEGER: Final = 2**53 - 1


def scope_of(fields: Fields, *, allow: bool) -> Scope:
    given = fields.optional("scope", str)
    if given is None:
        if allow:
            raise fields.wrong("scope", "is missing", "own, tenant or host")
        return Scope.HOST
    if given == Scope.TENANT and not allow:
        # "The tenant that the command is given under" is the actor's to choose: such a deny would be walked around.
        raise fields.wrong("scope", "is 'tenant' in a rule that denies", "name the tenants with `tenants`")
    if given not in tuple(Scope):
        raise fields.wrong("scope", f"is {shown(given)}", "own, tenant or host" if allow else "own or host")
    return Scope(given)


def label_of(fields: Fields, name: str) -> str:
    value = fields.required(name, str)
    if not LABEL.fullmatch(value):
        raise fields.wrong(name, f"is {shown(value)}", NAMES)
    return value


def names_of(fields: Fields, name: str, least: int = 0) -> list[str]:
    """A list of texts, no two the same."""
    found = fields.sized(name, list, least, _MAX_ITEMS) or []
    for value in found:
        if type(value) is not str:
            raise fields.wrong(name, f"holds {kind_of(value)}, not a str")
    if (
        twice := next((value for value in found if found.count(value) > 1), None)
        if len(set(found)) < len(found)
        else None
    ):
        raise fields.wrong(name, f"holds {shown(twice)} twice")
    if name in fields and not found:
        raise fields.wrong(name, "is empty", "leave it out")
    return found


def matching(fields: Fields, name: str, pattern: re.Pattern[str], what: str) -> list[str]:
    found = names_of(fields, name)
    for value in found:
        if not pattern.fullmatch(value):
            raise fields.wrong(name, f"holds {shown(value)}, which is no {what.removeprefix('a ')}", f"write {what}")
    return found


def labels_of(fields: Fields, name: str) -> list[str]:
    return matching(fields, name, LABEL, "a name")


def known_of(fields: Fields, name: str, known: Collection[str], what: str, least: int = 0) -> list[str]:
    found = names_of(fields, name, least)
    check_known(fields, name, found, known, what)
    return found


def check_known(fields: Fields, name: str, found: Collection[str], known: Collection[str], what: str) -> None:
    for value in found:
        if value not in known:
            near = nearest(value, known)
            remedy = f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(known)[:32])}"
            if any(sign in value for sign in "*?["):
                remedy = f"each {what} is named in full: there are no patterns"
            raise fields.wrong(name, f"holds {shown(value)}, which is no {what}", remedy)


def pairs_of(fields: Fields) -> tuple[tuple[str, str], ...]:
    given = fields.sized("labels", dict, 1, 64) or {}
    for key, value in given.items():
        if not _LABEL_KEY.fullmatch(key) or type(value) is not str or len(value) > MAX_LINE:
            raise fields.wrong("labels", f"holds {shown(str(key))} = {shown(str(value))}", "a name and a text")
    return tuple(sorted(given.items()))


def moment_of(fields: Fields, name: str) -> int | None:
    """Milliseconds since the epoch."""
    value = fields.values.get(name)
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise fields.wrong(name, "is no moment with an offset", f"write {name} = 2026-12-01T00:00:00Z, unquoted")
    try:
        return int(value.timestamp() * 1000)
    except OverflowError:  # the year 1, seen from east of Greenwich
        raise fields.wrong(name, "is before the first moment that there is") from None


def duration_ms_of(fields: Fields, name: str, low: int, high: int) -> int | None:
    given = fields.optional(name, str)
    if given is None:
        return None
    try:
        value = duration_of(given) // 1_000_000
    except ValueError as error:
        raise fields.wrong(name, f"is {shown(given)}", str(error)) from None
    if not low <= value <= high:
        raise fields.wrong(name, f"is {shown(given)}", f"between {low}ms and {high // 1000}s")
    return value


def text_of(fields: Fields, name: str) -> str:
    value = fields.required(name, str)
    if not 0 < len(value) <= MAX_LINE or not value.isprintable():
        raise fields.wrong(name, f"is {shown(value)}", f"1 to {MAX_LINE} characters of one line")
    return value


def quota_of(fields: Fields) -> Quota:
    disk, memory = _size(fields, "disk"), _size(fields, "memory")
    return Quota(
        sandboxes=fields.integer("sandboxes", 0, _MAX_INTEGER),
        runs_per_minute=fields.integer("runs_per_minute", 0, _MAX_INTEGER),
        cpus=_cpus(fields),
        memory=memory,
        pids=fields.integer("pids", 1, _MAX_INTEGER),
        disk=disk,
        wall=_wall(fields),
    )


def _wall(fields: Fields) -> int | None:
    """Nanoseconds."""
    longest = duration_ms_of(fields, "wall", 1, 10 * 365 * DAY_MS)
    return None if longest is None else longest * 1_000_000


def _size(fields: Fields, name: str) -> int | None:
    given = fields.values.get(name)
    try:
        value = size_of(given) if isinstance(given, str) else fields.integer(name, 1, _MAX_INTEGER)
    except ValueError as error:
        raise fields.wrong(name, f"is {shown(str(given))}", str(error)) from None
    if value is not None and not 0 < value <= _MAX_INTEGER:
        raise fields.wrong(name, f"is {shown(str(given))}", f"between 1 and {_MAX_INTEGER} bytes")
    return value


def _cpus(fields: Fields) -> int | None:
    """Thousandths of a CPU."""
    given = fields.values.get("cpus")
    if given is None:
        return None
    try:
        if isinstance(given, bool) or not isinstance(given, (int, float, str)):
            given = ""
        value = cpus_of(str(given))
    except ValueError as error:
        raise fields.wrong("cpus", f"is {shown(str(given))}", str(error)) from None
    if not value:
        raise fields.wrong("cpus", "is 0", "a thousandth is the least")
    return value


def rate_of(fields: Fields) -> Rate:
    numbers = []
    for name in RATE:
        fields.required(name, int)
        numbers.append(fields.integer(name, 1, 1_000_000) or 0)
    return Rate(*numbers)
