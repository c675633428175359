"""What needs a memory controller and, for crun and systemd, a unified cgroup hierarchy: here, or in a virtual machine.

The virtual machine is whatever VM_RUNNER names (CONTRIBUTING.md). Times in one mean little: read its ratios.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.bars import Shown
from bench.ground import Ground, Part
from scripts.run_tests import host_has_cgroup2, vm_runner

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parents[2]
BOOT_SECONDS = 300
RUN_SECONDS = 0.2


def measure(ground: Ground) -> Part:
    title = "A whole cgroup v2"
    runners = "--runners" if ground.effort.vm_runners else "--no-runners"
    inside = [sys.executable, "-m", "bench.inside_vm", "--runs", str(ground.effort.vm_runs), runners]
    seconds = round(BOOT_SECONDS + RUN_SECONDS * ground.effort.vm_runs)
    runner = vm_runner()
    if host_has_cgroup2():
        command, where = inside, "on this host"
    elif runner is not None:
        command, where = [runner, "-t", str(seconds), "--", *inside], "in a virtual machine"
    else:
        why = "this host's cgroup v2 lacks the memory controller, and VM_RUNNER names no program"
        return Part(title, [Shown("dying", None, why)])
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip() or error.stdout.strip()).splitlines()[-1:]
        return Part(title, [_failed(f"{where}: exit status {error.returncode}: {' '.join(said)}")])
    except subprocess.TimeoutExpired:
        return Part(title, [_failed(f"{where}: no end after {seconds} s")])
    return part(json.loads(done.stdout.splitlines()[-1]), where)


def _failed(why: str) -> Shown:
    return Shown("dying", None, why, failed=True)


def part(told: dict[str, Any], where: str) -> Part:
    """From what inside_vm printed."""
    live, dying = told["live"], told["dying"]
    how = f"{where}: {dying} dying and {live} live after {told['runs']} runs that each wrote a file"
    shown = Shown("dying", dying / max(1, live), how, told)
    return Part(f"A whole cgroup v2, {where}", [shown], told["table"])
