"""Parts that run side by side: what each said is shown whole, and how each ended counts."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from scripts.parts import Part, at_once, shown


def part(title: str, code: str) -> Part:
    return Part(title, (sys.executable, "-c", code))


def test_they_run_at_the_same_time_and_speak_one_after_the_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    meet = """if True:
        import pathlib, sys, time
        mine, other = map(pathlib.Path, {})
        for n in range(3):
            print(mine.name, n, flush=True)
            mine.with_suffix(f".{{n}}").touch()
            end = time.monotonic() + 120
            while not other.with_suffix(f".{{n}}").exists():
                assert time.monotonic() < end
                time.sleep(0.01)
    """
    one, two = tmp_path / "one", tmp_path / "two"
    parts = [part("one", meet.format([str(one), str(two)])), part("two", meet.format([str(two), str(one)]))]
    ended = at_once(parts, tmp_path, 2)
    assert [one.status for one in ended] == [0, 0]
    said = capfd.readouterr().out
    assert "one 0\none 1\none 2\n" in said
    assert said.index("one 2") < said.index("two 0")
    assert "two 0\ntwo 1\ntwo 2\n" in said


def test_more_than_may_run_at_once_take_turns(tmp_path: Path) -> None:
    there = tmp_path / "there"
    first = part("first", f"import pathlib, time; time.sleep(0.5); pathlib.Path({str(there)!r}).touch()")
    second = part("second", f"import pathlib, sys; sys.exit(not pathlib.Path({str(there)!r}).exists())")
    assert [one.status for one in at_once([first, second], tmp_path, 1)] == [0, 0]


@pytest.mark.parametrize("failing", [0, 1])
def test_either_can_fail(tmp_path: Path, failing: int) -> None:
    parts = [part(str(n), f"import sys; print('said', {n}); sys.exit({3 if n == failing else 0})") for n in range(2)]
    ended = at_once(parts, tmp_path, 2)
    assert [one.status for one in ended] == [3 if n == failing else 0 for n in range(2)]
    assert [one.output for one in ended] == ["said 0\n", "said 1\n"]
    assert f"== {failing}: exit 3 in" in ended[failing].verdict


def test_what_is_left_behind_holds_nobody_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    left = tmp_path / "left"
    leaves = (
        "import pathlib, subprocess; one = subprocess.Popen(['sleep', '1000'])\n"
        f"pathlib.Path({str(left)!r}).write_text(str(one.pid)); print('done')"
    )
    ended = shown(part("leaves", leaves), tmp_path)
    os.kill(int(left.read_text()), signal.SIGKILL)  # it is there still
    assert (ended.status, ended.output) == (0, "done\n")
    assert "done\n" in capfd.readouterr().out
