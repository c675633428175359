"""What a learning run asked for: the log that its sandbox's notifier wrote, in the contract's words. Pure.

Paths and addresses were read from a process that could change them meanwhile; the calls' numbers are the kernel's.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

from immured.isolation import abi, syscalls
from immured.isolation.abi import Learned
from immured.isolation.seccomp import host_architecture
from immured.isolation.violations import address_text

__all__ = ["learned_map"]

_ROW: Final = struct.Struct("=III")

if abi.size_of("imd_learned") != _ROW.size:  # pragma: no cover
    raise ImportError("struct imd_learned is not of this source: run `make build`")


def learned_map(log: bytes) -> dict[str, object]:
    """`learned` of a result: docs/protocol.md. A log that ends within a row, or has one of another kind, is read up to
    there, and `cut`.
    """
    paths: dict[str, list[str | bytes]] = {}
    calls: set[str] = set()
    addresses: list[str] = []
    at, cut = 0, False
    while at < len(log) and not cut:
        kind, number, length = _ROW.unpack_from(log, at) if len(log) - at >= _ROW.size else (0, 0, 0)
        at += _ROW.size
        text = log[at : at + length]
        at += length
        if kind == Learned.CALL:
            calls.add(_names().get(number, f"#{number}"))
        elif kind == Learned.ADDRESS and at <= len(log):
            addresses.append(address_text(text))
        elif Learned.LOOK <= kind <= Learned.NAME and at <= len(log):
            paths.setdefault(Learned(kind).name.lower(), []).append(_text(text))
        else:
            cut = True
    return {"paths": paths, "calls": sorted(calls), "addresses": sorted(set(addresses)), "cut": cut}


@cache
def _names() -> dict[int, str]:
    return {number: name for name, number in syscalls.numbers(host_architecture()).items()}


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
