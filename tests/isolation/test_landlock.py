"""Landlock's step in plans, and the launcher's rule for it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation import abi
from immured.isolation.abi import LandlockFlag, Op
from immured.isolation.landlock import landlock_rung, landlock_steps
from immured.isolation.plan import Plan, Step

LAUNCHER = Path(__file__).resolve().parents[2] / "native" / "launcher"
BEFORE = (
    Step(Op.DEADLINES, (0, 0, 0)),
    Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (b"t", b"s")),
    Step(Op.SEAL_ROOT),
)
WALLS = (Step(Op.IDENTITY, (1000, 1000)), Step(Op.DROP_CAPABILITIES), Step(Op.NO_NEW_PRIVS))
AFTER = (
    Step(Op.SECCOMP, (), (b"\6\0\0\0\0\0\xff\x7f",)),
    Step(Op.EXEC, (1,), (b"/", b"/bin/true")),
)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, Plan], str]:
    """What native/launcher/plan.c says to a plan on a kernel with this rung."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or "cc"
    library = tmp_path_factory.mktemp("plan") / "plan.so"
    sources = [LAUNCHER / "plan.c", LAUNCHER / "error.c"]
    subprocess.run([compiler, "-std=gnu11", "-shared", "-fPIC", "-o", library, *sources], check=True)
    code = ctypes.CDLL(str(library))

    def verdict(rung: int, plan: Plan) -> str:
        packed = plan.pack()
        error = ctypes.create_string_buffer(4096)
        aligned = (ctypes.c_uint64 * (len(packed) // 8 + 1))()
        ctypes.memmove(aligned, packed, len(packed))
        code.imd_plan_require_landlock(ctypes.c_uint32(rung))
        refused = code.imd_plan_check(aligned, ctypes.c_size_t(len(packed)), error)
        return error.raw[12:].split(b"\0")[0].decode() if refused else ""

    return verdict


def plan(*landlock: Step, loopback: bool = True) -> Plan:
    network = (Step(Op.LOOPBACK),) if loopback else ()
    return Plan((*BEFORE, *network, *WALLS, *landlock, *AFTER))


@pytest.mark.parametrize(("kernel", "rung"), [(0, 0), (1, 0), (2, 2), (7, 7), (10, 10), (11, 10), (99, 10)])
def test_a_newer_kernel_is_our_newest_rung_and_one_that_stops_moves_is_none(kernel: int, rung: int) -> None:
    assert landlock_rung(kernel) == rung


@pytest.mark.parametrize("kernel", [0, 2, 7, 99])
@pytest.mark.parametrize("loopback", [True, False])
def test_what_is_made_for_a_kernel_passes_there(
    verdict: Callable[[int, Plan], str], kernel: int, loopback: bool
) -> None:
    steps = landlock_steps(kernel, network=loopback)
    assert verdict(landlock_rung(kernel), plan(*steps, loopback=loopback)) == ""


def test_a_plan_without_it_is_refused_where_the_kernel_has_it(verdict: Callable[[int, Plan], str]) -> None:
    assert verdict(7, plan()) == "LANDLOCK is missing"


@pytest.mark.parametrize("rung", [6, 8, 0])
def test_a_plan_on_another_rung_is_refused(verdict: Callable[[int, Plan], str], rung: int) -> None:
    assert verdict(7, plan(Step(Op.LANDLOCK, (rung, 0)))) == f"rung {rung}, and Landlock's here is 7"


def test_a_plan_with_it_is_refused_where_the_kernel_has_none(verdict: Callable[[int, Plan], str]) -> None:
    assert verdict(0, plan(Step(Op.LANDLOCK, (7, 0)))) == "rung 7, and Landlock's here is 0"


def test_a_plan_without_a_network_that_leaves_it_open_is_refused(verdict: Callable[[int, Plan], str]) -> None:
    refused = verdict(7, plan(Step(Op.LANDLOCK, (7, 0)), loopback=False))
    assert refused == "LANDLOCK without LOOPBACK leaves the network open"


def test_unknown_flags_are_refused(verdict: Callable[[int, Plan], str]) -> None:
    assert verdict(7, plan(Step(Op.LANDLOCK, (7, 2)))).startswith("flags is 2")


def test_it_is_printed_with_its_rung() -> None:
    step = landlock_steps(abi.LANDLOCK_NEWEST, network=False)[0]
    assert step.describe() == {"step": "landlock", "rung": 10, "flags": ["no_network"]}
    assert step.numbers[1] == LandlockFlag.NO_NETWORK
