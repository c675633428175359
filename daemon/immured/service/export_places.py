"""`[audit] exports` of config.toml: directories, or tables that say more."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from immured.ledger.exports.place import LINES, TILES, Place, bucket_of, check_endpoint
from immured.manifest.units import duration_of

__all__ = ["MAX_EXPORTS", "read_places"]

MAX_EXPORTS: Final = 8  # a process each
_KEYS: Final = ("to", "every", "format", "lock", "lock_mode", "endpoint", "region", "credentials")
_OF_S3: Final = ("lock", "lock_mode", "endpoint", "region", "credentials")
_DAY_MS: Final = 86_400_000


def read_places(value: object) -> tuple[Place, ...]:
    """The destinations, checked. Raises ValueError that names the place in the file and what may stand there."""
    if not isinstance(value, list):
        raise ValueError("audit.exports is not a list")  # noqa: TRY004
    places = tuple(_place(f"audit.exports[{number}]", one) for number, one in enumerate(value))
    if len(places) > MAX_EXPORTS or len({one.name for one in places}) != len(places):
        raise ValueError(f"audit.exports names a destination twice, or more than {MAX_EXPORTS}")
    return places


def _place(where: str, value: object) -> Place:
    if isinstance(value, str):
        return Place(_to(where, value))
    if not isinstance(value, Mapping):
        raise ValueError(f'{where} is neither a directory nor {{ to = "...", ... }}')  # noqa: TRY004
    for name in value:
        if name not in _KEYS:
            near = difflib.get_close_matches(str(name), _KEYS, n=1)
            raise ValueError(f"{where} holds the unknown {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if "to" not in value:
        raise ValueError(f"{where} has no `to`: a directory, or s3://BUCKET[/PREFIX]")
    to = _to(f"{where}.to", value["to"])
    if not to.startswith("s3://") and (stray := [name for name in _OF_S3 if name in value]):
        raise ValueError(f"{where}.{stray[0]} is for s3:// only; {to} is a directory")
    if "lock_mode" in value and "lock" not in value:
        raise ValueError(f"{where}.lock_mode says how, and `lock` how long: it is missing")
    endpoint = _text(f"{where}.endpoint", value.get("endpoint", ""))
    if endpoint:
        try:
            check_endpoint(endpoint)
        except ValueError:
            raise ValueError(f"{where}.endpoint is not http[s]://HOST[:PORT]") from None  # it may hold a secret
    credentials = value.get("credentials")
    return Place(
        to,
        format=_one_of(f"{where}.format", value.get("format", LINES), (LINES, TILES)),
        every_ms=_duration(f"{where}.every", value.get("every", "0s"), 366 * _DAY_MS),
        lock_ms=_duration(f"{where}.lock", value.get("lock", "0s"), 100 * 366 * _DAY_MS),
        lock_mode=_one_of(f"{where}.lock_mode", value.get("lock_mode", "compliance"), ("compliance", "governance")),
        endpoint=endpoint,
        region=_text(f"{where}.region", value.get("region", "")),
        credentials=Path(_path(f"{where}.credentials", credentials)) if credentials is not None else None,
    )


def _to(where: str, value: object) -> str:
    text = _text(where, value)
    if text.startswith("s3://"):
        try:
            bucket_of(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return text.rstrip("/")
    return _path(where, text)


def _path(where: str, value: object) -> str:
    path = Path(_text(where, value))
    if not path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise ValueError(f"{where}: {str(path)!r} is not an absolute path without `..`, nor s3://BUCKET[/PREFIX]")
    return str(path)


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise ValueError(f"{where} is no string of at most 1024 characters")
    return value


def _one_of(where: str, value: object, known: tuple[str, ...]) -> str:
    text = _text(where, value)
    if text not in known:
        raise ValueError(f"{where} is {text[:64]!r}; it may be {' or '.join(known)}")
    return text


def _duration(where: str, value: object, most: int) -> int:
    try:
        milliseconds = duration_of(_text(where, value)) // 1_000_000
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not 0 <= milliseconds <= most:
        raise ValueError(f"{where} is {value!r}; it may be up to {most // _DAY_MS}d")
    return milliseconds
