"""What the notifier saw, in the contract's words: which wall refused it, by which rule, and what would allow it. Pure.

Nothing here decides: the kernel has refused already. A row's path and exe were read from a process that could change
them meanwhile, so every row says `attribution = claimed` (docs/isolation.md, Explaining).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from functools import cache
from posixpath import normpath
from typing import TYPE_CHECKING, Final

from immured.isolation import syscalls
from immured.isolation.abi import ViolationKind
from immured.isolation.messages import Exited
from immured.isolation.profiles import SHIPPED, Profiles
from immured.isolation.seccomp import host_architecture
from immured.manifest.paths import beneath
from immured.manifest.protect import protected_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immured.isolation.messages import Failed, Violation
    from immured.manifest.schema import Manifest

__all__ = ["address_text", "violation_rows"]

_CLAIMED: Final = "claimed"
_SET_ID: Final = 0o6000
# Which argument is the mode of a call that makes or changes a file.
_MODE: Final = {
    "chmod": 1, "fchmod": 1, "creat": 1, "mkdir": 1, "mknod": 1, "fchmodat": 2, "fchmodat2": 2, "mkdirat": 2,
    "mknodat": 2, "open": 2, "mq_open": 2,
}  # fmt: skip
_MEANING: Final = {
    "openat": "no setuid or setgid bit",
    "clone": "no new namespaces",
    "socket": "no raw, packet, kernel-crypto or virtual machine sockets",
    "ioctl": "no typing into a terminal, no line disciplines",
    "mknod": "no device nodes",
    "mknodat": "no device nodes",
    "personality": "no other execution domain",
    "shmget": "no huge pages",
}


def violation_rows(
    report: Exited | Failed, manifest: Manifest, profiles: Profiles = SHIPPED
) -> list[dict[str, object]]:
    """`violations` of a result: a row for each record, then `{kind, count}` for each kind that had more of them."""
    if not isinstance(report, Exited):
        return []
    rows = [_row(one, manifest, profiles) for one in report.violations]
    for kind, count in zip(ViolationKind, report.violation_counts, strict=False):
        if count > sum(one.kind is kind for one in report.violations):
            rows.append({"kind": kind.name.lower(), "count": min(count, 2**53 - 1)})
    return rows


def _row(one: Violation, manifest: Manifest, profiles: Profiles) -> dict[str, object]:
    call = _names().get(one.number, f"#{one.number}")
    row: dict[str, object] = {"kind": one.kind.name.lower(), "syscall": call}
    if one.kind is ViolationKind.CONNECT:
        row["address"] = address_text(one.target)
        rule, remedy = _network_rule(manifest)
    else:
        if one.target:
            row["path"] = _text(one.target)
        rule, remedy = (
            _path_rule(one.target, manifest)
            if one.kind is ViolationKind.WRITE
            else _call_rule(call, one.arguments, manifest, profiles)
        )
    row["pid"] = one.pid
    if one.exe:
        row["exe"] = _text(one.exe)
    return row | {"rule": rule, "remedy": remedy, "attribution": _CLAIMED}


@cache
def _names() -> dict[int, str]:
    return {number: name for name, number in syscalls.numbers(host_architecture()).items()}


def _path_rule(path: bytes, manifest: Manifest) -> tuple[str, str]:
    """The manifest's innermost word on the place, or the view's own."""
    place = normpath(path) if path.startswith(b"/") else b"/"
    filesystem = manifest.filesystem
    found: list[tuple[int, str, str, bytes]] = []
    for name, places, remedy in (
        ("read", [bind.target for bind in filesystem.read], "bind it to be written: filesystem.write, or --rw"),
        (
            "protect",
            [one.path for one in protected_places(filesystem)],
            "it is protected by name; write elsewhere, or take it out of filesystem.protect",
        ),
        ("hide", filesystem.hide, "it is hidden by name; write elsewhere, or take it out of filesystem.hide"),
    ):
        found += [(len(one), name, remedy, one) for one in places if beneath(place, one)]
    if found:
        _, name, remedy, one = max(found, key=lambda entry: entry[0])
        return f"filesystem.{name}: {os.fsdecode(one).encode(errors='backslashreplace').decode()}", remedy
    return (
        "filesystem: read-only",
        "write below /tmp, or name a place in filesystem.write or filesystem.tmpfs (--rw, --tmpfs)",
    )


def _call_rule(call: str, arguments: tuple[int, ...], manifest: Manifest, profiles: Profiles) -> tuple[str, str]:
    walls = syscalls.walls()
    if call in walls.never:
        return "walls: never", "no profile and no manifest can allow it; programs do without"
    if call in _MODE and arguments[_MODE[call]] & _SET_ID:
        return "walls: no setuid or setgid bit", "leave the bits 06000 out of the mode"
    wanted = manifest.syscalls
    if call in _expanded(wanted.deny):
        return "syscalls.deny", f"take {call} out of syscalls.deny"
    if call in walls.guards:
        return (
            f"walls: {_MEANING.get(call, 'these arguments')}",
            "leave out what the rule names; no manifest can allow it",
        )
    profile = profiles[wanted.profile]
    if call in profile.calls and call not in profile.rules:
        return "limits: not bounded on this host", "see `immure doctor`; a host with the memory controller allows it"
    return f"syscalls.profile: {wanted.profile}", f"add {call} to syscalls.allow, if the program needs it"


def _expanded(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if name.startswith("@"):
            yield from syscalls.groups()[name[1:]]
        else:
            yield name


def _network_rule(manifest: Manifest) -> tuple[str, str]:
    if manifest.network.mode == "none":
        return "network.mode: none", 'there is no network; mode = "loopback" reaches servers in the same sandbox'
    return f"network.mode: {manifest.network.mode}", "only servers in the same sandbox are within reach"


def address_text(raw: bytes) -> str:
    """A `struct sockaddr` as `address:port`, IPv6 in brackets; what is not whole, as hexadecimal digits."""
    family = struct.unpack_from("=H", raw)[0] if len(raw) >= 2 else None
    if family == socket.AF_INET and len(raw) >= 8:
        return f"{ipaddress.IPv4Address(raw[4:8])}:{int.from_bytes(raw[2:4], 'big')}"
    if family == socket.AF_INET6 and len(raw) >= 24:
        return f"[{ipaddress.IPv6Address(raw[8:24])}]:{int.from_bytes(raw[2:4], 'big')}"
    return raw.hex()


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
