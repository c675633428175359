"""The launcher's report as a result's fields."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from immured.isolation.abi import BindFlag, Cause, Measured, Op, Stage
from immured.isolation.messages import Exited, Failed
from immured.isolation.outcome import failure_fields, result_fields
from immured.isolation.plan import Step

ALL = Measured.CPU | Measured.MEMORY | Measured.PIDS | Measured.IO
DONE = Exited(Cause.EXITED, ALL, os.CLD_EXITED, 3, wall_ns=1_400_000, cpu_user_ns=600_000, cpu_system_ns=500_000)
STEPS = (
    Step(Op.BIND, (0,), (b"/srv/data", b"/data")),
    Step(Op.EXEC, (1,), (b"/work", b"/bin/nothing")),
    Step(Op.FILE, (0o644,), (b"/tmp/given", b"what is in it")),
)


def test_an_exit_status_is_an_exit_code() -> None:
    found = result_fields(DONE)
    assert (found["cause"], found["exit_code"], "signal" in found) == ("exited", 3, False)


@pytest.mark.parametrize("si_code", [os.CLD_KILLED, os.CLD_DUMPED])
def test_a_death_by_signal_is_a_signal(si_code: int) -> None:
    found = result_fields(replace(DONE, cause=Cause.SIGNALED, si_code=si_code, si_status=11))
    assert (found["cause"], found["signal"], "exit_code" in found) == ("signaled", 11, False)


@pytest.mark.parametrize(
    ("cause", "word"),
    [
        (Cause.TIMEOUT, "timeout"),
        (Cause.CPU_TIME, "cpu_time"),
        (Cause.OOM, "oom"),
        (Cause.PIDS, "pids"),
        (Cause.OUTPUT_LIMIT, "output_limit"),
        (Cause.KILLED, "killed"),
    ],
)
def test_a_cause_is_the_contracts_word(cause: Cause, word: str) -> None:
    assert result_fields(replace(DONE, cause=cause))["cause"] == word


def test_times_are_rounded_to_milliseconds() -> None:
    assert result_fields(DONE)["usage"] == {
        "wall_ms": 1,
        "max_rss_bytes": 0,
        "cpu_ms": 1,
        "cpu_user_ms": 1,
        "cpu_system_ms": 1,
        "memory_peak_bytes": 0,
        "pids_peak": 0,
        "io_read_bytes": 0,
        "io_written_bytes": 0,
    }


def test_what_was_not_measured_is_not_there() -> None:
    assert result_fields(replace(DONE, measured=Measured(0)))["usage"] == {"wall_ms": 1, "max_rss_bytes": 0}


def test_what_happened_beside_the_cause_is_counted() -> None:
    report = replace(DONE, oom_kills=1, oom_events=2, pids_max_events=5, stragglers=1)
    assert result_fields(report)["events"] == {"oom": 2, "oom_kill": 1, "pids_max": 5, "stragglers": True}


def test_nothing_happened_is_nothing() -> None:
    assert result_fields(DONE)["events"] == {}


def test_killed_before_it_began_is_killed() -> None:
    assert result_fields(Failed(Stage.KILLED, None, 0, ""))["cause"] == "killed"


@pytest.mark.parametrize(
    ("stage", "step", "error", "code", "path"),
    [
        (Stage.OPEN, 0, errno.EACCES, "path_denied", "/srv/data"),
        (Stage.OPEN, 0, errno.ENOENT, "path_missing", "/srv/data"),
        (Stage.OPEN, 0, errno.ELOOP, "path_missing", "/srv/data"),
        (Stage.DEADLINE, 0, 0, "path_timeout", "/srv/data"),
        (Stage.PATH_KIND, 0, 0, "path_kind", "/srv/data"),
        (Stage.ROOT_OWNED, 0, 0, "root_owned", "/srv/data"),
        (Stage.IDMAP, 0, errno.EINVAL, "idmap_unsupported", "/srv/data"),
        (Stage.TARGET, 0, errno.EROFS, "target_invalid", "/data"),
        (Stage.EXEC, 1, errno.ENOENT, "executable_not_found", "/bin/nothing"),
        (Stage.EXEC, 1, errno.EACCES, "not_executable", "/bin/nothing"),
        (Stage.EXEC, 1, errno.ENOEXEC, "not_executable", "/bin/nothing"),
        (Stage.EXEC, 1, errno.ENOMEM, "setup_failed", "/bin/nothing"),
        (Stage.EXEC, 1, errno.E2BIG, "setup_failed", "/bin/nothing"),
        (Stage.CWD, 1, errno.ENOENT, "cwd_missing", "/work"),
        (Stage.MOUNT, 0, errno.ENOMEM, "setup_failed", "/srv/data"),
        (Stage.FILE, 2, errno.EEXIST, "target_invalid", "/tmp/given"),
        (Stage.FILE, 2, errno.EACCES, "target_invalid", "/tmp/given"),
        (Stage.FILE, 2, errno.EROFS, "target_invalid", "/tmp/given"),
        (Stage.FILE, 2, errno.ENOSPC, "setup_failed", "/tmp/given"),
    ],
)
def test_a_failure_has_its_code_and_its_path(stage: Stage, step: int, error: int, code: str, path: str) -> None:
    failure = failure_fields(Failed(stage, step, error, ""), STEPS)
    assert (failure["code"], failure["path"]) == (code, path)


@pytest.mark.parametrize("op", [Op.BIND, Op.CAPTURE])
def test_a_link_that_leads_out_is_said_to(op: Op) -> None:
    sizes = (1, 1) if op is Op.CAPTURE else ()
    beneath = Step(op, (int(BindFlag.BENEATH | BindFlag.WRITE), *sizes), (b"/home/u/way", b"/w", b"/home"))
    granted = Step(op, (int(BindFlag.GRANTED), *sizes), (b"/srv/way", b"/w"))
    found = failure_fields(Failed(Stage.OPEN, 0, errno.EXDEV, "/home/u/way: Invalid cross-device link"), (beneath,))
    assert found["message"] == "/home/u/way: a symbolic link below /home is absolute, or leads out of there"
    assert (found["code"], found["path"]) == ("path_denied", "/home/u/way")
    found = failure_fields(Failed(Stage.OPEN, 0, errno.EXDEV, "/srv/way: Invalid cross-device link"), (granted,))
    assert found["message"] == (
        "/srv/way: a symbolic link below the directory that the operator granted is absolute, or leads out of there"
    )


@pytest.mark.parametrize(("error", "code"), [(errno.EBUSY, "processors_taken"), (0, "setup_failed")])
def test_processors_that_others_hold_are_told_from_those_that_went_away(error: int, code: str) -> None:
    assert failure_fields(Failed(Stage.PROCESSORS, None, error, ""), STEPS)["code"] == code


def test_what_was_replaced_while_a_run_was_set_up_is_a_reason_to_try_again() -> None:
    failed = Failed(Stage.MOUNT, None, errno.ESTALE, "what the plan covers was replaced meanwhile")
    failure = failure_fields(failed, STEPS)
    assert failure["code"] == "setup_failed"
    assert str(failure["remedy"]).startswith("try again")


def test_a_failure_in_the_cell_names_no_path() -> None:
    assert "path" not in failure_fields(Failed(Stage.CELL, None, errno.EAGAIN, "clone"), STEPS)


def test_a_failure_without_an_errno_has_none() -> None:
    assert "errno" not in failure_fields(Failed(Stage.DEADLINE, 0, 0, ""), STEPS)


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_a_message_and_a_remedy(stage: Stage) -> None:
    failure = failure_fields(Failed(stage, None, errno.EIO, ""), STEPS)
    assert failure["message"]
    assert failure["remedy"]


def test_a_message_names_the_path_and_the_reason_once() -> None:
    said = failure_fields(Failed(Stage.OPEN, 0, errno.EACCES, "/srv/data: Permission denied"), STEPS)["message"]
    assert said == "/srv/data: Permission denied"


def test_a_message_without_words_is_made_of_the_path_and_the_reason() -> None:
    said = failure_fields(Failed(Stage.OPEN, 0, errno.EACCES, ""), STEPS)["message"]
    assert said == "/srv/data: Permission denied"
