"""A plan: what the launcher does for one run, as a flat list of named steps. Pure data.

The launcher interprets a plan one step at a time and re-checks it (native/launcher/plan.c); the operations, their order
and the packed form are `native/launcher/protocol.h`'s. `SHAPES` is that table in Python: it drives the check, the
packing and the description.
"""

from __future__ import annotations

import hashlib
import resource
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from immured.isolation import abi
from immured.isolation.abi import Absent, AffinityFlag, BindFlag, ImageFlag, LandlockFlag, Op, PlanKind

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SHAPES", "UNLIMITED", "Part", "Plan", "PlanError", "Shape", "Step"]

UNLIMITED: Final = 2**64 - 1
"""An RLIMIT operand for RLIM_INFINITY."""

_PLAN: Final = struct.Struct("=IHHII")  # struct imd_plan: magic, version, kind, steps, length
_STEP: Final = struct.Struct("=IHH")  # struct imd_step: op, numbers, strings
_LENGTH: Final = struct.Struct("=I")
_NULS: Final = (b"\0" * 8, b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")

if _PLAN.size != abi.size_of("imd_plan") or _STEP.size != abi.size_of("imd_step"):  # pragma: no cover
    raise ImportError("immured._abi is not of this source: run `make build`")


class PlanError(ValueError):
    """A plan that the launcher would refuse: a mistake in this package, never in a caller's input."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One operation's place and operands. `rank` orders a plan: equal ranks may mix. `kinds`: in whose it may be."""

    rank: int
    numbers: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()
    required: bool = False
    repeats: bool = False
    kinds: frozenset[PlanKind] = frozenset(PlanKind)


_MOUNTED: Final = frozenset({PlanKind.RUN, PlanKind.SANDBOX})
_EXECUTED: Final = frozenset({PlanKind.RUN, PlanKind.EXEC})
_LIVING: Final = frozenset({PlanKind.SANDBOX})

SHAPES: Final[dict[Op, Shape]] = {
    Op.DEADLINES: Shape(1, ("wall_ns", "cpu_ns", "kill_on_pids"), required=True),
    Op.CGROUP: Shape(
        2,
        ("memory_max", "pids_max", "cpu_quota_us", "cpu_period_us", "io_bps", "swap_max"),
        ("tenant", "sandbox"),
        required=True,
    ),
    Op.COLLECT: Shape(3, ("max_bytes",), ("path",), repeats=True, kinds=_EXECUTED),
    Op.TERMINAL: Shape(4, ("rows", "columns"), kinds=frozenset({PlanKind.EXEC})),
    Op.ROOTFS: Shape(5, (), ("source",), kinds=_MOUNTED),
    Op.IMAGE: Shape(5, ("flags", "size_bytes", "inodes"), ("source",), kinds=_MOUNTED),
    Op.BIND: Shape(6, ("flags",), ("source", "target"), repeats=True, kinds=_MOUNTED),
    Op.TMPFS: Shape(6, ("size_bytes", "inodes", "mode", "noexec"), ("target",), repeats=True, kinds=_MOUNTED),
    Op.HIDE: Shape(6, (), ("target",), repeats=True, kinds=_MOUNTED),
    Op.PROTECT: Shape(6, ("absent",), ("target",), repeats=True, kinds=_MOUNTED),
    Op.FILE: Shape(6, ("mode",), ("target", "bytes"), repeats=True, kinds=_MOUNTED),
    Op.CAPTURE: Shape(6, ("flags", "size_bytes", "inodes"), ("source", "target"), repeats=True, kinds=_LIVING),
    Op.RESTORE: Shape(6, ("flags", "size_bytes", "inodes"), ("saved", "target"), repeats=True, kinds=_LIVING),
    Op.VOLUME: Shape(6, ("flags", "size_bytes", "inodes"), ("name", "target"), repeats=True, kinds=_MOUNTED),
    Op.SEAL_ROOT: Shape(7, required=True, kinds=_MOUNTED),
    Op.LOOPBACK: Shape(8, kinds=_MOUNTED),
    Op.RLIMIT: Shape(9, ("resource", "soft", "hard"), repeats=True, kinds=_EXECUTED),
    Op.AFFINITY: Shape(10, ("count", "affinity"), ("processors",), kinds=_EXECUTED),
    Op.UMASK: Shape(11, ("mask",), kinds=_EXECUTED),
    Op.IDENTITY: Shape(12, ("uid", "gid"), required=True),
    Op.DROP_CAPABILITIES: Shape(13, required=True, kinds=_EXECUTED),
    Op.NO_NEW_PRIVS: Shape(14, required=True, kinds=_EXECUTED),
    # required where the kernel has it: the launcher sees to that
    Op.LANDLOCK: Shape(15, ("rung", "flags"), kinds=_EXECUTED),
    Op.PIN: Shape(16, kinds=_EXECUTED),
    Op.SECCOMP: Shape(17, (), ("program",), required=True, kinds=_EXECUTED),
    Op.EXPLAIN: Shape(18, ("flags",), ("program",), kinds=_EXECUTED),
    Op.EXEC: Shape(19, ("argc",), ("cwd",), required=True, kinds=_EXECUTED),  # then argv, then env
}

_REQUIRED: Final = {
    kind: frozenset(op for op, shape in SHAPES.items() if shape.required and kind in shape.kinds) for kind in PlanKind
}
_RLIMITS: Final = {
    value: name.removeprefix("RLIMIT_").lower()
    for name, value in vars(resource).items()
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
_BIND_FLAGS: Final[dict[str, int]] = {flag.name.lower(): flag for flag in BindFlag if flag.name}
_FLAGS: Final[dict[Op, dict[str, int]]] = {
    Op.BIND: _BIND_FLAGS,
    Op.CAPTURE: _BIND_FLAGS,
    Op.RESTORE: _BIND_FLAGS,
    Op.VOLUME: _BIND_FLAGS,
    Op.IMAGE: {flag.name.lower(): flag for flag in ImageFlag if flag.name},
    Op.LANDLOCK: {flag.name.lower(): flag for flag in LandlockFlag if flag.name},
    Op.EXPLAIN: {"halt": abi.EXPLAIN_HALT, "learn": abi.EXPLAIN_LEARN},
}
_BENEATH: Final = frozenset({Op.BIND, Op.CAPTURE})
"""Whose strings are one more where their flags say BENEATH."""
_OCTAL: Final = frozenset({"mode", "mask"})


@dataclass(frozen=True, slots=True)
class Step:
    """One operation with its operands: unsigned 64-bit numbers and byte strings, in the protocol's order."""

    op: Op
    numbers: tuple[int, ...] = ()
    strings: tuple[bytes, ...] = ()

    def pack(self) -> bytes:
        """The step's bytes, a multiple of eight long."""
        parts = [_STEP.pack(self.op, len(self.numbers), len(self.strings))]
        if self.numbers:
            parts.append(struct.pack(f"={len(self.numbers)}Q", *self.numbers))
        for string in self.strings:
            parts += (_LENGTH.pack(len(string)), string, _NULS[(4 + len(string)) % 8])
        return b"".join(parts)

    def describe(self) -> dict[str, object]:
        """The step for a reader: `{"step": name, operand: value, ...}`; values are str, int, bool, list or map."""
        shape = SHAPES[self.op]
        shown: dict[str, object] = {"step": self.op.name.lower()}
        for name, number in zip(shape.numbers, self.numbers, strict=False):
            if name != "argc":
                shown[name] = _show_number(self.op, name, number)
        if self.op in (Op.SECCOMP, Op.EXPLAIN):
            program = self.strings[0]
            shown |= {"instructions": len(program) // 8, "sha256": hashlib.sha256(program).hexdigest()}
        elif self.op is Op.EXEC:
            argc = self.numbers[0]
            shown["cwd"] = _text(self.strings[0])
            shown["argv"] = [_text(one) for one in self.strings[1 : 1 + argc]]
            shown["env"] = [_text(one) for one in self.strings[1 + argc :]]
        elif self.op is Op.FILE:
            target, data = self.strings
            shown |= {"target": _text(target), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        else:
            names = (*shape.strings, "beneath") if self.op in _BENEATH else shape.strings
            shown |= {name: _text(one) for name, one in zip(names, self.strings, strict=False)}
        return shown

    def check(self) -> None:
        """Raise PlanError where the operands are not the operation's."""
        shape, name = SHAPES[self.op], self.op.name
        if len(self.numbers) != len(shape.numbers):
            raise PlanError(f"{name}: {len(self.numbers)} numbers instead of {len(shape.numbers)}")
        if any(not 0 <= number <= UNLIMITED for number in self.numbers):
            raise PlanError(f"{name}: a number outside 64 bits")
        if self.op is Op.EXEC:
            if not 1 <= self.numbers[0] <= len(self.strings) - 1:
                raise PlanError("EXEC: argc counts no argument, or more than there are")
        elif len(self.strings) != len(shape.strings) + self._more_strings():
            raise PlanError(f"{name}: {len(self.strings)} strings instead of {len(shape.strings)}")
        for index, string in enumerate(self.strings):
            if len(string) > abi.MAX_STRING:
                raise PlanError(f"{name}: a string of {len(string)} bytes, at most {abi.MAX_STRING}")
            binary = self.op in (Op.SECCOMP, Op.EXPLAIN) or (self.op is Op.FILE and index == 1)
            if not binary and b"\0" in string:
                raise PlanError(f"{name}: a NUL inside a string")

    def _more_strings(self) -> int:
        return int(self.op in _BENEATH and bool(self.numbers[0] & BindFlag.BENEATH))


class Part:
    """Steps that stand together in many plans: checked and packed once. Raises PlanError."""

    __slots__ = ("packed", "steps")

    def __init__(self, steps: Sequence[Step]) -> None:
        for step in steps:
            step.check()
        self.steps = tuple(steps)
        self.packed = b"".join([step.pack() for step in steps])


class Plan:
    """The steps of one run, sandbox or exec, in the order of `SHAPES` and with every wall in it: else PlanError at
    construction."""

    def __init__(self, *parts: Part | Sequence[Step], kind: PlanKind = PlanKind.RUN) -> None:
        """The plan of these steps and parts, one after the other."""
        whole = [part if isinstance(part, Part) else Part(part) for part in parts]
        self.steps: Final = tuple([step for part in whole for step in part.steps])
        self.kind: Final = kind
        _check_order(self.steps, kind)
        length = _PLAN.size + sum([len(part.packed) for part in whole])
        if length > abi.MAX_PLAN:
            raise PlanError(f"a plan of {length} bytes, at most {abi.MAX_PLAN}")
        header = _PLAN.pack(abi.PLAN_MAGIC, abi.PROTOCOL_VERSION, kind, len(self.steps), length)
        self._packed: Final = b"".join([header, *[part.packed for part in whole]])

    def pack(self) -> bytes:
        """`struct imd_plan` and the steps, in this machine's byte order; the same object at every call."""
        return self._packed

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` over the packed bytes."""
        return "sha256:" + hashlib.sha256(self._packed).hexdigest()

    def describe(self) -> list[dict[str, object]]:
        """The steps for a reader, in order: what `immure plan` prints and what a signed `plan` reply carries."""
        return [step.describe() for step in self.steps]


def _check_order(steps: Sequence[Step], kind: PlanKind) -> None:
    if len(steps) > abi.MAX_STEPS:
        raise PlanError(f"{len(steps)} steps, at most {abi.MAX_STEPS}")
    seen: set[Op] = set()
    rank = 0
    for step in steps:
        shape = SHAPES[step.op]
        if kind not in shape.kinds:
            raise PlanError(f"{step.op.name} stands in a plan of the kind {kind.name}")
        if shape.rank < rank:
            raise PlanError(f"{step.op.name} stands too late")
        if step.op in seen and not shape.repeats:
            raise PlanError(f"{step.op.name} stands twice")
        rank = shape.rank
        seen.add(step.op)
    if missing := _REQUIRED[kind] - seen:
        raise PlanError(f"{min(missing).name} is missing")


def _show_number(op: Op, name: str, number: int) -> object:
    if name == "flags":
        return [word for word, flag in _FLAGS[op].items() if number & flag]
    if name == "absent":
        return Absent(number).name.lower()
    if name == "affinity":
        return [flag.name.lower() for flag in AffinityFlag if number & flag and flag.name]
    if name == "resource":
        return _RLIMITS.get(number, str(number))
    if name in ("kill_on_pids", "noexec"):
        return bool(number)
    if name in _OCTAL:
        return f"{number:04o}"
    return "unlimited" if number == UNLIMITED else number


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
