"""What `make crash` makes of one of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.__main__ import kill_writers, passed


def test_a_part_that_fails_is_said_with_what_it_leaves_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    given: list[Path] = []

    def fails(directory: Path) -> None:
        given.append(directory)
        raise AssertionError("a sandbox has no end")

    try:
        assert not passed("something", fails)
        said = capsys.readouterr()
        assert "a sandbox has no end" in said.err
        assert str(given[0]) in said.out
        assert given[0].is_dir()
    finally:
        given[0].rmdir()


def test_a_few_kills_of_a_writer_are_counted_and_nothing_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    given: list[Path] = []

    def kills(directory: Path) -> object:
        given.append(directory)
        return kill_writers(directory, 3)

    assert passed("something", kills)
    assert '"kills": 3' in capsys.readouterr().out
    assert not given[0].exists()


def test_a_writer_that_cannot_begin_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    with pytest.raises(Exception, match="exit status"):
        kill_writers(tmp_path, 3)
