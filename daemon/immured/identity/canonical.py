"""One form of a command's bytes, whoever packs it: what a proposal and a grant mean by "exactly that command".

The form is msgpack as docs/protocol.md has it, with nothing left to choose: map keys in the order of their UTF-8 bytes,
integers and lengths in their shortest form, `str` as str and `bin` as bin. `tests/vectors/proposals.json` has vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from immured.wire.strict_msgpack import pack

__all__ = ["canonical", "command_bytes", "command_digest"]


def canonical(value: object) -> bytes:
    """The one packing of a value. Raises Refused `bad_msgpack` for what msgpack here does not carry."""
    return pack(_sorted(value))


def command_bytes(cmd: str, tenant: str, project: str, args: Mapping[str, object]) -> bytes:
    """What is digested of a command: a map of `args`, `cmd`, `project`, `tenant`."""
    return canonical({"cmd": cmd, "tenant": tenant, "project": project, "args": args})


def command_digest(cmd: str, tenant: str, project: str, args: Mapping[str, object]) -> bytes:
    """SHA-256 of the canonical bytes: 32 bytes."""
    return hashlib.sha256(command_bytes(cmd, tenant, project, args)).digest()


def _sorted(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value, key=_bytes)}
    if isinstance(value, list | tuple):
        return [_sorted(one) for one in value]
    return value


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
