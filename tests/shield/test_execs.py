"""Execs in a live sandbox: each is explained by a process of its own, made when there is first something to say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.isolation.abi import Cause, Message, ViolationKind
from immured.isolation.seccomp import compile_profile
from tests.warden.cell import Cell, Wish, python
from tests.warden.sandbox import Exec, Sandbox

BASE = compile_profile("default")
EXPLAINED = compile_profile("default", explain=True)
WAITING = "import sys\nopen('/tmp/mine', 'w')\nprint('ready', flush=True)\nsys.stdin.read()\n"
FORBIDDEN = """
for place in ("/usr/new", "/etc/new"):
    try:
        open(place, "w")
    except OSError:
        pass
"""


@pytest.fixture
def sandbox(cell: Cell) -> Iterator[Sandbox]:
    """One that lives."""
    with Sandbox(cell) as one:
        yield one


def explained(program: str, *, halt: bool = False) -> Wish:
    return Wish(python(program), program=BASE, explained=EXPLAINED, halt=halt)


def targets(one: Exec) -> list[bytes]:
    return [violation.target for violation in one.exited().violations if violation.kind is ViolationKind.WRITE]


def explainers(sandbox: Sandbox) -> list[int]:
    """As the host counts them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status.startswith("Name:\texplainer\n") and f"\nUid:\t{sandbox.cell.slot_base}\t" in status:
            found.append(int(entry.name))
    return found


def test_what_an_exec_must_not_write_is_named(sandbox: Sandbox) -> None:
    one = sandbox.start(explained(FORBIDDEN))
    assert targets(one) == [b"/usr/new", b"/etc/new"]
    assert one.exited().si_status == 0


def test_a_write_outside_halts_the_exec_where_its_plan_says_so_and_no_other(sandbox: Sandbox) -> None:
    other = sandbox.start(explained("input(); print('alive')"), stdin=b"x\n")
    one = sandbox.start(explained(FORBIDDEN, halt=True))
    assert (one.exited().cause, targets(one)) == (Cause.VIOLATION, [b"/usr/new"])
    assert other.result().succeeded() == "alive\n"


def test_each_exec_is_told_its_own_and_nobody_elses(sandbox: Sandbox) -> None:
    programs = [f"import os\ntry: os.mkdir('/usr/{i}')\nexcept OSError: pass" for i in range(6)]
    execs = [sandbox.start(explained(program)) for program in programs]
    assert [targets(one) for one in execs] == [[b"/usr/%d" % i] for i in range(6)]


def test_one_with_nothing_to_explain_has_no_explainer(sandbox: Sandbox) -> None:
    one = sandbox.start(explained("import sys; print('ready', flush=True); sys.stdin.read(); sys.exit(0)"))
    one.wait_for_output(b"ready")
    assert explainers(sandbox) == []
    one.exited()


def test_an_explainer_ends_with_its_exec(sandbox: Sandbox) -> None:
    pipes_open = sandbox.keep(explained(WAITING))
    pipes_open.wait_for_log(b"ready")
    assert len(explainers(sandbox)) == 1
    pipes_open.kill()
    pipes_open.exited()
    assert explainers(sandbox) == []


def test_an_explainer_is_out_of_the_payloads_reach(sandbox: Sandbox) -> None:
    one = sandbox.keep(explained(WAITING))
    one.wait_for_log(b"ready")
    script = """
import glob, os, signal
for path in glob.glob("/proc/[0-9]*"):
    name = open(path + "/comm").read().strip()
    if name not in ("explainer", "init", "immured-warden"): continue
    said = []
    for act in (lambda: os.kill(int(path[6:]), signal.SIGKILL), lambda: os.listdir(path + "/fd"),
                lambda: os.readlink(path + "/exe"), lambda: open(path + "/mem", "rb")):
        try:
            act()
            said.append("done")
        except PermissionError:
            said.append("refused")
    print(name, *said, repr(open(path + "/cmdline").read().strip(chr(0))))
"""
    lines = sandbox.run(Wish(python(script))).succeeded().splitlines()
    assert sorted(lines) == [f"{name} refused refused refused refused ''" for name in ("explainer", "init")]


def test_an_explainer_that_is_killed_takes_nobody_along(sandbox: Sandbox) -> None:
    one = sandbox.keep(explained(WAITING + "open('/tmp/more', 'w')\nprint('end')"))
    one.wait_for_log(b"ready")
    [explainer] = explainers(sandbox)
    os.kill(explainer, signal.SIGKILL)
    os.close(one.stdin)
    one.stdin = -1
    one.say(Message.CLOSE_STDIN)
    assert one.exited().si_status == 0
