"""The OCI and Docker form of a system-call profile, read strictly: JSON bytes to typed entries.

The runtime specification's `linux.seccomp`, with what Docker (archMap, names, includes, excludes) and Podman (errno,
defaultErrno) put beside it. Whether an entry applies is decided here, for a process without capabilities.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from immured._abi import lib
from immured.isolation import syscalls
from immured.isolation.profiles import nearest
from immured.isolation.syscalls import Architecture

__all__ = ["MAX_BYTES", "Document", "Entry", "Target", "read_document"]

MAX_BYTES: Final = 1 << 20
_MAX_WORD: Final = (1 << 64) - 1
_MAX_ERRNO: Final = 4095

_ACTIONS: Final = {
    "SCMP_ACT_ALLOW": lib.SECCOMP_RET_ALLOW,
    "SCMP_ACT_LOG": lib.SECCOMP_RET_LOG,
    "SCMP_ACT_ERRNO": lib.SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRAP": lib.SECCOMP_RET_TRAP,
    "SCMP_ACT_KILL": lib.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": lib.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": lib.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRACE": lib.SECCOMP_RET_TRACE,
    "SCMP_ACT_NOTIFY": lib.SECCOMP_RET_USER_NOTIF,
}
_OPERATORS: Final = {
    "SCMP_CMP_EQ": "==",
    "SCMP_CMP_NE": "!=",
    "SCMP_CMP_LT": "<",
    "SCMP_CMP_LE": "<=",
    "SCMP_CMP_GT": ">",
    "SCMP_CMP_GE": ">=",
    "SCMP_CMP_MASKED_EQ": "&",
}
_GO_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_SCMP_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_ARCHES: Final = frozenset(
    "386 amd64 arm arm64 loong64 loongarch64 m68k mips mips64 mips64le mips64n32 mips64p32 mipsel mipsel64 mipsel64n32 "
    "mipsle parisc parisc64 ppc ppc64 ppc64le riscv64 s390 s390x sh sheb x32 x86".split()
)
_SCMP_ARCHES: Final = frozenset(
    f"SCMP_ARCH_{one}"
    for one in "NATIVE X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 "
    "PARISC PARISC64 PPC PPC64 PPC64LE RISCV64 S390 S390X SH SHEB".split()
)
_CAPABILITIES: Final = frozenset(
    f"CAP_{one}"
    for one in "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE "
    "DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD "
    "NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT "
    "SYS_CHROOT "
    "SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM".split()
)
_FLAGS: Final = frozenset(
    f"SECCOMP_FILTER_FLAG_{one}" for one in "TSYNC LOG SPEC_ALLOW NEW_LISTENER TSYNC_ESRCH WAIT_KILLABLE_RECV".split()
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a profile is read for. `kernel`: its version's first two numbers."""

    architecture: Architecture
    kernel: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One element of `syscalls`. Where all of the conditions of one of `alternatives` hold, `action`.

    `unmet`: why it does not apply, or nothing. `either`: two conditions were on one argument, so that one is enough.
    """

    where: str
    names: tuple[str, ...]
    action: int
    alternatives: tuple[tuple[str, ...], ...]
    unmet: str
    either: bool


@dataclass(frozen=True, slots=True)
class Document:
    """The whole. `remarks` are lines about what it says that no filter of ours can."""

    default: int
    entries: tuple[Entry, ...]
    remarks: tuple[str, ...]


def read_document(raw: bytes, target: Target) -> Document:
    """Read a profile. Raises ValueError: what is wrong, and where."""
    if len(raw) > MAX_BYTES:
        raise ValueError(f"it has {len(raw)} bytes, at most {MAX_BYTES}")
    try:
        document = json.loads(raw.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    top = _map(
        "the profile",
        document,
        "defaultAction defaultErrnoRet defaultErrno architectures archMap flags listenerPath listenerMetadata syscalls",
    )
    if "defaultAction" not in top:
        raise ValueError("there is no defaultAction")
    remarks = (*_architectures(top, target), *_flags(top))
    default = _action("defaultAction", top, "defaultAction", "defaultErrnoRet", "defaultErrno")
    listed = _list("syscalls", top.get("syscalls"))
    return Document(default, tuple(_entry(index, one, target) for index, one in enumerate(listed)), remarks)


def _entry(index: int, value: object, target: Target) -> Entry:
    where = f"syscalls[{index}]"
    entry = _map(where, value, "names name action errnoRet errno args comment includes excludes")
    if "name" in entry and "names" in entry:
        raise ValueError(f"{where} has name and names")
    names = [entry["name"]] if "name" in entry else _list(f"{where}.names", entry.get("names"))
    if not names:
        raise ValueError(f"{where} names no system call")
    for name in names:
        _one_of(f"{where}: system call", name, syscalls.names() | syscalls.elsewhere())
    if "action" not in entry:
        raise ValueError(f"{where} has no action")
    if not isinstance(entry.get("comment", ""), str):
        raise ValueError(f"{where}.comment is no text")  # noqa: TRY004 - every fault of the file is of one kind
    args = [_condition(f"{where}.args[{n}]", one) for n, one in enumerate(_list(f"{where}.args", entry.get("args")))]
    # As runc has it since its beginning: conditions that share an argument are alternatives, all others go together.
    either = len({argument for argument, _ in args}) < len(args)
    texts = tuple(text for _, text in args)
    return Entry(
        where=where,
        names=tuple(dict.fromkeys(names)),
        action=_action(where, entry, "action", "errnoRet", "errno"),
        alternatives=tuple((text,) for text in dict.fromkeys(texts)) if either else (texts,),
        unmet=_unmet(where, entry, target),
        either=either,
    )


def _condition(where: str, value: object) -> tuple[int, str]:
    """The argument, and the condition as a profile of ours says it: all 64 bits, as libseccomp compares."""
    arg = _map(where, value, "index value valueTwo op")
    argument = _number(f"{where}.index", arg.get("index"), 5)
    one = _number(f"{where}.value", arg.get("value"), _MAX_WORD)
    two = _number(f"{where}.valueTwo", arg.get("valueTwo", 0), _MAX_WORD)
    operator = _OPERATORS[_one_of(f"{where}.op", arg.get("op"), _OPERATORS)]
    if operator == "&":
        return argument, f"arg{argument}:64 & {one:#x} == {two & one:#x}"  # bits past the mask count for nothing there
    return argument, f"arg{argument}:64 {operator} {one if one < 10 else hex(one)}"


def _action(where: str, table: Mapping[str, Any], name: str, number: str, text: str) -> int:
    action = _ACTIONS[_one_of(f"{where}: action", table[name], _ACTIONS)]
    given = table.get(number)
    value = errno.EPERM if given is None else _number(f"{where}.{number}", given, _MAX_ERRNO)
    said = table.get(text)
    if said:
        by_name = {known: code for code, known in errno.errorcode.items()}
        code = by_name[_one_of(f"{where}.{text}", said, by_name)]
        if given is not None and code != value:
            raise ValueError(f"{where}: {text} is {said}, {number} is {value}")
        value = code
    return action | value if action == lib.SECCOMP_RET_ERRNO else action


def _unmet(where: str, entry: Mapping[str, Any], target: Target) -> str:
    own = _GO_ARCHITECTURES[target.architecture]
    caps, arches, kernel = _filter(f"{where}.excludes", entry.get("excludes"))
    if own in arches:
        return f"not for {own}"
    if kernel is not None and target.kernel >= kernel:
        return f"not from Linux {kernel[0]}.{kernel[1]} on"
    caps, arches, kernel = _filter(f"{where}.includes", entry.get("includes"))
    if arches and own not in arches:
        return f"for {', '.join(arches)} alone"
    if kernel is not None and target.kernel < kernel:
        return f"from Linux {kernel[0]}.{kernel[1]} on"
    return f"with {', '.join(caps)} alone" if caps else ""


def _filter(where: str, value: object) -> tuple[list[str], list[str], tuple[int, int] | None]:
    table = _map(where, value if value is not None else {}, "caps arches minKernel")
    caps = [_one_of(f"{where}.caps", one, _CAPABILITIES) for one in _list(f"{where}.caps", table.get("caps"))]
    arches = [_one_of(f"{where}.arches", one, _ARCHES) for one in _list(f"{where}.arches", table.get("arches"))]
    kernel = table.get("minKernel")
    if kernel in (None, ""):
        return caps, arches, None
    numbers = kernel.split(".") if isinstance(kernel, str) else []
    if len(numbers) != 2 or not all(one.isascii() and one.isdecimal() and len(one) < 6 for one in numbers):
        raise ValueError(f"{where}.minKernel is not a version such as '4.8'")
    return caps, arches, (int(numbers[0]), int(numbers[1]))


def _architectures(top: Mapping[str, Any], target: Target) -> Iterable[str]:
    plain = _list("architectures", top.get("architectures"))
    mapped = _list("archMap", top.get("archMap"))
    if plain and mapped:
        raise ValueError("architectures and archMap exclude each other")
    own = _SCMP_ARCHITECTURES[target.architecture]
    served = [_one_of("architectures", one, _SCMP_ARCHES) for one in plain]
    for index, value in enumerate(mapped):
        where = f"archMap[{index}]"
        entry = _map(where, value, "architecture subArchitectures")
        main = _one_of(f"{where}.architecture", entry.get("architecture"), _SCMP_ARCHES)
        listed = _list(f"{where}.subArchitectures", entry.get("subArchitectures"))
        others = [_one_of(f"{where}.subArchitectures", one, _SCMP_ARCHES) for one in listed]
        served += [main, *others] if main == own else []
    if (plain or mapped) and not {own, "SCMP_ARCH_NATIVE"} & set(served):
        yield f"architectures: {own} is not among them; the profile was made for it all the same"
    foreign = [one for one in served if one not in (own, "SCMP_ARCH_NATIVE")]
    if foreign:
        yield f"architectures: a call of {', '.join(foreign)} ends the process: filters here serve one architecture"


def _flags(top: Mapping[str, Any]) -> Iterable[str]:
    flags = [_one_of("flags", one, _FLAGS) for one in _list("flags", top.get("flags"))]
    if flags:
        yield f"flags: not carried over: {', '.join(flags)}"
    for name in ("listenerPath", "listenerMetadata"):
        if not isinstance(top.get(name, ""), str):
            raise ValueError(f"{name} is no text")  # noqa: TRY004
        if top.get(name):
            yield f"{name}: not carried over: there is no agent that listens"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"an object has a name twice: {', '.join(name for name, _ in pairs)[:200]}")
    return found


def _map(where: str, value: object, known: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no object")  # noqa: TRY004
    for name in value:
        if name not in known.split():
            raise ValueError(f"{where} has the unknown name {name!r}{nearest(name, known.split())}")
    return value


def _list(where: str, value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{where} is no list")  # noqa: TRY004
    return value


def _one_of(where: str, value: object, known: Iterable[str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is no text")  # noqa: TRY004
    if value not in known:
        raise ValueError(f"{where} {value!r} is not known{nearest(value, known)}")
    return value


def _number(where: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{where} is not a number from 0 to {most}")
    return value
