"""One entry of a manifest's lists at a time. A reader takes the field in which it stands, so that messages name it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from immured.errors import Refused
from immured.manifest.paths import MAX_PATH, FilledPath, path_of, target_problem
from immured.manifest.protect import ABSENT, group_names
from immured.manifest.schema import Bind, Program, Protected, ProtectGroup, Tmpfs, VolumeMount
from immured.manifest.units import size_of
from immured.manifest.words import REST, word_problem
from immured.wire.strict import kind_of, shown, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from immured.wire.strict import Fields

__all__ = [
    "INVALID",
    "read_bind",
    "read_label",
    "read_list",
    "read_member",
    "read_passed",
    "read_path",
    "read_program",
    "read_protected",
    "read_syscall",
    "read_target",
    "read_tmpfs",
    "read_volume",
    "show",
    "text_bytes",
]

INVALID: Final = "manifest_invalid"

_T = TypeVar("_T")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_SYSCALL: Final = re.compile(r"[a-z_][a-z0-9_]{0,63}|@[a-z][a-z0-9_-]{0,63}", re.ASCII)
_PASSED: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\*?|\*", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_PATTERNS: Final = 64
_MAX_WORDS: Final = 256
_MODE: Final = re.compile(r"[01]?[0-7]{3}", re.ASCII)
_MIN_TMPFS: Final = 4096
_MAX_TMPFS: Final = 1 << 50


def read_list(
    fields: Fields, name: str, base: tuple[_T, ...], item: Callable[[Fields, str, object], _T], most: int
) -> tuple[_T, ...]:
    """The array `name`, each entry read by `item`; `base` where it is absent. A refusal's details have the entry's
    `index`, so that a person is shown the line."""
    values = fields.optional(name, list)
    if values is None:
        return base
    if len(values) > most:
        raise fields.wrong(name, f"has {len(values)} entries; at most {most}")
    found = []
    for index, value in enumerate(values):
        try:
            found.append(item(fields, name, value))
        except Refused as refused:
            refused.details["index"] = index  # of the outermost list
            raise
    return tuple(found)


def read_bind(fields: Fields, name: str, value: object) -> Bind:
    """A path (in the same place inside), or `{path, target, optional, noexec}`."""
    if not isinstance(value, dict):
        source = read_path(fields, name, value)
        return Bind(source, _placed(fields, name, source), beneath=_beneath(value))
    known = ("path", "target", "optional", "noexec")
    inner = take(value, f"{fields.where}.{name}", known, code=INVALID, unknown=INVALID)
    source = read_path(inner, "path", _needed(inner, "path"))
    return Bind(
        source,
        read_target(inner, "target", value["target"]) if "target" in inner else _placed(inner, "path", source),
        optional=inner.optional("optional", bool) or False,
        noexec=inner.optional("noexec", bool) or False,
        beneath=_beneath(inner.values["path"]),
    )


def _beneath(value: object) -> bytes | None:
    return value.beneath if isinstance(value, FilledPath) else None


def read_tmpfs(fields: Fields, name: str, value: object) -> Tmpfs:
    """A path, or `{path, size, mode}`."""
    if not isinstance(value, dict):
        return Tmpfs(read_target(fields, name, value))
    inner = take(value, f"{fields.where}.{name}", ("path", "size", "mode"), code=INVALID, unknown=INVALID)
    target = read_target(inner, "path", _needed(inner, "path"))
    mode = inner.optional("mode", str)
    mode = "1777" if mode is None else mode
    if not _MODE.fullmatch(mode):
        raise inner.wrong("mode", f"is {shown(mode)}; write it in octal, such as '0755'")
    return Tmpfs(target, _size(inner, "size") if "size" in inner else None, int(mode, 8))


def read_volume(fields: Fields, name: str, value: object) -> VolumeMount:
    """`{name, target}`."""
    inner = take(value, f"{fields.where}.{name}", ("name", "target"), code=INVALID, unknown=INVALID)
    return VolumeMount(
        read_label(inner, "name", _needed(inner, "name")), read_target(inner, "target", _needed(inner, "target"))
    )


def read_protected(fields: Fields, name: str, value: object) -> Protected | ProtectGroup:
    """A place inside, `@group`, or `{path, absent}`."""
    if isinstance(value, str) and value.startswith("@"):
        if value[1:] not in group_names():
            known = ", ".join(f"@{one}" for one in group_names())
            raise fields.wrong(name, f"holds {shown(value)}, which is no group", f"the groups are {known}")
        return ProtectGroup(value[1:])
    if not isinstance(value, dict):
        return Protected(read_target(fields, name, value))
    inner = take(value, f"{fields.where}.{name}", ("path", "absent"), code=INVALID, unknown=INVALID)
    absent = inner.optional("absent", str)
    absent = "held" if absent is None else absent
    if absent not in ABSENT:
        raise inner.wrong("absent", f"is {shown(absent)}; it may be 'held', 'passed' or 'refused'")
    return Protected(read_target(inner, "path", _needed(inner, "path")), absent)


def read_path(fields: Fields, name: str, value: object) -> bytes:
    """A host path, or one inside."""
    if not isinstance(value, (str, bytes)):
        raise fields.wrong(name, f"holds {kind_of(value)}, not a path")
    try:
        return path_of(value)
    except ValueError as error:
        raise fields.wrong(name, f"holds {show(text_bytes(value))}, which {error}") from None


def read_target(fields: Fields, name: str, value: object) -> bytes:
    """A place inside that may be covered."""
    return _placed(fields, name, read_path(fields, name, value))


def read_program(fields: Fields, name: str, value: object) -> Program:
    """What argv[0] may be, or `{program, arguments, sha256}`."""
    if not isinstance(value, dict):
        return Program(_program(fields, name, value))
    inner = take(value, f"{fields.where}.{name}", ("program", "arguments", "sha256"), code=INVALID, unknown=INVALID)
    sha256 = inner.optional("sha256", str)
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise inner.wrong("sha256", f"is {shown(sha256, 70)}; it is 64 hex digits, in lower case")
    program = _program(inner, "program", _needed(inner, "program"))
    return Program(program, read_list(inner, "arguments", (), _read_words, _MAX_PATTERNS), sha256)


def _program(fields: Fields, name: str, value: object) -> bytes:
    if not isinstance(value, (str, bytes)):
        raise fields.wrong(name, f"holds {kind_of(value)}, not a command")
    raw = text_bytes(value)
    if not raw or b"\0" in raw or len(raw) > MAX_PATH:
        raise fields.wrong(
            name, f"holds {show(raw)}, which is no command", f"write 1 to {MAX_PATH} bytes, none of them NUL"
        )
    return raw


def _read_words(fields: Fields, name: str, value: object) -> tuple[bytes, ...]:
    """One pattern of arguments: a list of words."""
    if not isinstance(value, list):
        raise fields.wrong(name, f"holds {kind_of(value)}, not a list of words", 'such as [["status"], ["log", "..."]]')
    if len(value) > _MAX_WORDS:
        raise fields.wrong(name, f"holds a pattern of {len(value)} words; at most {_MAX_WORDS}")
    words = tuple(_word(fields, name, word) for word in value)
    if REST in words[:-1]:
        raise fields.wrong(name, "holds `...` before the last word", r"write it last; the word itself is `\...`")
    return words


def _word(fields: Fields, name: str, value: object) -> bytes:
    if not isinstance(value, (str, bytes)):
        raise fields.wrong(name, f"holds {kind_of(value)} as a word, not a text")
    raw = text_bytes(value)
    if len(raw) > MAX_PATH:
        raise fields.wrong(name, f"holds a word of {len(raw)} bytes; at most {MAX_PATH}")
    if problem := word_problem(raw):
        raise fields.wrong(name, f"holds {show(raw)}, which {problem}")
    return raw


def read_passed(fields: Fields, name: str, value: object) -> str:
    """A variable's name or the beginning of names."""
    return _matching(fields, name, value, _PASSED, "write a variable's name, PREFIX_* or *")


