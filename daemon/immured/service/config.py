"""`DIR/config.toml`: what the operator decides. Root-owned; every name is optional, an unknown one is an error."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from immured.errors import ConfigurationError
from immured.host.ids import BROKER_IDS, SLOT_SIZE
from immured.isolation.profiles import SHIPPED, Profiles
from immured.ledger.exports.place import Place
from immured.manifest.consent_texts import NO_TEXTS, Texts
from immured.manifest.units import duration_of, size_of
from immured.service.consent_files import read_texts
from immured.service.export_places import read_places
from immured.service.files import read_bounded
from immured.service.profiles import read_profiles
from immured.service.templates.read import Template, read_templates
from immured.service.turnstile import BAD_FRAMES
from immured.service.witness_places import WitnessPlace, read_witnesses

__all__ = ["DEFAULT_TEXT", "Config", "load_config", "parse_config"]

_MAX_BYTES: Final = 1 << 20
_MAX_NAMED: Final = 256
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)

DEFAULT_TEXT: Final = """\
# What this daemon's operator decides. Everything here is optional; the values shown are the defaults.

[daemon]
# audiences = []                  # names, beside the daemon's own key id, that a command may be addressed to
# stop_deadline_s = 10            # how long live runs may go on after SIGTERM
# max_runs = 256                  # live sandboxes, over all keys
# connections_per_uid = 256
# bad_frames_per_uid = 32         # that no key of ours signed, at once; then they are read at 50 a second
# requests_per_connection = 128   # in flight

[sandboxes]
# max = 256                       # that live at a time, over all keys
# ttl = "30m"                     # how long one lives that names no time to live
# max_ttl = "24h"                 # the longest that one may name, or be extended to, from then on
# on_restart = "adopt"            # what becomes of those that name no policy when the daemon died: "adopt" or "end"

[storage]
# volumes = 64                    # that a tenant may have
# volume_bytes = "64G"            # the largest that one may be
# snapshots = 64                  # that a tenant may have
# snapshot_bytes = "64G"          # all of a tenant's together

[paths]
# Directories that sandboxes may see by the operator's word instead of the caller's own rights.
# read = []
# write = []

[paths.named]
# Directories that policy may give to tenants (`paths` of a tenant in the policy), each by its name, as above.
# such as: datasets = { path = "/srv/datasets", access = "read" }, or "write"

[launcher]
# cgroup = "/sys/fs/cgroup/..."   # the subtree to make cgroups in; default: our own delegated one, or a new one
# slot_base = 0x70000000          # first of the host ids for sandboxes, 65536 to each; default: a free block
# slot_count = 511
# pool_min = 6                    # sandboxes parked in advance
# pool_max = 16
# open_timeout_ms = 5000          # how long the opening of a caller's path may take

[broker]
# user = "immured"                # whom the daemon becomes: an account or a number; default: it, or an id of our own

[identity]
# nonces_per_key = 131072         # commands of one key that could still be replayed; beyond it that key is refused
# nonces = 1048576                # the same of all keys: nobody gets more than what stays free after him
# held_replies = "16M"            # answers kept for whoever asks again

[consent]
# texts = "/etc/immured/consent"  # ID/LANGUAGE.toml: an organisation's own wordings, which replace the package's

[ledger]
# misbehaviour_interval_s = 10    # what strangers do wrong: one entry a uid and interval, with counts
# checkpoint_s = 300              # how long an entry waits for a signed head, and for the copies that follow one
# durability = "full"             # "none", for tests: nothing waits for the disk, and the ledger says so
# segment_bytes = "256M"          # how long its file gets before it is sealed, and another begun
# segment_age = "30d"             # and how old; default: however old
# retain = "365d"                 # sealed files older than this are removed, once every copy has them; default: never

