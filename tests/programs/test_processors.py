"""Which processors a run has: those that were asked for, no others, and as long as it asks for them alone, alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError

PYTHON = "/usr/bin/python3"
OURS = sorted(os.sched_getaffinity(0))
TELL = """
import json, os
def wide():
    try:
        os.sched_setaffinity(0, range(1024))
    except OSError as error:
        return error.errno
    return sorted(os.sched_getaffinity(0))
before = sorted(os.sched_getaffinity(0))
after = wide()
print(json.dumps([before, after, sorted(os.sched_getaffinity(0))]))
"""
HOLD = "import os, sys; print(*sorted(os.sched_getaffinity(0)), flush=True); sys.stdin.read()"


def limited(**limits: Any) -> dict[str, Any]:
    return {"schema": 1, "limits": limits}


def told(client: Client, **limits: Any) -> tuple[list[int], object, list[int]]:
    """Its processors, what asking for all there are comes to, and its processors after that."""
    result = client.run([PYTHON, "-c", TELL], manifest=limited(**limits)).check()
    before, answer, after = json.loads(result.stdout)
    return before, answer, after


@pytest.mark.parametrize("cores", [str(OURS[0]), str(OURS[-1]), ",".join(map(str, OURS))])
def test_a_run_has_the_processors_that_it_asks_for_and_cannot_take_others(client: Client, cores: str) -> None:
    asked = sorted(map(int, cores.split(",")))
    before, answer, after = told(client, cores=cores)
    assert before == after == asked
    assert answer in (1, asked)


@pytest.mark.parametrize("pin", [1, len(OURS)])
def test_a_run_has_as_many_processors_as_it_pins(client: Client, pin: int) -> None:
    before, _, after = told(client, pin=pin)
    assert before == after
    assert len(before) == pin
    assert set(before) <= set(OURS)


def test_processors_are_pinned_out_of_those_that_are_named(client: Client) -> None:
    assert told(client, cores=str(OURS[-1]), pin=1)[0] == [OURS[-1]]


def test_children_and_threads_have_no_others(client: Client) -> None:
    program = (
        "import os, subprocess, threading; ask = lambda: print(*os.sched_getaffinity(0), flush=True); ask();"
        "t = threading.Thread(target=ask); t.start(); t.join(); subprocess.run(['nproc'])"
    )
    result = client.run([PYTHON, "-c", program], manifest=limited(cores=str(OURS[0]))).check()
    assert result.stdout.decode().split() == [str(OURS[0]), str(OURS[0]), "1"]


def test_runs_that_pin_have_no_processor_in_common(client: Client) -> None:
    """As many as there are processors get one each; one more is told so, and gets one when another has ended."""
    manifest = limited(pin=1)
    held: list[int] = []
    # Each ends when its input does.
    ends = [os.pipe() for _ in OURS]
    runs = []
    for read, _ in ends:
        run = client.start([PYTHON, "-c", HOLD], manifest=manifest, fds={0: read})
        os.close(read)
        for _, data in run:
            if data.strip():
                held.append(int(data))
                break
        runs.append(run)
    try:
        assert sorted(held) == OURS
        late = client.run(["/bin/true"], manifest=manifest)
        assert (late.cause, (late.failure or {})["code"]) == ("setup_failed", "processors_taken")
        assert client.run(["/bin/true"]).ok, "who pins nothing is not kept out"
        assert client.run(["/bin/true"], manifest=limited(cores=str(OURS[0]))).ok
    finally:
        for _, write in ends:
            os.close(write)
        for run in runs:
            with run:
                for _ in run:
                    pass
    assert client.run(["/bin/true"], manifest=manifest).ok


def test_what_a_run_that_failed_had_pinned_is_free_when_its_reply_is_there(client: Client) -> None:
    manifest = limited(pin=len(OURS))
    for _ in range(400):
        failed = client.run(["/no/such/program"], manifest=manifest)
        assert (failed.failure or {})["code"] == "executable_not_found"


def test_what_a_run_pinned_is_free_when_its_reply_is_there(client: Client) -> None:
    manifest = limited(pin=len(OURS))
    assert [client.run(["/bin/true"], manifest=manifest).cause for _ in range(20)] == ["exited"] * 20


def test_what_a_killed_run_pinned_is_free_again(client: Client) -> None:
    manifest = {"schema": 1, "limits": {"pin": len(OURS), "wall": "200ms"}}
    assert [client.run(["/bin/sleep", "60"], manifest=manifest).cause for _ in range(3)] == ["timeout"] * 3


@pytest.mark.parametrize("limits", [{"cores": "1000-1023"}, {"pin": 1024}])
def test_processors_that_are_not_there_are_refused_before_anything_runs(client: Client, limits: dict[str, Any]) -> None:
    with pytest.raises(ImmuredError) as refused:
        client.run(["/bin/true"], manifest=limited(**limits))
    assert refused.value.code == "unsupported_limit"


def test_a_run_of_a_loaded_manifest_cannot_pin_by_itself(client: Client) -> None:
    with pytest.raises(ImmuredError) as refused:
        client.run(["/bin/true"], limits={"pin": 1})
    assert refused.value.code == "bad_argument"


def means_of(result: RunResult) -> set[str]:
    return {result.enforcement["cores"], result.enforcement["pin"]}


def test_the_means_are_named(client: Client) -> None:
    host = client.status()["host"]
    assert isinstance(host, dict)
    means = "cgroup cpuset.cpus" if "cpuset" in host["controllers"] else "affinity, kept by the filter"
    result = client.run(["/bin/true"], manifest=limited(cores=str(OURS[0]), pin=1)).check()
    assert means_of(result) == {means}


@pytest.mark.needs_cgroup2
def test_the_controller_is_handed_down_only_when_it_is_asked_for() -> None:
    with ThrowawayDaemon() as daemon, daemon.client() as client:
        host = client.status()["host"]
        assert isinstance(host, dict)
        tenants = Path(str(host["cgroup"]), "tenants", "cgroup.subtree_control")
        client.run(["/bin/true"]).check()
        assert "cpuset" not in tenants.read_text().split()
        client.run(["/bin/true"], manifest=limited(pin=1)).check()
        assert "cpuset" in tenants.read_text().split()


@pytest.mark.needs_cgroup2
def test_with_the_controller_a_run_may_choose_among_its_own_processors(client: Client) -> None:
    assert told(client, cores=str(OURS[0]))[1] == [OURS[0]]
