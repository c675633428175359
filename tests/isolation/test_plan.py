"""A plan's packed form, its order, and how it reads."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import pytest

from immured.isolation import abi
from immured.isolation.abi import BindFlag, Op
from immured.isolation.plan import SHAPES, UNLIMITED, Part, Plan, PlanError, Step

RETURN_ALLOW = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
SMALLEST = (
    Step(Op.DEADLINES, (0, 0, 0)),
    Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (b"default", b"s1")),
    Step(Op.SEAL_ROOT),
    Step(Op.IDENTITY, (1000, 1000)),
    Step(Op.DROP_CAPABILITIES),
    Step(Op.NO_NEW_PRIVS),
    Step(Op.SECCOMP, (), (RETURN_ALLOW,)),
    Step(Op.EXEC, (1,), (b"/", b"/bin/true", b"A=b")),
)


def test_every_operation_of_the_protocol_has_a_shape() -> None:
    assert set(SHAPES) == set(Op)


def test_the_smallest_plan_passes_the_launchers_check(launchers_verdict: Callable[[bytes], str]) -> None:
    assert launchers_verdict(Plan(SMALLEST).pack()) == ""


def test_the_header_says_how_long_the_plan_is() -> None:
    packed = Plan(SMALLEST).pack()
    assert struct.unpack_from("=IIII", packed) == (abi.PLAN_MAGIC, abi.PROTOCOL_VERSION, len(SMALLEST), len(packed))


@pytest.mark.parametrize("length", range(18))
def test_a_string_is_padded_with_at_least_one_nul_to_eight(length: int) -> None:
    packed = Step(Op.HIDE, (), (b"x" * length,)).pack()
    body = packed[8:]
    assert struct.unpack_from("=I", body)[0] == length
    assert body[4 : 4 + length] == b"x" * length
    padding = body[4 + length :]
    assert 1 <= len(padding) <= 8
    assert not padding.strip(b"\0")
    assert len(packed) % 8 == 0


def test_the_digest_is_over_the_packed_bytes() -> None:
    plan = Plan(SMALLEST)
    assert plan.digest == "sha256:" + hashlib.sha256(plan.pack()).hexdigest()


@pytest.mark.parametrize("missing", [op for op, shape in SHAPES.items() if shape.required])
def test_no_wall_may_be_missing(missing: Op) -> None:
    with pytest.raises(PlanError, match=f"{missing.name} is missing"):
        Plan([step for step in SMALLEST if step.op is not missing])


def test_nothing_stands_after_the_filter_but_exec() -> None:
    late = (*SMALLEST[:-1], Step(Op.UMASK, (0o22,)), SMALLEST[-1])
    with pytest.raises(PlanError, match="UMASK stands too late"):
        Plan(late)


def test_what_may_stand_once_may_not_stand_twice() -> None:
    with pytest.raises(PlanError, match="DEADLINES stands twice"):
        Plan((SMALLEST[0], *SMALLEST))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(Op.TMPFS, (1, 2), (b"/a",)), "TMPFS: 2 numbers instead of 4"),
        (Step(Op.TMPFS, (1, 2, 3, 0), ()), "TMPFS: 0 strings instead of 1"),
        (Step(Op.TMPFS, (2**64, 2, 3, 0), (b"/a",)), "TMPFS: a number outside 64 bits"),
        (Step(Op.HIDE, (), (b"/a\0b",)), "HIDE: a NUL inside a string"),
        (Step(Op.EXEC, (2,), (b"/", b"a")), "EXEC: argc counts no argument, or more than there are"),
        (Step(Op.FILE, (0,), (b"/a", b"x" * ((1 << 20) + 1))), "FILE: a string of 1048577 bytes, at most 1048576"),
    ],
)
def test_operands_are_the_operations(step: Step, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        step.check()


def test_a_plan_has_a_bound() -> None:
    files = tuple(Step(Op.FILE, (0,), (b"/tmp/%d" % index, b"x" * (1 << 20))) for index in range(4))
    with pytest.raises(PlanError, match="at most 4194304"):
        Plan((*SMALLEST[:2], *files, *SMALLEST[2:]))


def test_a_part_packs_as_its_steps() -> None:
    assert Plan(SMALLEST[:2], Part(SMALLEST[2:5]), SMALLEST[5:]).pack() == Plan(SMALLEST).pack()


def test_flags_read_as_words() -> None:
    step = Step(Op.BIND, (BindFlag.WRITE | BindFlag.OPTIONAL,), (b"/a", b"/b"))
    assert step.describe() == {"step": "bind", "flags": ["write", "optional"], "source": "/a", "target": "/b"}


def test_a_resource_reads_by_its_name() -> None:
    shown = Step(Op.RLIMIT, (7, 64, UNLIMITED)).describe()
    assert shown == {"step": "rlimit", "resource": "nofile", "soft": 64, "hard": "unlimited"}


def test_a_modes_digits_are_octal() -> None:
    assert Step(Op.TMPFS, (4096, 8, 0o1777, 0), (b"/tmp",)).describe()["mode"] == "1777"


def test_a_command_reads_as_argv_and_env() -> None:
    assert SMALLEST[-1].describe() == {"step": "exec", "cwd": "/", "argv": ["/bin/true"], "env": ["A=b"]}


def test_a_files_content_reads_as_length_and_digest() -> None:
    shown = Step(Op.FILE, (0o755,), (b"/tmp/a", b"secret")).describe()
    assert (shown["bytes"], shown["sha256"]) == (6, hashlib.sha256(b"secret").hexdigest())
    assert "secret" not in str(shown)


def test_a_path_that_is_no_text_reads_escaped() -> None:
    assert Step(Op.HIDE, (), (b"/\xff",)).describe() == {"step": "hide", "target": "/\\xff"}
