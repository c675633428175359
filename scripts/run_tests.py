"""Runs the whole suite on this host, and what meets the kernel once more in virtual machines where this host's cgroups
are no full v2. The last thing said is short: how each part ended, which tests failed, where one hung.

A virtual machine is whatever VM_RUNNER names: a program that runs `VM_RUNNER [-t SECONDS] [-e K=V] -- COMMAND` as
root beneath a full cgroup v2 hierarchy with the repository at its own path. Without it, and without controllers on the
host, the tests that need them are skipped by name (and fail in CI).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from scripts.parts import Ended, Part, at_once, processors, shown
from scripts.summary import summary

__all__ = ["host_has_cgroup2", "vm_runner"]

ROOT = Path(__file__).resolve().parents[1]
CONTROLLERS = frozenset({"cpu", "io", "memory", "pids"})
VM_SECONDS = 45 * 60
"""Of each virtual machine: about twice what it takes."""
# What no kernel changes: bytes, schemas, arithmetic, the build. The virtual machine takes twice the host's time.
NOT_IN_VM = (
    "agents", "bench", "cli", "client", "consent", "core", "evidence", "fuzz", "identity", "independent", "isolation",
    "ledger", "manifest", "manifests", "matrix", "packaging", "seccomp/test_compiler.py", "seccomp/test_libseccomp.py",
    "seccomp/test_oci.py", "seccomp/test_profile_files.py", "signed", "soak", "suite/test_hangs.py",
    "suite/test_parts.py", "suite/test_shards.py", "wire",
)  # fmt: skip
FIRST_SHARD = frozenset(
    {"adapters", "crash", "launcher", "pinning", "preflight", "programs", "service", "units", "walls", "warden"}
)
"""What the first of two virtual machines runs, about half by time; the second runs all else, new folders too."""
MAPS = Path("/proc/sys/vm/max_map_count")
WANTED_MAPS = 1 << 20


def host_has_cgroup2() -> bool:
    """Whether /sys/fs/cgroup is cgroup v2 with every controller that quotas need."""
    try:
        return set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()) >= CONTROLLERS
    except OSError:
        return False


def vm_runner() -> str | None:
    """The program that runs a command in a virtual machine, or None."""
    named = os.environ.get("VM_RUNNER", "")
    return str(Path(named).resolve()) if named and os.access(named, os.X_OK) else None


def pytest(*arguments: str) -> list[str]:
    """A pytest command line."""
    return [sys.executable, "-m", "pytest", *arguments]


def left_out(folders: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of the folders of tests/, what each of the two virtual machines does not run, as paths below tests/."""
    elsewhere = {name for name in NOT_IN_VM if "/" not in name}
    second = set(folders) - elsewhere - FIRST_SHARD
    return sorted({*NOT_IN_VM, *second}), sorted({*NOT_IN_VM, *FIRST_SHARD})


def more_maps(bound: Path = MAPS) -> str:
    """Has this host allow a process as many mappings as the machine of a guest may need; what was done, in words.

    User-Mode Linux maps each page of a guest's process by itself. At the host's bound (65,530 by default: 256 MiB whose
    pages lie anywhere) that process faults on the same page for ever: a test that hangs, in no system call, and that
    cannot always say where.
    """
    try:
        now = int(bound.read_text())
        if now < WANTED_MAPS:
            bound.write_text(str(WANTED_MAPS))
            return f"vm.max_map_count was {now} and is {WANTED_MAPS}, until this host starts anew"
    except (OSError, ValueError) as error:
        return (
            f"vm.max_map_count stays as it is ({error}); a guest of User-Mode Linux may hang: "
            f"sysctl -w vm.max_map_count={WANTED_MAPS}"
        )
    return ""


def host_parts(extra: list[str], *, vm_follows: bool) -> list[Part]:
    """What runs here, one after the other."""
    ci = os.environ.get("CI") == "true"
    follows = ["--vm-follows"] if vm_follows else []
    checks = [
        Part("ruff", (str(Path(sys.executable).with_name("ruff")), "check", ".")),
        Part("mypy", (sys.executable, "-m", "mypy")),
    ]
    sanitized = Part(
        "one cell, with address and undefined sanitizers",
        tuple(pytest("tests/warden", *follows)),
        {"IMMURED_SANITIZE": "1"},
    )
    suite = Part("the suite on this host", tuple(pytest(*follows, *extra)))
    return [*checks, suite, sanitized] if ci else [suite]


def vm_parts(runner: str, extra: list[str]) -> list[Part]:
    """What runs in virtual machines, side by side: two halves, or what `extra` selects in one."""
    environment = [f"-e{name}={os.environ[name]}" for name in ("CI",) if name in os.environ]
    # No cache: it would not come back. Verbose: the last line of one that hangs names the test.
    before = [runner, "-t", str(VM_SECONDS), *environment, "-eTHROWAWAY_HOST=1", "--"]
    title = "what meets the kernel, in a virtual machine with cgroup v2"

    def part(title: str, without: Iterable[str]) -> Part:
        ignored = (f"--ignore=tests/{path}" for path in without)
        return Part(title, (*before, *pytest("-v", "-p", "no:cacheprovider", *ignored, *extra)))

    if extra:
        return [part(title, NOT_IN_VM)]
    folders = [path.name for path in (ROOT / "tests").iterdir() if path.is_dir()]
    return [part(f"{title}, {n} of 2", without) for n, without in enumerate(left_out(folders), 1)]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-vm", action="store_true", help="only the part for the virtual machine")
    parser.add_argument("arguments", nargs="*", help="more arguments for pytest")
    options = parser.parse_args()
    extra: list[str] = options.arguments
    whole, runner = host_has_cgroup2(), vm_runner()
    in_vm = runner is not None and (options.only_vm or not whole)
    said: list[str] = []
    ended: list[Ended] = []
    if not options.only_vm:
        ended += [shown(part, ROOT) for part in host_parts(extra, vm_follows=in_vm)]
    if in_vm and runner is not None:
        said += filter(None, [more_maps()])
        ended += at_once(vm_parts(runner, extra), ROOT, processors())
    elif not whole:
        said.append(
            "not run: tests marked needs_cgroup2 were skipped: this host's cgroup v2 lacks controllers and VM_RUNNER "
            "names no program; remedy: a host with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or VM_RUNNER=PATH "
            "make test"
        )
    if os.geteuid() != 0:
        said.append("not run: tests marked needs_root were skipped: remedy: make test as root")
    print("", *summary((one.verdict, one.status, one.output) for one in ended), *said, sep="\n", flush=True)
    return int(any(one.status for one in ended))


if __name__ == "__main__":
    sys.exit(main())
