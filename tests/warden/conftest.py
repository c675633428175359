"""Wardens under test: the launcher's own sources around a small main, and a cgroup subtree of their own."""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from immured.isolation.abi import Controller
from tests.warden.cell import Cell

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "native" / "launcher"
# All but the launcher's own loop, and what stands between it and the wardens.
NOT_A_WARDENS = frozenset(
    "accept brokers control launcher main options outbox parker pool relay relay_sandboxes sweep table upgrade".split()
)
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE=", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
# IMMURED_SANITIZE=1: slower, and every mistake with memory ends the warden.
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover", "-fno-omit-frame-pointer"]
FLAGS += SANITIZE if os.environ.get("IMMURED_SANITIZE") == "1" else ["-static"]


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable that is one warden."""
    program = tmp_path_factory.mktemp("native") / "warden"
    core = SOURCES.parent / "core" / "seccomp_evaluate.c"
    sources = [one for one in sorted(SOURCES.glob("*.c")) if one.stem not in NOT_A_WARDENS] + [core, HERE / "harness.c"]
    objects = [program.with_name(f"{source.stem}.o") for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = pool.map(
            lambda source, into: subprocess.run(["gcc", *FLAGS, "-c", source, "-o", into], check=False).returncode,
            sources,
            objects,
        )
        assert not any(compiled)
    subprocess.run(["gcc", *FLAGS, *objects, "-o", program], check=True)
    return program


@pytest.fixture(scope="session")
def harness_of_old(harness: Path) -> Path:
    """The same as it is on a kernel before 6.8, which gives a mount's number to another."""
    program, part = harness.with_name("warden-of-old"), harness.with_name("covers-of-old")
    flags = [*FLAGS, "-include", str(HERE / "before_6_8.h")]
    subprocess.run(["gcc", *flags, "-c", SOURCES / "covers.c", "-o", part], check=True)
    others = [one for one in harness.parent.glob("*.o") if one.stem != "covers"]
    subprocess.run(["gcc", *FLAGS, *others, part, "-o", program], check=True)
    return program


def cgroup_mount() -> Path | None:
    """Where cgroup v2 is mounted: alone, or beside v1."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


@pytest.fixture(scope="session")
def subtree() -> Iterator[Path | None]:
    """A cgroup of this test run's own, which every controller that there is reaches."""
    mount = cgroup_mount()
    if mount is None:
        yield None
        return
    path = mount / f"immured-warden-tests-{os.getpid()}-{secrets.token_hex(2)}"
    path.mkdir()
    have = (mount / "cgroup.controllers").read_text().split()
    wanted = [name for name in ("cpu", "memory", "pids", "io") if name in have]
    for directory in (mount, path):
        for name in wanted:
            (directory / "cgroup.subtree_control").write_text(f"+{name}")
    yield path
    for directory in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
        directory.rmdir()
    path.rmdir()


@pytest.fixture(scope="session")
def controllers(subtree: Path | None) -> Controller:
    """What that subtree can enforce."""
    if subtree is None:
        return Controller(0)
    have = (subtree / "cgroup.controllers").read_text().split()
    found = Controller.KILL if (subtree / "cgroup.kill").exists() else Controller(0)
    for name in ("cpu", "memory", "pids", "io"):
        if name in have:
            found |= Controller[name.upper()]
    return found


@pytest.fixture
def cells(harness: Path, subtree: Path | None, controllers: Controller) -> Iterator[Callable[..., Cell]]:
    """Makes parked cells, each of a range of ids of its own; all end with the test."""
    slots = itertools.count()
    with ExitStack() as stack:

        def make(**options: Any) -> Cell:
            options = {
                "harness": harness, "cgroup": subtree, "controllers": controllers, "slot": next(slots), **options
            }  # fmt: skip
            return stack.enter_context(Cell(**options))

        yield make


@pytest.fixture
def cell(cells: Callable[..., Cell]) -> Cell:
    """One parked cell."""
    return cells()
