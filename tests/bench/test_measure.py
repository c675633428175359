"""Samples are taken in turn, and in the numbers asked for."""

from __future__ import annotations

import json
import sys
import time

import pytest

from bench.bars import Verdict, verdict
from bench.ground import Part
from bench.measure import block_size, burst, sporadic
from bench.programs import Answering
from bench.report import as_json, comparison
from bench.rows.calls import LEAST, added_by_explanation, parse
from bench.rows.dying import part
from bench.subjects import Sample
from bench.subjects.others import refusal
from bench.subjects.spawned import PROGRAM, Spawned, floor

SHELL = "/bin/sh"


class Logged(Spawned):
    """A spawned command that writes down when it was asked."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(name, list)
        self.log = log

    def run(self) -> Sample:
        self.log.append(self.name)
        return super().run()


def test_subjects_take_turns_block_by_block() -> None:
    log: list[str] = []
    with Logged("a", log) as first, Logged("b", log) as second:
        series = burst([first, second], runs=6, block=3)
    assert "".join(log[-12:]) == "aaabbbaaabbb"
    assert [len(one.walls) for one in series] == [6, 6]
    assert all(one.cpu > 0 and one.p50 > 0 for one in series)


def test_a_pause_is_not_part_of_a_run() -> None:
    with floor() as subject:
        began = time.monotonic_ns()
        (series,) = sporadic([subject], runs=5, pause=0.1)
        took = time.monotonic_ns() - began
    assert len(series.walls) == 5
    assert sum(series.walls) <= took - 5 * 100_000_000


@pytest.mark.parametrize(
    ("one_run_ns", "size"), [(1e6, 100), (2e7, 100), (4e7, 50), (1e9, 3)], ids=["quick", "just", "slow", "slowest"]
)
def test_a_slow_subject_has_smaller_blocks(one_run_ns: float, size: int) -> None:
    assert block_size(100, one_run_ns) == size


def test_runs_for_a_while_are_counted() -> None:
    program = floor().parent()
    try:
        program.ask("50")
        runs, took = program.answer()
    finally:
        program.end()
    assert runs >= 1
    assert took >= 50e6


def test_two_at_once_each_read_the_whole_program() -> None:
    words = [sys.executable, "-c", "import os, sys; sys.exit(os.read(int(sys.argv[1]), 9) != b'12345')", PROGRAM]
    subject = Spawned("reader", lambda command: [*words, *command], program=b"12345")
    programs = [subject.parent(), subject.parent()]
    try:
        for program in (*programs, *programs):
            program.ask()
            program.answer()
    finally:
        for program in programs:
            program.end()


def test_a_command_that_fails_is_no_sample(capfd: pytest.CaptureFixture[str]) -> None:
    with Spawned("broken", lambda _: ["/bin/false"]) as subject, pytest.raises(RuntimeError, match="broken failed"):
        subject.run()
    assert "did not end well" in capfd.readouterr().err


def test_a_refusal_is_in_the_tools_own_words() -> None:
    words = [SHELL, "-c", "echo first >&2; echo 'not on this host' >&2; exit 3"]
    assert refusal(Spawned("picky", lambda _: words)) == "not on this host"
    assert refusal(floor()) is None


def test_a_program_that_ends_is_told() -> None:
    program = Answering("silent", ["/bin/true"])
    try:
        with pytest.raises(RuntimeError, match="silent failed"):
            program.answer()
    finally:
        program.end()


def test_what_explanation_adds_is_not_what_opens_cost() -> None:
    here = parse("open-read 700 690\nopen-write 4200 3690\n")  # 100 dearer for both, and 3,400 for explaining
    there = parse("open-read 600 590\nopen-write 700 690\n")
    assert added_by_explanation([here], [there]) == pytest.approx(3.4)
    assert added_by_explanation([here], [there], LEAST) == pytest.approx(2.9)


def test_dying_cgroups_are_counted_against_live_ones() -> None:
    found = part({"live": 33, "dying": 2, "runs": 2000, "table": ""}, "on this host").shown[0]
    assert found.value == pytest.approx(2 / 33)
    assert found.how == "on this host: 2 dying and 33 live after 2000 runs that each wrote a file"
    leaking = part({"live": 1, "dying": 2000, "runs": 2000, "table": ""}, "on this host").shown[0]
    assert verdict(leaking) is Verdict.MISSED


def test_the_file_has_every_sample() -> None:
    with floor() as subject:
        series = burst([subject], runs=3, block=3)
    told = json.loads(as_json("a machine", [Part("one", series={"burst": series})]))
    assert told["series"]["burst"]["floor"]["wall_ns"] == series[0].walls
    assert "| floor | 3 |" in comparison("burst", series, "floor")
