"""What is sent for sandboxes and execs, and what the answers come to."""

from __future__ import annotations

import pytest

from immured.client import Terminal
from immured.client import sandbox_questions as questions
from immured.client.outcome import Answer
from immured.errors import Refused

ROW = {"sandbox": "s1", "state": "ready", "labels": {"a": "b"}, "created_ms": 1, "expires_ms": 2, "execs": 0}


def test_a_sandbox_is_asked_for_with_what_was_given_and_no_more() -> None:
    asked = questions.create(name="dev", ttl="30m", limits={"cpus": 1.5}, labels={"a": "b"}, env=None)
    assert (asked.cmd, asked.args) == (
        "sandbox.create", {"name": "dev", "ttl_ms": 1_800_000, "limits": {"cpus": "1.5"}, "labels": {"a": "b"}},
    )  # fmt: skip


def test_a_sandboxs_manifest_is_filled_in_with_what_was_given() -> None:
    assert questions.create(parameters={"project": "/srv/p"}).args == {"parameters": {"project": "/srv/p"}}


def test_of_many_the_count_is_said() -> None:
    assert questions.create(count=3).args == {"count": 3}


@pytest.mark.parametrize(("duration", "expected"), [(90, 90_000), (0.5, 500), ("1.5h", 5_400_000), ("1ns", 1)])
def test_durations(duration: float | str, expected: int) -> None:
    assert questions.milliseconds(duration) == expected


def test_what_is_no_duration_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="unit"):
        questions.extend("s1", "soon")


@pytest.mark.parametrize("signal", [15, "15", "TERM", "SIGTERM", "term"])
def test_signals_by_number_and_name(signal: int | str) -> None:
    assert questions.signal("s1", "e1", signal).args == {"sandbox": "s1", "exec": "e1", "signal": 15}


def test_a_signal_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is no signal NOPE"):
        questions.signal("s1", "e1", "NOPE")


def test_an_exec_on_a_terminal_is_streamed_and_has_one_stream() -> None:
    order = questions.exec_order("s1", ["bash"], terminal=Terminal(5, 6, "vt100"))
    assert order.cmd == "sandbox.exec"
    assert order.args == {
        "sandbox": "s1", "argv": ["bash"], "stream": True, "terminal": {"rows": 5, "columns": 6, "term": "vt100"},
    }  # fmt: skip
    assert order.streamed == {"stdout"}


def test_a_detached_exec_streams_nothing() -> None:
    asked = questions.start("s1", ["sleep", "1"], stdin=b"in", terminal=Terminal())
    assert asked.args["detach"] is True
    assert "stream" not in asked.args
    assert asked.args["stdin"] == b"in"


@pytest.mark.parametrize("stdin", [b"x" * 300_000])
def test_a_detached_exec_s_input_fits_its_command(stdin: bytes) -> None:
    with pytest.raises(ValueError, match="attach to feed"):
        questions.start("s1", ["cat"], stdin=stdin)


def test_an_attachment_says_where_it_begins_and_whether_it_feeds() -> None:
    assert questions.attach_order("s1", "e1").args == {"sandbox": "s1", "exec": "e1"}
    assert questions.attach_order("s1", "e1", start=7, stdin=b"").args == {
        "sandbox": "s1", "exec": "e1", "from": 7, "input": True,
    }  # fmt: skip
    waiting = questions.attach_order("s1", "e1", output=False)
    assert (waiting.args["output"], waiting.streamed) == (False, frozenset())


def test_rows_are_typed_and_kept_as_they_came() -> None:
    facts = questions.show("s1").read(Answer({**ROW, "later": 1}, None, None))
    assert (facts.id, facts.name, facts.labels, facts.live, facts.raw["later"]) == ("s1", None, {"a": "b"}, True, 1)


@pytest.mark.parametrize("row", [{}, {"sandbox": 5, "state": "ready"}, {"sandbox": "s1"}])
def test_a_row_that_is_none_is_not_believed(row: dict[str, object]) -> None:
    with pytest.raises(Refused, match="bad_reply"):
        questions.show("s1").read(Answer(row, None, None))


def test_a_page_of_a_log() -> None:
    page = questions.logs("s1", "e1", 4).read(
        Answer(
            {
                "from": 10, "next": 15, "lost": 6, "live": True,
                "records": [
                    {"time_ms": 1, "stream": "stdout", "data": b"abc"},
                    {"time_ms": 2, "stream": "stderr", "data": b"de"},
                ],
            },
            None, None,
        )
    )  # fmt: skip
    assert (page.start, page.next, page.lost, page.live, page.output, page.of("stderr")) == (
        10, 15, 6, True, b"abcde", b"de",
    )  # fmt: skip
