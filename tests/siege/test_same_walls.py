"""An exec's walls are a run's: what the kernel says of the two differs in nothing but whose id range it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from immured import Client
from immured.client.sandbox import Sandbox
from tests.siege.inside import program

pytestmark = pytest.mark.needs_root

LOOKS = """
import ctypes, json, os
libc = ctypes.CDLL(None)

def read(name):
    with open(f"/proc/self/{name}") as file:
        return file.read()

status = dict(line.split(":\\t", 1) for line in read("status").splitlines() if ":\\t" in line)
kept = ("Umask Uid Gid Groups TracerPid SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb "
        "NoNewPrivs Seccomp Seccomp_filters Speculation_Store_Bypass Cpus_allowed Mems_allowed")
descriptors = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
print(json.dumps({
    "status": {key: status.get(key) for key in kept.split()},
    "limits": read("limits"),
    "mounts": [line.split()[3:6] + line.split(" - ")[1].split()[:1] for line in read("mountinfo").splitlines()],
    "oom_score_adj": read("oom_score_adj"),
    "cgroup": [line for line in read("cgroup").splitlines() if line.startswith("0::")],
    "setgroups": read("setgroups"),
    "clocks": read("timens_offsets") if os.path.exists("/proc/self/timens_offsets") else "",
    "descriptors": {fd: os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in descriptors},
    "attributes": [libc.prctl(number, 0, 0, 0, 0) for number in (3, 27, 30, 39, 42)],
    "nice": [os.nice(0), os.sched_getscheduler(0), libc.personality(0xFFFFFFFF)],
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid(), os.getppid()],
    "environment": dict(os.environ),
    "place": [os.getcwd(), sorted(os.listdir("/")), sorted(os.listdir("/dev")), sorted(os.listdir("/proc/sys"))],
    "others": [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()],
}))
"""


def first(sandbox: Sandbox) -> bytes:
    return sandbox.exec(program(LOOKS)).stdout


def later(sandbox: Sandbox) -> bytes:
    """By the warden that was made ahead of need, after an exec with limits, files and words of its own."""
    before = {"limits": {"files": 64, "wall": "9s"}, "env": {"HOME": "/dev/shm"}, "cwd": "/dev", "stdin": b"x"}
    sandbox.exec(["/bin/cat"], **before)  # type: ignore[arg-type]
    return sandbox.exec(program(LOOKS)).stdout


def kept(sandbox: Sandbox) -> bytes:
    one = sandbox.start(program(LOOKS), stdin=b"")
    one.wait()
    return one.logs().output


@pytest.mark.parametrize("way", [first, later, kept])
def test_an_exec_stands_behind_what_a_run_stands_behind(client: Client, way: Callable[[Sandbox], bytes]) -> None:
    run: dict[str, Any] = json.loads(client.run(program(LOOKS)).stdout)
    with client.sandbox() as sandbox:
        found: dict[str, Any] = json.loads(way(sandbox))
    if way is kept:
        run["descriptors"]["0"] = found["descriptors"]["0"]  # a pipe, or nothing
    assert {key: value for key, value in found.items() if value != run[key]} == {}
