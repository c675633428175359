"""Paths as a person types them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immured.cli.paths import Bound, inside, parse_bound, prepare_writable
from immured.errors import ConfigurationError

HERE = Path("/home/alice/project")


@pytest.mark.parametrize(
    ("typed", "source", "target"),
    [
        (".", "/home/alice/project", "/home/alice/project"),
        ("out", "/home/alice/project/out", "/home/alice/project/out"),
        ("../data/", "/home/alice/data", "/home/alice/data"),
        ("/srv/data", "/srv/data", "/srv/data"),
        ("data:/data", "/home/alice/project/data", "/data"),
        ("/srv/a:b", "/srv/a:b", "/srv/a:b"),
        ("/srv/a:b:/c/./d", "/srv/a:b", "/c/d"),
        ("//srv", "//srv", "//srv"),
    ],
)
def test_a_path_becomes_absolute_and_stands_at_the_same_place_unless_told(typed: str, source: str, target: str) -> None:
    assert parse_bound(typed, HERE) == Bound(source, target)


@pytest.mark.parametrize("typed", ["", ":/inside"])
def test_no_path_is_named_as_such(typed: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_bound(typed, HERE)
    assert refused.value.code == "bad_path"


def test_a_name_that_is_not_utf8_travels_as_bytes() -> None:
    bound = parse_bound(b"/srv/\xff".decode(errors="surrogateescape"), HERE)
    assert bound.as_manifest() == b"/srv/\xff"


def test_a_path_at_another_place_names_both() -> None:
    assert Bound("/a", "/b").as_manifest() == {"path": "/a", "target": "/b"}


def test_where_we_stand_is_where_it_is_seen_inside(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert inside(tmp_path / "sub", [Bound(str(tmp_path), "/app")]) == "/app/sub"


def test_the_deepest_bound_path_decides(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    bounds = [Bound(str(tmp_path / "sub"), "/deep"), Bound(str(tmp_path), "/app")]
    assert inside(tmp_path / "sub", bounds) == "/deep"


def test_a_bound_symlink_is_followed_to_where_we_stand(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert inside(tmp_path / "real", [Bound(str(tmp_path / "link"), "/app")]) == "/app"


def test_outside_every_bound_path_there_is_no_place(tmp_path: Path) -> None:
    assert inside(tmp_path, [Bound(str(tmp_path / "other"), "/app")]) is None


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are not root, as far as the command line asks."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_a_missing_writable_directory_is_made(somebody: None, tmp_path: Path) -> None:
    assert prepare_writable(Bound(str(tmp_path / "out"), "/out"))
    assert (tmp_path / "out").is_dir()


def test_an_existing_one_is_left_as_it_is(tmp_path: Path) -> None:
    assert not prepare_writable(Bound(str(tmp_path), "/out"))


def test_a_file_that_may_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("kept")
    assert not prepare_writable(Bound(str(tmp_path / "log"), "/log"))
    assert (tmp_path / "log").read_text() == "kept"


def test_root_makes_nothing_that_no_run_may_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigurationError, match="no run may write") as refused:
        prepare_writable(Bound(str(tmp_path / "out"), "/out"))
    assert refused.value.code == "root_owned"
    assert not (tmp_path / "out").exists()


def test_only_the_last_part_of_a_path_is_made(somebody: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        prepare_writable(Bound(str(tmp_path / "typo" / "out"), "/out"))
    assert refused.value.code == "path_missing"
