"""Paths as a manifest or a run may write them: absolute, in their shortest form, without `..` or NUL. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["ALWAYS_MOUNTED", "MAX_PATH", "FilledPath", "beneath", "path_of", "target_problem"]

MAX_PATH: Final = 4095
ALWAYS_MOUNTED: Final = (b"/tmp", b"/dev/shm")
"""Private directories in memory that every sandbox has, whether its manifest names them or not."""

_MAX_NAME: Final = 255
_KERNELS: Final = (b"/proc", b"/sys", b"/dev")


class FilledPath(str):
    """A path with a parameter in it. `beneath`: the directory below which nothing but names leads to it."""

    __slots__ = ("beneath",)
    beneath: bytes

    @classmethod
    def of(cls, text: str, directory: bytes) -> FilledPath:
        made = cls(text)
        made.beneath = directory
        return made


def path_of(value: str | bytes) -> bytes:
    """The path's bytes. One trailing slash is forgiven. Raises ValueError with what is wrong with it."""
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if not raw.startswith(b"/"):
        raise ValueError("is not absolute")
    if b"\0" in raw:
        raise ValueError("holds a NUL")
    if len(raw) > MAX_PATH:
        raise ValueError(f"has {len(raw)} bytes; a path has at most {MAX_PATH}")
    if raw == b"/":
        return raw
    raw = raw.removesuffix(b"/")
    for part in raw[1:].split(b"/"):
        if part in (b"", b".", b".."):
            raise ValueError("is not in its shortest form: no `//`, `.` or `..`")
        if len(part) > _MAX_NAME:
            raise ValueError(f"holds a name of {len(part)} bytes; a name has at most {_MAX_NAME}")
    return raw


def beneath(path: bytes, directory: bytes) -> bool:
    """Whether `path` is `directory` or anything below it."""
    return directory == b"/" or path == directory or path.startswith(directory + b"/")


def target_problem(target: bytes) -> str:
    """Why nothing can be placed there inside a sandbox, in words; empty where it can."""
    if target == b"/":
        return "is the root itself; that is what `root` is for"
    for kernels in _KERNELS:
        if beneath(target, kernels):
            return f"lies in {kernels.decode()}, which is the sandbox's own"
    return ""
