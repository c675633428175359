"""`immure batch`: lines in, lines out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured.cli.batch import parse_lines
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError
from tests.cli.conftest import PYTHON, say


@pytest.fixture(scope="module")
def state() -> Iterator[str]:
    with ThrowawayDaemon() as daemon:
        yield str(daemon.state)


def lines(out: bytes) -> dict[int, dict[str, Any]]:
    return {row["run"]: row for row in map(json.loads, out.splitlines())}


@pytest.mark.needs_root
def test_a_line_in_is_a_line_out(state: str, entry: list[str], tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(
        '["/bin/true"]\n\n{"id": "b", "argv": ["/bin/sh", "-c", "cat; exit 3"], "stdin": {"b64": "/w=="}}\n'
        '{"id": {"n": 3}, "argv": ["/usr/bin/env"], "env": {"A": "b"}, "limits": {"cpus": 0.5}}\n'
    )
    status, out, err = say([*entry, "batch", "--state", state, "--wall", "20s", "--env", "A=a", str(file)])
    rows = lines(out)
    assert status == 1, err
    assert [rows[index].get("id") for index in range(3)] == [None, "b", {"n": 3}]
    assert (rows[0]["cause"], rows[0]["exit_code"]) == ("exited", 0)
    assert (rows[1]["exit_code"], rows[1]["stdout"]) == (3, {"b64": "/w=="})
    assert "A=b" in rows[2]["stdout"]
    assert err.decode() == "immure: note: 3 runs: 3 exited\n"


@pytest.mark.needs_root
def test_all_well_is_zero_and_input_may_be_standard_input(state: str) -> None:
    status, out, err = say([*PYTHON, "batch", "-q", "--state", state, "-"], stdin=b'["/bin/true"]\n' * 30)
    assert (status, err) == (0, b"")
    assert sorted(lines(out)) == list(range(30))


@pytest.mark.needs_root
def test_a_refusal_is_125_and_names_the_run(state: str) -> None:
    stdin = b'["/bin/true"]\n{"argv": ["/bin/true"], "limits": {"wall": "never"}}\n'
    status, out, err = say([*PYTHON, "batch", "--state", state, "-"], stdin=stdin)
    assert (status, out) == (125, b"")
    assert b"run 1: " in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 2"),
        (b'"/bin/true"', "neither a list"),
        (b'{"argv": ["a"], "limit": {}}', "no field 'limit'"),
        (b'{"argv": ["a"], "argv": ["b"]}', "twice"),
        (b"[]", "argv"),
        (b"[1]", "argv"),
        (b'{"stdin": "x"}', "argv"),
        (b'{"argv": ["a"], "stdin": 3}', "stdin"),
        (b'{"argv": ["a"], "files": {"/x": 3}}', "files"),
        (b'{"argv": ["a"], "stdin": {"b64": "?"}}', "b64"),
        (b"[" * 100_000, "line 2"),
        (b"\xff", "line 2"),
    ],
)
def test_a_line_that_is_none_is_named(line: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_lines([b'["a"]', line], "runs.jsonl")


def test_no_line_is_no_batch() -> None:
    with pytest.raises(ConfigurationError, match="no run"):
        parse_lines([b"", b" "], "-")
