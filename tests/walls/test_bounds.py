"""Every limit ends what breaks it, with the measured cause, and the next run starts as if nothing had been."""

from __future__ import annotations

import os
import signal
import time

import pytest

from immured import Client, RunResult
from immured.errors import ImmuredError
from tests.patience import PATIENCE_S, until

PYTHON = "/usr/bin/python3"
HOG = "data = bytearray()\nwhile True: data += bytes(16 << 20)"
FORK_BOMB = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"


def python(client: Client, program: str, **limits: object) -> RunResult:
    return client.run([PYTHON, "-c", program], limits=limits or None)


def test_a_run_past_its_time_is_ended(client: Client) -> None:
    result = client.run(["/bin/sleep", "600"], limits={"wall": "300ms"})
    assert result.cause == "timeout"
    assert 300 <= result.usage["wall_ms"] < 60_000


def test_a_busy_loop_is_ended_by_its_cpu_time(client: Client) -> None:
    result = python(client, "while True: pass", cpu_time="300ms", wall="60s")
    assert result.cause == "cpu_time"
    assert result.usage["cpu_ms"] >= 250


def test_cpu_time_counts_the_whole_tree(client: Client) -> None:
    program = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    result = python(client, program, cpu_time="600ms", wall="60s")
    assert result.cause == "cpu_time"


def test_a_sleeper_is_not_ended_by_its_cpu_time(client: Client) -> None:
    result = client.run(["/bin/sleep", "0.6"], limits={"cpu_time": "300ms"})
    assert result.cause == "exited"


def test_a_signal_is_named(client: Client) -> None:
    result = client.run(["/bin/sh", "-c", "kill -SEGV $$"])
    assert (result.cause, result.signal) == ("signaled", signal.SIGSEGV)


def test_a_payload_that_kills_itself_is_not_taken_for_a_limit(client: Client) -> None:
    result = client.run(["/bin/sh", "-c", "kill -KILL $$"])
    assert (result.cause, result.signal) == ("signaled", signal.SIGKILL)


def test_output_past_its_limit_ends_the_run(client: Client) -> None:
    result = client.run(["/bin/sh", "-c", "yes"], limits={"output": "1M", "wall": "60s"})
    assert result.cause == "output_limit"
    assert len(result.stdout) <= 1 << 20


def test_a_grandchild_that_keeps_stdout_does_not_hold_the_reply(client: Client) -> None:
    begun = time.monotonic()
    manifest = {"schema": 1, "name": "inline", "limits": {"wall": "250s"}}
    result = client.run(["/bin/sh", "-c", "(sleep 280 &) ; echo done"], manifest=manifest)
    assert (result.cause, result.exit_code, result.stdout) == ("exited", 0, b"done\n")
    assert time.monotonic() - begun < PATIENCE_S


def test_a_daemonised_process_dies_with_its_run(client: Client) -> None:
    mark = f"3{os.getpid()}"  # a duration that no other process on this machine sleeps for
    client.run(["/bin/sh", "-c", f"setsid sleep {mark} >/dev/null 2>&1 & sleep 0.2"])
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _command(pid) == ["sleep", mark]]
    assert left == []


def test_the_number_of_open_files_is_bounded(client: Client) -> None:
    program = "import os\ntry:\n  while True: os.dup(0)\nexcept OSError as e: print(e.errno)"
    assert python(client, program, files=64).stdout == b"24\n"


def test_a_private_tmp_is_bounded(client: Client) -> None:
    result = client.run(
        ["/bin/sh", "-c", "head -c 50M /dev/zero > /tmp/big; stat -c %s /tmp/big"], limits={"disk": "8M"}
    )
    assert int(result.stdout) <= 8 << 20


def test_strict_is_refused_exactly_where_a_limit_has_weaker_means(client: Client) -> None:
    means = client.run(["/bin/true"], limits={"memory": "64M"}).enforcement["memory"]
    try:
        client.run(["/bin/true"], limits={"memory": "64M", "strict": True})
        refusal = ("", "")
    except ImmuredError as refused:
        refusal = (refused.code, str(refused))
    assert (refusal[0] == "weaker_enforcement" and "memory" in refusal[1]) == (means != "cgroup memory.max")


def test_a_memory_hog_ends_one_way_or_the_other(client: Client) -> None:
    """With the controller by `oom`; without it its own allocation fails. Never by taking the host's memory."""
    result = python(client, HOG, memory="64M", wall="60s")
    if result.enforcement["memory"] == "cgroup memory.max":
        assert result.cause == "oom"
    else:
        assert (result.cause, result.exit_code) == ("exited", 1)
        assert b"MemoryError" in result.stderr


def test_a_fork_bomb_is_contained_and_the_next_runs_start_as_fast(client: Client) -> None:
    client.run(["/bin/true"])
    before = min(_seconds(client) for _ in range(5))
    result = python(client, FORK_BOMB, pids=32, wall="3s")
    assert result.cause in ("pids", "timeout")
    until(lambda: _seconds(client) < 10 * before + 0.1)  # one that is not held up by the host


@pytest.mark.needs_cgroup2
def test_the_out_of_memory_killer_is_named_and_counted(client: Client) -> None:
    result = python(client, HOG, memory="64M", wall="60s")
    assert result.cause == "oom"
    assert result.usage["memory_peak_bytes"] >= 60 << 20


@pytest.mark.needs_cgroup2
def test_out_of_memory_takes_the_whole_tree(client: Client) -> None:
    result = python(client, f"import os\nif os.fork():\n  os.wait()\n  os._exit(0)\n{HOG}", memory="64M", wall="60s")
    assert result.cause == "oom"


@pytest.mark.needs_cgroup2
def test_a_fork_bomb_ends_with_pids(client: Client) -> None:
    assert python(client, FORK_BOMB, pids=32, wall="60s").cause == "pids"


@pytest.mark.needs_cgroup2
def test_the_pids_limit_counts_payload_tasks_alone(client: Client) -> None:
    program = "import subprocess\nassert subprocess.run(['/bin/true']).returncode == 0"
    assert python(client, program, pids=2).exit_code == 0


@pytest.mark.needs_cgroup2
def test_half_a_cpu_is_half_a_cpu(client: Client) -> None:
    result = python(client, "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass", cpus=0.5)
    assert result.usage["cpu_ms"] <= 0.7 * result.usage["wall_ms"]


@pytest.mark.needs_cgroup2
def test_every_limit_has_its_full_means(client: Client) -> None:
    result = client.run(["/bin/true"], limits={"memory": "64M", "pids": 8, "strict": True})
    assert result.exit_code == 0


def _seconds(client: Client) -> float:
    begun = time.monotonic()
    assert client.run(["/bin/true"]).exit_code == 0
    return time.monotonic() - begun


def _command(pid: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            return [word.decode(errors="replace") for word in line.read().split(b"\0") if word]
    except OSError:
        return []
