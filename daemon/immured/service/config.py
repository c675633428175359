"""`DIR/config.toml`: what the operator decides. Root-owned; every name is optional, an unknown one is an error."""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from immured.errors import ConfigurationError
from immured.host.ids import BROKER_IDS, SLOT_SIZE
from immured.isolation.profiles import SHIPPED, Profiles
from immured.service.files import read_bounded
from immured.service.profiles import read_profiles

__all__ = ["DEFAULT_TEXT", "Config", "load_config", "parse_config"]

_MAX_BYTES: Final = 1 << 20

DEFAULT_TEXT: Final = """\
# What this daemon's operator decides. Everything here is optional; the values shown are the defaults.

[daemon]
# audiences = []                  # names, beside the daemon's own key id, that a command may be addressed to
# stop_deadline_s = 10            # how long live runs may go on after SIGTERM
# max_runs = 256                  # live sandboxes, over all keys
# connections_per_uid = 256
# requests_per_connection = 128   # in flight

[paths]
# Directories that sandboxes may see by the operator's word instead of the caller's own rights.
# read = []
# write = []

[launcher]
# cgroup = "/sys/fs/cgroup/..."   # the subtree to make cgroups in; default: our own delegated one, or a new one
# slot_base = 0x70000000          # first of the host ids for sandboxes, 65536 to each; default: a free block
# slot_count = 511
# pool_min = 6                    # sandboxes parked in advance
# pool_max = 16
# open_timeout_ms = 5000          # how long the opening of a caller's path may take

[broker]
# user = "immured"                # whom the daemon becomes: an account or a number; default: it, or an id of our own

[ledger]
# misbehaviour_interval_s = 10    # what strangers do wrong: one entry a uid and interval, with counts
"""


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration, checked. Seconds, milliseconds, bytes as the names say. `profiles` lie beside the file."""

    audiences: tuple[str, ...] = ()
    stop_deadline_s: int = 10
    max_runs: int = 256
    connections_per_uid: int = 256
    requests_per_connection: int = 128
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    cgroup: Path | None = None
    slot_base: int | None = None
    slot_count: int | None = None
    pool_min: int = 6
    pool_max: int = 16
    open_timeout_ms: int = 5000
    misbehaviour_interval_s: int = 10
    user: str | None = None
    profiles: Profiles = SHIPPED


_TABLES: Final[dict[str, tuple[str, ...]]] = {
    "daemon": ("audiences", "stop_deadline_s", "max_runs", "connections_per_uid", "requests_per_connection"),
    "paths": ("read", "write"),
    "launcher": ("cgroup", "slot_base", "slot_count", "pool_min", "pool_max", "open_timeout_ms"),
    "broker": ("user",),
    "ledger": ("misbehaviour_interval_s",),
}
_RANGES: Final[dict[str, tuple[int, int]]] = {
    "stop_deadline_s": (0, 3600),
    "max_runs": (1, 4095),
    "connections_per_uid": (1, 65_536),
    "requests_per_connection": (1, 4096),
    "slot_base": (1 << 16, (1 << 32) - (2 << 16)),
    "slot_count": (1, 4095),
    "pool_min": (0, 1024),
    "pool_max": (1, 4095),
    "open_timeout_ms": (10, 600_000),
    "misbehaviour_interval_s": (1, 3600),
}
_PATHS: Final = frozenset({"read", "write", "cgroup"})
_LISTS: Final = frozenset({"audiences", "read", "write"})

assert {name for names in _TABLES.values() for name in names} | {"profiles"} == {  # noqa: S101
    field.name for field in fields(Config)
}


def load_config(path: Path) -> Config:
    """Read the file, and `profiles/` beside it.

    Raises ConfigurationError: it is missing, not the operator's alone to write, or not right.
    """
    try:
        facts = path.stat()
        text = read_bounded(path, _MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        raise _bad(f"{path}: {error}") from error
    if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            "bad_configuration",
            f"{path} can be written by others than its operator",
            f"chown root {path}; chmod go-w {path}",
        )
    return replace(parse_config(text), profiles=read_profiles(path.parent / "profiles"))


def parse_config(text: str) -> Config:
    """The TOML as a Config. Raises ConfigurationError `bad_configuration`, naming the line or the field."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _bad(f"config.toml: {reason}") from error
    values: dict[str, Any] = {}
    for table, content in document.items():
        known = _TABLES.get(table)
        if known is None or not isinstance(content, Mapping):
            raise _unknown(table, _TABLES)
        for name, value in content.items():
            if name not in known:
                raise _unknown(f"{table}.{name}", [f"{table}.{one}" for one in known])
            values[name] = _checked(name, value)
    config = Config(**values)
    if config.pool_min > config.pool_max:
        raise _bad("launcher.pool_min is above launcher.pool_max")
    if _reaches_brokers(config.slot_base or 0, config.slot_count or 0):
        raise _bad(f"launcher.slot_base: {BROKER_IDS[0]} to {BROKER_IDS[-1]} are the brokers' own ids")
    if (config.slot_base is None) != (config.slot_count is None):
        raise _bad("launcher.slot_base and launcher.slot_count stand together or not at all")
    return config


def _reaches_brokers(base: int, count: int) -> bool:
    return base <= BROKER_IDS[-1] and base + count * SLOT_SIZE > BROKER_IDS[0]


def _checked(name: str, value: object) -> object:
    if name in _RANGES:
        low, high = _RANGES[name]
        if type(value) is not int or not low <= value <= high:
            raise _bad(f"{name} is {value!r}; it may be {low} to {high}")
        return value
    if name in _LISTS:
        if not isinstance(value, list):
            raise _bad(f"{name} is not a list")
        return tuple(_path(name, one) if name in _PATHS else _text(name, one) for one in value)
    return _path(name, value) if name in _PATHS else _text(name, value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise _bad(f"{name} holds what is no string of 1 to 256 characters")
    return value


def _path(name: str, value: object) -> Path:
    path = Path(_text(name, value))
    if not path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise _bad(f"{name}: {str(path)!r} is not an absolute path without `..`")
    return path


def _unknown(name: str, known: Any) -> ConfigurationError:
    near = difflib.get_close_matches(name, list(known), n=1)
    return _bad(f"config.toml holds the unknown {name!r}", f"did you mean {near[0]!r}?" if near else "remove it")


def _bad(message: str, remedy: str = "mend it; `immure init` writes one that explains itself") -> ConfigurationError:
    return ConfigurationError("bad_configuration", message, remedy)