[audit]
# Where copies of the ledger are kept, each by a process of the daemon's user: docs/ledger.md, Exports. Directories, or
# { to = "s3://BUCKET/PREFIX", every = "5m", format = "lines", lock = "365d", credentials = "/etc/immured/s3" }
# exports = []                    # such as: exports = ["/mnt/audit"]
# Who cosigns the ledger's checkpoints, on other machines: docs/witness.md.
# witnesses = []                  # such as: [{ name = "w1", url = "http://witness:7380", key = "witness/w1+..." }]
# What has to be well for anything new to begin: "checkpoint", "export", "witness", "clock"
# require = []
"""


AUDIT_PARTS: Final = ("checkpoint", "export", "witness", "clock")
"""What `[audit] require` may name."""


@dataclass(frozen=True, slots=True)
class NamedPath:
    """A directory that policy may give to a tenant; what may be written may be read."""

    path: Path
    write: bool


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration, checked. Seconds, milliseconds, bytes as the names say. `profiles` lie beside the file."""

    audiences: tuple[str, ...] = ()
    stop_deadline_s: int = 10
    max_runs: int = 256
    connections_per_uid: int = 256
    bad_frames_per_uid: int = BAD_FRAMES
    requests_per_connection: int = 128
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    named: Mapping[str, NamedPath] = field(default_factory=dict)
    cgroup: Path | None = None
    slot_base: int | None = None
    slot_count: int | None = None
    pool_min: int = 6
    pool_max: int = 16
    open_timeout_ms: int = 5000
    misbehaviour_interval_s: int = 10
    checkpoint_s: int = 300
    durability: str = "full"
    segment_bytes: int = 256 << 20
    segment_age: int | None = None
    retain: int | None = None
    exports: tuple[Place, ...] = ()
    witnesses: tuple[WitnessPlace, ...] = ()
    require: tuple[str, ...] = ()
    user: str | None = None
    nonces_per_key: int = 131_072
    nonces: int = 1_048_576
    held_replies: int = 16 << 20
    sandboxes_max: int = 256
    sandboxes_ttl: int = 1_800_000
    sandboxes_max_ttl: int = 86_400_000
    sandboxes_on_restart: str = "adopt"
    storage_volumes: int = 64
    storage_volume_bytes: int = 64 << 30
    storage_snapshots: int = 64
    storage_snapshot_bytes: int = 64 << 30
    profiles: Profiles = SHIPPED
    templates: tuple[Template, ...] = ()
    consent_texts: Path | None = None
    consent: Texts = NO_TEXTS


_TABLES: Final[dict[str, tuple[str, ...]]] = {
    "daemon": (
        "audiences",
        "stop_deadline_s",
        "max_runs",
        "connections_per_uid",
        "bad_frames_per_uid",
        "requests_per_connection",
    ),
    "paths": ("read", "write", "named"),
    "launcher": ("cgroup", "slot_base", "slot_count", "pool_min", "pool_max", "open_timeout_ms"),
    "broker": ("user",),
    "identity": ("nonces_per_key", "nonces", "held_replies"),
    "sandboxes": ("sandboxes_max", "sandboxes_ttl", "sandboxes_max_ttl", "sandboxes_on_restart"),
    "storage": ("storage_volumes", "storage_volume_bytes", "storage_snapshots", "storage_snapshot_bytes"),
    "consent": ("consent_texts",),
    "ledger": ("misbehaviour_interval_s", "checkpoint_s", "durability", "segment_bytes", "segment_age", "retain"),
    "audit": ("exports", "witnesses", "require"),
}
_RANGES: Final[dict[str, tuple[int, int]]] = {
    "stop_deadline_s": (0, 3600),
    "max_runs": (1, 4095),
    "connections_per_uid": (1, 65_536),
    "bad_frames_per_uid": (1, 65_536),
    "requests_per_connection": (1, 4096),
    "slot_base": (1 << 16, (1 << 32) - (2 << 16)),
    "slot_count": (1, 4095),
    "pool_min": (0, 1024),
    "pool_max": (1, 4095),
    "open_timeout_ms": (10, 600_000),
    "misbehaviour_interval_s": (1, 3600),
    "checkpoint_s": (1, 3600),
    "nonces_per_key": (16, 1 << 20),
    "nonces": (16, 1 << 24),
    "sandboxes_max": (0, 4095),
    "storage_volumes": (0, 4096),
    "storage_snapshots": (0, 4096),
}
_PREFIXED: Final = frozenset({"sandboxes", "storage", "consent"})
"""Tables whose names alone say too little: as fields they bear the table's."""
_DURATIONS: Final = {
    "sandboxes_ttl": (1_000, 366 * 86_400_000),
    "sandboxes_max_ttl": (1_000, 366 * 86_400_000),
    "segment_age": (1_000, 36_600 * 86_400_000),
    "retain": (1_000, 36_600 * 86_400_000),
}
"""Written `30m`; milliseconds."""
_SIZES: Final = {
    "segment_bytes": (1 << 20, 1 << 40),
    "storage_volume_bytes": (1 << 20, 1 << 50),
    "storage_snapshot_bytes": (0, 1 << 50),
    "held_replies": (0, 1 << 30),
}
"""Written `64G`; bytes."""
_CHOICES: Final = {"sandboxes_on_restart": ("adopt", "end"), "durability": ("full", "none")}
_PATHS: Final = frozenset({"read", "write", "cgroup", "consent_texts"})
_LISTS: Final = frozenset({"audiences", "read", "write"})