def read_syscall(fields: Fields, name: str, value: object) -> str:
    """A system call or a group, by name; whether there is such a one is the filter compiler's to say."""
    return _matching(fields, name, value, _SYSCALL, "write a system call, such as 'ptrace', or a group, such as '@ipc'")


def read_label(fields: Fields, name: str, value: object) -> str:
    """The name of a manifest, class, profile, persona or tenant."""
    return _matching(fields, name, value, _LABEL, "write a-z, 0-9, `_`, `.` and `-`, at most 64 characters")


def read_member(fields: Fields, name: str, value: object) -> str:
    """A persona or a tenant, each by its own name."""
    if isinstance(value, str) and any(one in value for one in "*?[]"):
        raise fields.wrong(
            name, f"holds {shown(value)}, which is a wildcard", f"name each one; {name} left out is for all of them"
        )
    return read_label(fields, name, value)


def text_bytes(value: str | bytes) -> bytes:
    """A text as the kernel has it."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def show(raw: bytes) -> str:
    """A stranger's bytes for a message: quoted, escaped, bounded."""
    return shown(raw.decode("utf-8", "backslashreplace"))


def _matching(fields: Fields, name: str, value: object, pattern: re.Pattern[str], remedy: str) -> str:
    if not isinstance(value, str):
        raise fields.wrong(name, f"holds {kind_of(value)}; {remedy}")
    if not pattern.fullmatch(value):
        strange = next((f", in which U+{ord(one):04X} stands" for one in value if not " " <= one <= "~"), "")
        raise fields.wrong(name, f"holds {shown(value)}{strange}; {remedy}")
    return value


def _needed(fields: Fields, name: str) -> object:
    if name not in fields:
        raise fields.wrong(name, "is missing")
    return fields.values[name]


def _placed(fields: Fields, name: str, target: bytes) -> bytes:
    if problem := target_problem(target):
        by = " with `target`" if name in ("read", "write", "capture", "path", "target") else ""
        raise fields.wrong(name, f"holds {show(target)}, which {problem}", f"name another place inside{by}")
    return target


def _size(fields: Fields, name: str) -> int:
    value = fields.values[name]
    try:
        size = size_of(value) if isinstance(value, str) else value
    except ValueError as error:
        raise fields.wrong(name, f"is {shown(str(value))}; {error}") from None
    if type(size) is not int:
        raise fields.wrong(name, f"is {kind_of(value)}, not a size")
    if not _MIN_TMPFS <= size <= _MAX_TMPFS:
        raise fields.wrong(name, f"is {size}; it may be {_MIN_TMPFS} to {_MAX_TMPFS}")
    return size
