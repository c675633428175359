"""What a judge reads off a result: processor time, wall time and memory, against what the program knows itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from immured import Client, RunResult

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def burn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/programs/burn.c as a program that starts in no time."""
    program = tmp_path_factory.mktemp("native") / "burn"
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", program, HERE / "burn.c"], check=True)
    return program


def run(client: Client, burn: Path, *arguments: int) -> RunResult:
    seen = {"read": [{"path": str(burn), "target": "/opt/burn"}]}
    return client.run(["/opt/burn", *map(str, arguments)], manifest={"schema": 1, "filesystem": seen})


def check(result: RunResult, expected_ms: float) -> None:
    """Within five per cent and 5 ms of what was to be used, and of what the program saw used."""
    assert result.ok, (result, result.stderr)
    itself = int(result.stdout) / 1000
    reported = result.usage["cpu_ms"]
    assert expected_ms * 0.95 - 5 <= reported
    assert itself * 0.95 - 5 <= reported <= itself * 1.05 + 5


@pytest.mark.parametrize("milliseconds", [20, 100, 500])
def test_processor_time_is_what_was_used(client: Client, burn: Path, milliseconds: int) -> None:
    check(run(client, burn, milliseconds), milliseconds)


def test_the_time_of_all_threads_counts(client: Client, burn: Path) -> None:
    check(run(client, burn, 100, 4), 400)


def test_the_time_of_all_children_counts(client: Client, burn: Path) -> None:
    check(run(client, burn, 100, 1, 3), 400)


def test_the_time_of_children_that_nobody_waits_for_counts(client: Client) -> None:
    program = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        while time.process_time() < 0.2: pass
        os._exit(0)
time.sleep(0.1)
while any(state in "RD" for state in (open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
          for pid in os.listdir("/proc") if pid.isdigit() and int(pid) > os.getpid())):
    time.sleep(0.01)
"""
    result = client.run([PYTHON, "-c", program]).check()
    assert 400 <= result.usage["cpu_ms"] <= 4000


def test_user_and_system_time_add_up(client: Client, burn: Path) -> None:
    usage = run(client, burn, 200).usage
    assert abs(usage["cpu_user_ms"] + usage["cpu_system_ms"] - usage["cpu_ms"]) <= 2


def test_sleeping_takes_wall_time_and_no_processor(client: Client) -> None:
    usage = client.run(["/bin/sleep", "2"]).check().usage
    assert usage["wall_ms"] >= 2000
    assert usage["cpu_ms"] < 500


def test_wall_time_is_what_the_program_sees_pass(client: Client) -> None:
    program = "import time; a = time.monotonic(); time.sleep(0.3); print((time.monotonic() - a) * 1000)"
    result = client.run([PYTHON, "-c", program]).check()
    assert result.usage["wall_ms"] >= float(result.stdout)


@pytest.mark.needs_cgroup2
def test_the_peak_of_memory_is_what_was_written(client: Client) -> None:
    program = "data = bytearray(96 << 20)\nfor i in range(0, len(data), 4096): data[i] = 1"
    # Who first reads a file from the disk has its pages counted as his: six MiB, after others had used the memory up.
    idle = min(client.run([PYTHON, "-c", "pass"]).check().usage["memory_peak_bytes"] for _ in range(3))
    peak = client.run([PYTHON, "-c", program]).check().usage["memory_peak_bytes"]
    assert 95 << 20 <= peak - idle <= 104 << 20


@pytest.mark.needs_cgroup2
def test_the_peak_of_memory_is_that_of_all_processes_together(client: Client) -> None:
    program = """
import os
ready, go = os.pipe(), os.pipe()
for _ in range(4):
    if os.fork() == 0:
        data = bytearray(16 << 20)
        for i in range(0, len(data), 4096): data[i] = 1
        os.write(ready[1], b"r"); os.close(go[1]); os.read(go[0], 1); os._exit(0)
for _ in range(4): os.read(ready[0], 1)
"""
    peak = client.run([PYTHON, "-c", program]).check().usage["memory_peak_bytes"]
    assert 64 << 20 <= peak <= 128 << 20


@pytest.mark.needs_cgroup2
def test_the_peak_of_memory_counts_files_in_tmp(client: Client) -> None:
    peak = client.run(["/bin/sh", "-c", "head -c 48M /dev/zero > /tmp/f"]).check().usage["memory_peak_bytes"]
    assert 48 << 20 <= peak <= 64 << 20
