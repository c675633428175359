"""What the launcher lets stand in a run's plan, a sandbox's and an exec's."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import pytest

from immured.isolation import abi
from immured.isolation.abi import Op, PlanKind
from immured.isolation.plan import Step

Verdict = Callable[[bytes], str]

WALLS = [
    Step(Op.IDENTITY, (1000, 1000)),
    Step(Op.DROP_CAPABILITIES),
    Step(Op.NO_NEW_PRIVS),
    Step(Op.SECCOMP, (), (struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000),)),
    Step(Op.EXEC, (1,), (b"/", b"/bin/true")),
]
CGROUP = Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (b"tenant", b"name"))
LIMITS = [Step(Op.DEADLINES, (1, 0, 0)), CGROUP]
SEAL = Step(Op.SEAL_ROOT)
WHOLE = {
    PlanKind.RUN: [*LIMITS, SEAL, *WALLS],
    PlanKind.SANDBOX: [*LIMITS, SEAL, WALLS[0]],
    PlanKind.EXEC: [*LIMITS, *WALLS],
}
MOUNTED = [
    Step(Op.ROOTFS, (), (b"/srv",)),
    Step(Op.BIND, (0,), (b"/srv", b"/srv")),
    Step(Op.TMPFS, (1, 1, 0o755, 0), (b"/work",)),
    Step(Op.HIDE, (), (b"/srv",)),
    Step(Op.PROTECT, (0,), (b"/srv",)),
    Step(Op.FILE, (0o644,), (b"/tmp/x", b"")),
]


def packed(kind: int, steps: Sequence[Step]) -> bytes:
    body = b"".join(step.pack() for step in steps)
    return struct.pack("=IHHII", abi.PLAN_MAGIC, abi.PROTOCOL_VERSION, kind, len(steps), 16 + len(body)) + body


@pytest.mark.parametrize("kind", PlanKind)
def test_each_kind_has_its_smallest(launchers_verdict: Verdict, kind: PlanKind) -> None:
    assert launchers_verdict(packed(kind, WHOLE[kind])) == ""


@pytest.mark.parametrize("kind", PlanKind)
def test_nothing_of_the_smallest_may_be_missing(launchers_verdict: Verdict, kind: PlanKind) -> None:
    for at, step in enumerate(WHOLE[kind]):
        without = [*WHOLE[kind][:at], *WHOLE[kind][at + 1 :]]
        assert f"{step.op.name} is missing" in launchers_verdict(packed(kind, without))


def test_a_kind_that_is_none_is_refused(launchers_verdict: Verdict) -> None:
    assert "kind 3" in launchers_verdict(packed(3, WHOLE[PlanKind.RUN]))


@pytest.mark.parametrize("step", MOUNTED, ids=lambda step: str(step.op.name))
def test_an_exec_mounts_nothing(launchers_verdict: Verdict, step: Step) -> None:
    assert "nothing for a plan of kind 2" in launchers_verdict(packed(PlanKind.EXEC, [*LIMITS, step, *WALLS]))


@pytest.mark.parametrize("step", WALLS[1:], ids=lambda step: str(step.op.name))
def test_a_sandbox_executes_nothing(launchers_verdict: Verdict, step: Step) -> None:
    steps = [*LIMITS, SEAL, WALLS[0], step]
    assert "nothing for a plan of kind 1" in launchers_verdict(packed(PlanKind.SANDBOX, steps))


def test_a_terminal_is_an_execs_alone(launchers_verdict: Verdict) -> None:
    terminal = Step(Op.TERMINAL, (24, 80))
    assert launchers_verdict(packed(PlanKind.EXEC, [*LIMITS, terminal, *WALLS])) == ""
    assert "TERMINAL is nothing" in launchers_verdict(packed(PlanKind.RUN, [*LIMITS, terminal, SEAL, *WALLS]))


@pytest.mark.parametrize("size", [(0, 80), (24, 0), (70000, 80)])
def test_a_terminal_has_a_size(launchers_verdict: Verdict, size: tuple[int, int]) -> None:
    said = launchers_verdict(packed(PlanKind.EXEC, [*LIMITS, Step(Op.TERMINAL, size), *WALLS]))
    assert "rows" in said or "columns" in said


@pytest.mark.parametrize(("deadlines", "word"), [((0, 0, 0), "wall"), ((1, 1, 0), "cpu"), ((1, 0, 1), "kill_on_pids")])
def test_a_sandbox_has_a_time_to_live_and_no_other(
    launchers_verdict: Verdict, deadlines: tuple[int, ...], word: str
) -> None:
    steps = [Step(Op.DEADLINES, deadlines), CGROUP, SEAL, WALLS[0]]
    assert word in launchers_verdict(packed(PlanKind.SANDBOX, steps))


def test_what_is_captured_is_a_sandboxs(launchers_verdict: Verdict) -> None:
    capture = Step(Op.CAPTURE, (0, 1 << 20, 1024), (b"/srv", b"/srv"))
    assert launchers_verdict(packed(PlanKind.SANDBOX, [*LIMITS, capture, SEAL, WALLS[0]])) == ""
    assert "CAPTURE is nothing" in launchers_verdict(packed(PlanKind.RUN, [*LIMITS, capture, SEAL, *WALLS]))
