"""Runs the whole suite on this host, and what meets the kernel once more in a virtual machine where this host's cgroups
are no full v2.

The virtual machine is whatever VM_RUNNER names: a program that runs `VM_RUNNER [-t SECONDS] [-e K=V] -- COMMAND` as
root beneath a full cgroup v2 hierarchy with the repository at its own path. Without it, and without controllers on the
host, the tests that need them are skipped by name (and fail in CI).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTROLLERS = frozenset({"cpu", "io", "memory", "pids"})
VM_SECONDS = 2400
# What no kernel changes: bytes, schemas, arithmetic, the build. The virtual machine takes twice the host's time.
NOT_IN_VM = (
    "bench", "cli/test_halves.py", "cli/test_untrusted.py", "core", "fuzz", "identity", "independent", "isolation",
    "ledger", "manifest", "packaging", "seccomp/test_compiler.py", "seccomp/test_libseccomp.py", "seccomp/test_oci.py",
    "seccomp/test_profile_files.py", "wire",
)  # fmt: skip


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


def step(title: str, command: list[str], environment: dict[str, str] | None = None) -> int:
    """Run one part of the suite and say how long it took; its exit status."""
    print(f"== {title}", flush=True)
    started = time.monotonic()
    status = subprocess.run(
        command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    ).returncode
    verdict = "passed" if status == 0 else f"exit {status}"
    print(f"== {title}: {verdict} in {time.monotonic() - started:.0f} s", flush=True)
    return status


def pytest(*arguments: str) -> list[str]:
    """A pytest command line, without a cache: the virtual machine would not bring it back."""
    return [sys.executable, "-m", "pytest", *arguments]


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
    failed = False

    if not options.only_vm:
        if os.environ.get("CI") == "true":
            failed |= step("ruff", [str(Path(sys.executable).with_name("ruff")), "check", "."]) != 0
            failed |= step("mypy", [sys.executable, "-m", "mypy"]) != 0
        follows = ["--vm-follows"] if in_vm else []
        failed |= step("the suite on this host", pytest(*follows, *extra)) != 0
        if os.environ.get("CI") == "true":
            sanitized = {"IMMURED_SANITIZE": "1"}
            failed |= (
                step("one cell, with address and undefined sanitizers", pytest("tests/warden", *follows), sanitized)
                != 0
            )
    if in_vm and runner is not None:
        environment = [f"-e{name}={os.environ[name]}" for name in ("CI",) if name in os.environ]
        inside = pytest("-p", "no:cacheprovider", *(f"--ignore=tests/{path}" for path in NOT_IN_VM), *extra)
        status = step(
            "what meets the kernel, in a virtual machine with cgroup v2",
            [runner, "-t", str(VM_SECONDS), *environment, "--", *inside],
        )
        failed |= status != 0
    elif not whole:
        said.append(
            "tests marked needs_cgroup2 were skipped: this host's cgroup v2 lacks controllers and VM_RUNNER names no "
            "program; remedy: a host with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or VM_RUNNER=PATH make test"
        )
    if os.geteuid() != 0:
        said.append("tests marked needs_root were skipped: remedy: make test as root")
    for line in said:
        print(f"not run: {line}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
