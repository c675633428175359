"""Sizes, durations and CPUs as people write them, and back. Pure; a ValueError says what may be written instead."""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "MAX_PROCESSORS",
    "cores_of",
    "cpus_of",
    "duration_of",
    "show_cores",
    "show_cpus",
    "show_duration",
    "show_size",
    "size_of",
]

MAX_PROCESSORS: Final = 1024
"""As many as the C library's cpu_set_t holds, and so the launcher's."""


_SIZE: Final = re.compile(r"([0-9]{1,19})([KMGT]?)(?:iB)?", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h|d)", re.ASCII)
_CPUS: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,3})?", re.ASCII)
_CORES: Final = re.compile(r"[0-9]{1,4}(?:-[0-9]{1,4})?", re.ASCII)
_POWER: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}


def size_of(text: str) -> int:
    """Bytes: `1048576`, `512M`, `512MiB`; K, M, G and T are powers of 1024."""
    found = _SIZE.fullmatch(text)
    if not found or (text.endswith("iB") and not found[2]):
        raise ValueError("write bytes, or a whole number with K, M, G or T (powers of 1024)")
    return int(found[1]) << _POWER[found[2]]


def duration_of(text: str) -> int:
    """Nanoseconds: `500ms`, `60s`, `1.5h`."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError("write a number with its unit: ms, s, m, h or d")
    return _times(found[1], _NANOSECONDS[found[2]])


def cpus_of(text: str) -> int:
    """Thousandths of a CPU: `2`, `0.5`, `1.25`."""
    if not _CPUS.fullmatch(text):
        raise ValueError("write a number of CPUs with at most three decimals, such as 1.5")
    return _times(text, 1000)


def _times(text: str, factor: int) -> int:
    """A decimal number of at most nine decimals so many times, cut to a whole one."""
    whole, _, part = text.partition(".")
    return int(whole + part.ljust(9, "0")) * factor // 1_000_000_000


def cores_of(text: str) -> int:
    """Processors by their numbers, as a mask (bit N: processor N): `3`, `0-1`, `0-3,6`, in ascending order."""
    mask, least = 0, 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not _CORES.fullmatch(part) or not least <= int(first) <= int(last or first) < MAX_PROCESSORS:
            raise ValueError("write processors' numbers in ascending order as text, such as '2', '0-1' or '0-3,6'")
        mask |= (2 << int(last or first)) - (1 << int(first))
        least = int(last or first) + 1
    return mask


def show_cores(value: int) -> str:
    """The shortest form: `0-3,6`. As the kernel writes such lists."""
    starts, ends = _numbers(value & ~(value << 1)), _numbers(value & ~(value >> 1))
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in zip(starts, ends, strict=True))


def _numbers(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def show_size(value: int) -> str:
    """The shortest exact form: `512M`."""
    for unit, power in reversed(_POWER.items()):
        if value and not value % (1 << power):
            return f"{value >> power}{unit}"
    return str(value)


def show_duration(value: int) -> str:
    """The largest unit that divides it, up to hours: `90s`, `500ms`."""
    for unit in ("h", "m", "s", "ms", "us"):
        if value and not value % _NANOSECONDS[unit]:
            return f"{value // _NANOSECONDS[unit]}{unit}"
    return f"{value}ns"


def show_cpus(value: int) -> str:
    """`1.5`"""
    return f"{value / 1000:.3f}".rstrip("0").rstrip(".")
