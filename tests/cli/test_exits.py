"""The exit status says what ended the command."""

from __future__ import annotations

import pytest

from immured.cli.exits import explain, status_of


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_a_command_that_exits_gives_its_own_status(code: int) -> None:
    assert status_of("exited", code, None) == code


def test_a_signal_is_128_and_its_number() -> None:
    assert status_of("signaled", None, 11) == 139


def test_past_its_time_is_124() -> None:
    assert status_of("timeout", None, 9) == 124


@pytest.mark.parametrize("cause", ["cpu_time", "oom", "pids", "output_limit", "violation", "killed"])
def test_every_other_kill_of_ours_is_137(cause: str) -> None:
    assert status_of(cause, None, 9) == 137


def test_a_program_that_is_not_there_is_127() -> None:
    assert status_of("setup_failed", None, None, "executable_not_found") == 127


def test_a_program_that_cannot_be_executed_is_126() -> None:
    assert status_of("setup_failed", None, None, "not_executable") == 126


@pytest.mark.parametrize("failure", ["path_denied", "root_owned", "cwd_missing", "something_later", None])
def test_whatever_else_kept_it_from_running_is_125(failure: str | None) -> None:
    assert status_of("setup_failed", None, None, failure) == 125


def test_an_end_that_was_the_commands_own_needs_no_words() -> None:
    assert explain("exited") is None
    assert explain("signaled") is None


def test_an_end_by_a_limit_names_the_option_that_raises_it() -> None:
    explained = explain("oom")
    assert explained is not None
    assert "--memory" in explained[1]
