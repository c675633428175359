"""A test that hangs is one failure, with a name and stacks; one that nothing interrupts ends the run and says where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scripts.summary import summary

ROOT = Path(__file__).parents[2]
HANGING = """
import gc, os, socket, threading

def wait_for_nobody():
    os.read(THEIRS, 1)

def wait_for_ever():
    os.read(OURS, 1)

# For the life of the process: whatever it leaves unclosed would fail the test in which it is collected.
OURS, THEIRS = (end.detach() for end in socket.socketpair())

def {name}():
    {caught}
    threading.Thread(target=wait_for_nobody, daemon=True).start()
    wait_for_ever()

def test_next():
    gc.collect()
"""


def run(folder: Path, source: str, *options: str) -> tuple[int, str]:
    """A run of one file under this repository's own configuration, and all that it said."""
    file = folder / "test_hanging.py"
    file.write_text(source)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), *options, str(file)],
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},  # else what failed is cut off
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


def test_it_fails_by_name_with_every_stack_and_the_rest_runs(tmp_path: Path) -> None:
    hanging = HANGING.format(name="test_waits", caught="")
    status, said = run(tmp_path, hanging, "-o", "timeout=6")
    assert status == 1
    assert "test_next PASSED" in said
    assert "in wait_for_nobody" in said  # the other thread
    assert "os.read(OURS, 1)" in said  # and its own
    lines = summary([("== the suite: exit 1 in 3 s", status, said)])
    assert any("FAILED" in line and "::test_waits" in line and "Timeout" in line for line in lines)
    assert any("test_hanging.py:" in line for line in lines)  # where it was
    assert "1 failed, 1 passed" in lines[-1]


def test_one_that_cannot_be_interrupted_ends_the_run_and_says_where(tmp_path: Path) -> None:
    deaf = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])"
    hanging = HANGING.format(name="test_is_deaf", caught=deaf)
    status, said = run(tmp_path, hanging, "-o", "timeout=1", "-o", "faulthandler_timeout=3")
    assert status != 0
    assert "test_next PASSED" not in said
    lines = summary([("== the suite: exit 1 in 3 s", status, said)])
    assert any("::test_is_deaf" in line for line in lines)
    assert any("in wait_for_nobody" in line for line in lines)
    assert any("in test_is_deaf" in line for line in lines)
    assert not any("site-packages" in line for line in lines)


def test_what_ended_with_no_word_is_known_by_its_last_ones() -> None:
    said = "tests/a/test_b.py::test_c PASSED [ 50%]\ntests/a/test_b.py::test_d \ntimed out after 9 s\n"
    lines = summary([("== one: passed in 1 s", 0, "= 1 passed in 1.00s =\n"), ("== two: exit 124 in 9 s", 124, said)])
    assert lines[0] == "== one: passed in 1 s"
    assert [line.strip() for line in lines[-2:]] == ["tests/a/test_b.py::test_d", "timed out after 9 s"]


def test_a_header_without_stacks_is_shown_with_the_test_before_it() -> None:
    said = "tests/a/test_b.py::test_c PASSED [ 50%]\ntests/a/test_b.py::test_d Timeout (0:10:00)!\nrunner: timed out\n"
    lines = [line.strip() for line in summary([("== vm: exit 124 in 9 s", 124, said)])]
    assert "tests/a/test_b.py::test_d Timeout (0:10:00)!" in lines
    assert lines[-1] == "runner: timed out"


def test_many_failures_are_counted() -> None:
    said = "".join(f"FAILED tests/a/test_b.py::test_{n} - assert\n" for n in range(40)) + "= 40 failed in 1.00s =\n"
    lines = summary([("== vm: exit 1 in 9 s", 1, said)])
    assert len(lines) < 20
    assert lines[-2].strip() == "... and 32 more"
