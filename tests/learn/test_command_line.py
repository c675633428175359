"""`immure learn` itself: what it refuses before anything runs, what it keeps, what it says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.learn.conftest import Immure


def test_it_says_how_it_is_used(immure: Immure) -> None:
    said = immure("learn", "--help")
    assert said.status == 0
    assert "Run a command once" in said.out


@pytest.mark.parametrize(
    ("output", "code"),
    [("/", "bad_path"), ("nowhere/at/all.toml", "bad_path"), ("/usr/x.toml", "bad_path"), ("src/a", "exists")],
)
def test_a_place_that_cannot_be_written_is_refused_first(immure: Immure, world: Path, output: str, code: str) -> None:
    said = immure("learn", "-o", output, "--", "/bin/sh", "-c", "echo ran")
    assert (said.status, said.out) == (125, "")
    assert f"immure: {code}: " in said.err
    assert (world / "project/src/a").read_text() == "A"


def test_a_command_that_is_not_there(immure: Immure, world: Path) -> None:
    said = immure("learn", "-o", "m.toml", "--", "no-such-command")
    assert said.status == 127
    assert not (world / "project/m.toml").exists()


def test_no_command_is_a_mistake(immure: Immure) -> None:
    assert immure("learn").status == 125


def test_a_second_run_adds_to_the_first(immure: Immure, world: Path) -> None:
    place = world / "project/m.toml"
    assert immure("learn", "-o", "m.toml", "-q", "--", "cat", "src/a").err == ""
    assert immure("learn", "-o", "m.toml", "--", "cat", "src/b").status == 125, "it exists"
    said = immure("learn", "--merge", "-o", "m.toml", "--", "cat", "src/b")
    assert said.status == 0, said
    found = tomllib.loads(place.read_text())
    assert found["filesystem"]["read"] == [f"{world}/project/src/a", f"{world}/project/src/b"]
    for name in ("a", "b"):
        assert immure("run", "--manifest", "m.toml", "--", "cat", f"src/{name}").out == name.upper()


def test_what_the_base_leaves_to_be_filled_in_stays_so(immure: Immure, world: Path) -> None:
    """What a value covers is not learned again, and a dollar in a path is no parameter."""
    project = world / "project"
    (project / "base.toml").write_text(
        'schema = 1\nname = "mine"\n[filesystem]\nread = ["${where}"]\n'
        f'[parameters.where]\ntype = "path"\nwithin = ["{project}"]\n'
    )
    (project / "base.toml").chmod(0o644)
    (project / "cost$").write_text("dollars")
    (project / "cost$").chmod(0o644)
    words = ("--manifest", "base.toml", "--set", f"where={project}/src", "-o", "m.toml", "--", "cat", "src/a", "cost$")
    said = immure("learn", *words)
    assert (said.status, said.out) == (0, "Adollars"), said
    found = tomllib.loads((project / "m.toml").read_text())
    assert found["filesystem"]["read"] == ["${where}", f"{project}/cost$$"]
    assert found["parameters"] == {"where": {"type": "path", "within": [str(project)]}}
    again = immure("run", "--manifest", "m.toml", "--set", f"where={project}/src", "--", "cat", "src/b", "cost$")
    assert again.out == "Bdollars", again
    assert immure("learn", "--manifest", "base.toml", "--force", "-o", "m.toml", "--", "cat", "src/a").status == 125


def test_what_the_base_says_is_kept(immure: Immure, world: Path) -> None:
    (world / "project/base.toml").write_text(
        'schema = 1\nname = "mine"\n[command]\nallow = ["cat"]\n'
        '[filesystem]\ntmpfs = [{ path = "/scratch", size = "1M" }]\n'
        '[limits]\nwall = "7s"\n'
    )
    (world / "project/base.toml").chmod(0o644)
    assert immure("learn", "--manifest", "base.toml", "-o", "m.toml", "--", "cat", "src/a").status == 0
    found = tomllib.loads((world / "project/m.toml").read_text())
    assert found["name"] == "mine"
    assert found["command"]["allow"] == ["cat"]
    assert found["limits"]["wall"] == "7s"
    assert found["filesystem"]["tmpfs"] == [{"path": "/scratch", "size": "1M"}]
    assert found["filesystem"]["read"] == [f"{world}/project/src/a"]