assert {name for names in _TABLES.values() for name in names} | {"profiles", "templates", "consent"} == {  # noqa: S101
    field.name for field in fields(Config)
}


def load_config(path: Path) -> Config:
    """Read the file, `profiles/` and `templates/` beside it, and the consent texts that it names.

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
    profiles, templates = read_profiles(path.parent / "profiles"), read_templates(path.parent / "templates")
    config = parse_config(text)
    return replace(config, profiles=profiles, templates=templates, consent=read_texts(config.consent_texts))


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
        prefix = f"{table}_" if table in _PREFIXED else ""
        for name, value in content.items():
            if prefix + name not in known:
                raise _unknown(f"{table}.{name}", [f"{table}.{one.removeprefix(prefix)}" for one in known])
            values[prefix + name] = _checked(prefix + name, value)
    config = Config(**values)
    if config.pool_min > config.pool_max:
        raise _bad("launcher.pool_min is above launcher.pool_max")
    if config.sandboxes_ttl > config.sandboxes_max_ttl:
        raise _bad("sandboxes.ttl is above sandboxes.max_ttl")
    for part, there in (("export", config.exports), ("witness", config.witnesses)):
        if part in config.require and not there:
            raise _bad(f"audit.require names {part!r}, and there is none: nothing could ever begin", "configure one")
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
    if name in _DURATIONS:
        return _duration(name, value)
    if name in _SIZES:
        return _size(name, value)
    read = {"named": _named, "exports": _exports, "witnesses": _witnesses, "require": _require}.get(name)
    if read is not None:
        return read(value)
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise _bad(f"{name} is {value!r}; it may be {' or '.join(_CHOICES[name])}")
        return value
    if name in _LISTS:
        if not isinstance(value, list):
            raise _bad(f"{name} is not a list")
        return tuple(_path(name, one) if name in _PATHS else _text(name, one) for one in value)
    return _path(name, value) if name in _PATHS else _text(name, value)


def _exports(value: object) -> tuple[Place, ...]:
    try:
        return read_places(value)
    except ValueError as error:
        raise _bad(str(error)) from None


def _require(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or len({*value}) < len(value):
        raise _bad("audit.require is no list of different names")
    for one in value:
        if one not in AUDIT_PARTS:
            raise _unknown(f"audit.require: {one}", [f"audit.require: {part}" for part in AUDIT_PARTS])
    return tuple(value)


def _witnesses(value: object) -> tuple[WitnessPlace, ...]:
    try:
        return read_witnesses(value)
    except ValueError as error:
        raise _bad(str(error)) from None


def _named(value: object) -> Mapping[str, NamedPath]:
    if not isinstance(value, Mapping):
        raise _bad("paths.named is no table")
    if len(value) > _MAX_NAMED:
        raise _bad(f"paths.named holds {len(value)} names, at most {_MAX_NAMED}")
    return {name: _named_path(f"paths.named.{name}", name, one) for name, one in value.items()}


def _named_path(where: str, name: str, value: object) -> NamedPath:
    if not _NAME.fullmatch(name):
        raise _bad(f"{where}: a name is 1 to 64 of a-z, 0-9, `.`, `_` and `-`, a letter or digit first")
    if not isinstance(value, Mapping):
        raise _bad(f'{where} is not {{ path = "/...", access = "read" }}')
    if unknown := value.keys() - {"path", "access"}:
        raise _unknown(f"{where}.{min(unknown)}", (f"{where}.path", f"{where}.access"))
    access = value.get("access", "read")
    if access not in ("read", "write"):
        raise _bad(f"{where}.access is {access!r}; it may be read or write")
    return NamedPath(_path(f"{where}.path", value.get("path")), access == "write")


def _size(name: str, value: object) -> int:
    low, high = _SIZES[name]
    try:
        size = size_of(_text(name, value))
    except ValueError as error:
        raise _bad(f"{name} is {value!r}: {error}") from None
    if not low <= size <= high:
        raise _bad(f"{name} is {value!r}; it may be {low} to {high} bytes")
    return size


def _duration(name: str, value: object) -> int:
    low, high = _DURATIONS[name]
    try:
        milliseconds = duration_of(_text(name, value)) // 1_000_000
    except ValueError as error:
        raise _bad(f"{name} is {value!r}: {error}") from None
    if not low <= milliseconds <= high:
        raise _bad(f"{name} is {value!r}; it may be {low // 1000}s to {high // 1000}s")
    return milliseconds


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
