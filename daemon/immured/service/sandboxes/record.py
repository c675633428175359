"""A sandbox's record: what a later broker must know of it, in memory that its keeper holds for as long as it lives.

The file has two places, written in turn: a header at 0 says which of them is whole. So whoever is killed while it
writes leaves the older one.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgpack

from immured.errors import ImmuredError, Refused
from immured.identity.actor import DEFAULT
from immured.manifest.schema import Manifest
from immured.service.sandboxes.exec import Exec, ExecState
from immured.service.sandboxes.plain import from_plain, to_plain
from immured.service.sandboxes.sandbox import Restart, Sandbox
from immured.service.sandboxes.state import State

__all__ = ["Record", "RecordError", "read_record", "restore"]

_HEADER: Final = struct.Struct("=8sQQI")  # magic, where, length, CRC-32
_MAGIC: Final = b"IMDREC01"
_PLACE: Final = 4 << 20
"""Bytes of one place; only what is written is memory."""


class RecordError(ImmuredError):
    """A record that no broker of this version wrote whole."""

    def __init__(self, problem: str) -> None:
        super().__init__("internal", f"a sandbox's record {problem}", "the sandbox is ended; create another")


class Record:
    """The record's file. `fd` is owned."""

    __slots__ = ("_second", "fd")

    def __init__(self, fd: int, *, second: bool = False) -> None:
        self.fd = fd
        self._second = second  # which place is whole

    @classmethod
    def make(cls) -> Record:
        """An empty one. Raises Refused `busy`."""
        try:
            return cls(os.memfd_create("immured-record", os.MFD_CLOEXEC))
        except OSError as error:
            raise Refused("busy", f"no memory for a sandbox: {error.strerror}", "try again in a moment") from error

    def write(self, sandbox: Sandbox) -> None:
        """How it is now. Raises OSError (the host is out of memory)."""
        data = msgpack.packb(_to_plain(sandbox))
        if len(data) > _PLACE - _HEADER.size:
            raise OSError(errno.EFBIG, "a record that is too large")
        where = _HEADER.size if self._second else _PLACE
        _write(self.fd, data, where)
        _write(self.fd, _HEADER.pack(_MAGIC, where, len(data), zlib.crc32(data)), 0)
        self._second = not self._second

    def close(self) -> None:
        """Let go of it. Twice is once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def read_record(fd: int) -> tuple[Record, Mapping[str, Any]]:
    """A kept one, which takes `fd` over, and what it holds, for `restore`. Raises RecordError; `fd` is closed then."""
    try:
        magic, where, length, crc = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
        if magic != _MAGIC or length > _PLACE:
            raise RecordError("is not of this version")
        data = os.pread(fd, length, where)
        if len(data) != length or zlib.crc32(data) != crc:
            raise RecordError("is torn")
        values = msgpack.unpackb(data, raw=False, strict_map_key=False)
        if not isinstance(values, dict):
            raise RecordError("holds no map")
    except RecordError:
        os.close(fd)
        raise
    except (OSError, struct.error, ValueError, msgpack.UnpackException) as error:
        os.close(fd)
        raise RecordError(f"cannot be read: {error}") from error
    return Record(fd, second=where == _PLACE), values


def restore(values: Mapping[str, Any], number: int) -> Sandbox:
    """The sandbox of a record, with its kept execs as they were told last. Raises RecordError."""
    try:
        sandbox = Sandbox(
            number=number,
            manifest=from_plain(
                Manifest, _as_now(msgpack.unpackb(values["manifest"], raw=False, strict_map_key=False))
            ),
            restart=Restart(values["restart"]),
            adopted=True,
            **{name: values[name] for name in _FIELDS},
            # A broker that knew of neither had the default project alone, and no keys that another certified.
            project=values.get("project", DEFAULT),
            manifest_entry=values.get("manifest_entry"),
            owners=tuple(values.get("owners", (values["key_id"],))),
        )
        for row in values["execs"]:
            one = Exec(kept=True, adopted=True, state=ExecState.RUNNING, **{name: row[name] for name in _EXEC_FIELDS})
            sandbox.execs[one.id] = one
    except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
        raise RecordError(f"lacks what this version needs: {error}") from error
    return sandbox


def _as_now(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest of a broker that knew programs by their names alone."""
    command = manifest["command"]
    allow = [{"": "Program", "name": one} if isinstance(one, bytes) else one for one in command["allow"]]
    return {**manifest, "command": {**command, "allow": allow}}


_FIELDS: Final = (
    *("id", "tenant", "key_id", "uid", "plan", "enforcement", "created_ms", "expires_ms"),
    *("name", "persona", "labels", "env", "cwd", "snapshot"),
)
_EXEC_FIELDS: Final = (
    *("number", "id", "key_id", "uid", "command", "started_ms", "terminal", "intent", "enforcement", "limits"),
)


def _to_plain(sandbox: Sandbox) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(sandbox, name) for name in _FIELDS}
    values["enforcement"] = dict(sandbox.enforcement)
    values["labels"], values["env"] = dict(sandbox.labels), dict(sandbox.env)
    values["project"], values["owners"] = sandbox.project, sandbox.owners
    values["manifest_entry"] = sandbox.manifest_entry
    values["manifest"] = _packed(sandbox.manifest)
    values["restart"] = sandbox.restart.value
    values["paused"] = sandbox.state is State.PAUSED
    values["execs"] = [
        {name: getattr(one, name) for name in _EXEC_FIELDS} for one in sandbox.execs.values() if one.kept and one.live
    ]
    return values


@lru_cache(maxsize=64)
def _packed(manifest: Manifest) -> bytes:
    """Most sandboxes are of few manifests."""
    packed: bytes = msgpack.packb(to_plain(manifest))
    return packed


def _write(fd: int, data: bytes, where: int) -> None:
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            done += os.pwrite(fd, rest[done:], where + done)
