"""`immure changes`, and `--capture`, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, Captured, own, tree
from tests.patience import PATIENCE_S

_AS_CALLER = f"""
import encodings.unicode_escape, os, sys
import immured.cli.app, immured.cli.changes, immured.cli.sandbox, immured.cli.session, immured.client.sync
os.setgroups([]); os.setresgid({CALLER}, {CALLER}, {CALLER}); os.setresuid({CALLER}, {CALLER}, {CALLER})
sys.argv[0] = "immure"
immured.cli.app.serve()
"""


@dataclass(frozen=True)
class Typed:
    """The command line as the caller, and a sandbox `name` that captured `path`."""

    options: list[str]
    name: str
    path: Path

    def __call__(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-c", _AS_CALLER, words[0], words[1], *self.options, *words[2:]]
        done = subprocess.run(
            whole, capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
        )
        assert done.returncode == status, done
        return done

    def sh(self, script: str) -> None:
        self("sandbox", "exec", "--cwd", str(self.path), self.name, "--", "/bin/sh", "-c", script)

    def json(self, *words: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self(*words, "--json").stdout)
        return found


@pytest.fixture
def typed(caller: Client, daemon: ThrowawayDaemon, ground: Path, project: Path) -> Iterator[Typed]:
    key = ground / "changes.pem"
    os.chown(key, CALLER, CALLER)
    options = ["--socket", str(daemon.socket), "--key", str(key), "--daemon-key", str(daemon.daemon_key)]
    typed = Typed(options, f"typed-{os.urandom(4).hex()}", project)
    typed("sandbox", "create", "--name", typed.name, "--capture", str(project))
    yield typed
    typed("sandbox", "rm", typed.name)


def test_what_is_captured_is_listed(typed: Typed) -> None:
    assert typed("changes", "list", typed.name).stderr.endswith("nothing was changed\n")
    typed.sh("echo 3 >> a.txt; rm dir/b; echo x > n; chmod 700 dir/sub; ln -s a.txt l")
    lines = typed("changes", "list", typed.name).stdout.splitlines()
    assert lines[0].split() == ["MODE", "SIZE", "PATH", "TROUBLE"]
    assert {(line.split()[0], line.split()[-1].removeprefix(f"{typed.path}/")) for line in lines[1:]} == {
        ("M", "a.txt"), ("D", "dir/b"), ("m", "dir/sub/"), ("A", "a.txt"), ("A", "n"),
    }  # fmt: skip
    said = typed.json("changes", "list", typed.name, "--target", str(typed.path))
    assert list(said["sets"]) == [str(typed.path)]  # type: ignore[call-overload]
    assert [one["kind"] for one in said["changes"]] == ["modified", "deleted", "mode", "created", "created"]  # type: ignore[attr-defined]


def test_differences_are_printed_and_do_not_talk_to_the_terminal(typed: Typed) -> None:
    typed.sh(r"printf 'one\nTWO\033[2J\n' > a.txt; echo x > dir/n")
    out = typed("changes", "diff", typed.name, f"{typed.path}/a.txt", "--target", str(typed.path)).stdout
    assert "-two" in out
    assert "+TWO" in out
    assert "\033" not in out
    assert "dir/n" not in out
    assert "dir/n" in typed("changes", "diff", typed.name).stdout


def test_some_of_a_set_is_accepted(typed: Typed) -> None:
    typed.sh("echo 3 >> a.txt; rm dir/b; echo x > n")
    sets = typed.json("changes", "list", typed.name)["sets"]
    digest = sets[str(typed.path)]  # type: ignore[index]
    stale = typed("changes", "accept", typed.name, "--set", "00" * 32, status=1)
    assert "changed_since" in stale.stderr
    words = ("--set", digest, "--skip", f"{typed.path}/n", "--target", str(typed.path))
    assert typed("changes", "accept", typed.name, *words).stdout.splitlines() == [
        f"M {typed.path}/a.txt", f"D {typed.path}/dir/b",
    ]  # fmt: skip
    said = typed.json("changes", "accept", typed.name, f"{typed.path}/n")
    assert (said["total"], said["target"]) == (1, str(typed.path))
    assert sorted(os.listdir(typed.path)) == ["a.txt", "dir", "n"]


def test_a_conflict_is_gone_over_by_force_alone(typed: Typed) -> None:
    typed.sh("echo mine > a.txt")
    (typed.path / "a.txt").write_text("theirs\n")
    assert "conflict" in typed("changes", "accept", typed.name, status=1).stderr
    typed("changes", "accept", typed.name, "--force")
    assert (typed.path / "a.txt").read_text() == "mine\n"


def test_changes_are_thrown_away(typed: Typed) -> None:
    before = tree(typed.path)
    typed.sh("echo 3 >> a.txt; echo x > n; echo y > m")
    assert typed.json("changes", "discard", typed.name, f"{typed.path}/n")["removed"] == 1
    typed("changes", "discard", typed.name, status=2)
    typed("changes", "discard", typed.name, "--all", f"{typed.path}/m", status=2)
    typed("changes", "discard", typed.name, "--all", "--target", str(typed.path))
    assert tree(typed.path) == before
    assert typed.json("changes", "list", typed.name)["changes"] == []


def test_words_that_are_no_digest(typed: Typed) -> None:
    assert "no digest" in typed("changes", "accept", typed.name, "--set", "xyz", status=2).stderr


def test_two_captured_directories_and_another_place(typed: Typed, ground: Path) -> None:
    one, two = ground / "one", ground / "two"
    for path in (one, two):
        path.mkdir(exist_ok=True)
        own(path)
    name = f"{typed.name}-two"
    typed("sandbox", "create", "--name", name, "--capture", str(one), "--capture", f"{two}:/second")
    typed("sandbox", "exec", name, "--", "/bin/sh", "-c", f"echo x > {one}/x; echo y > /second/y")
    assert "target" in typed("changes", "accept", name, status=1).stderr
    assert typed("changes", "accept", name, "--target", "/second").stdout == "A /second/y\n"
    assert (two / "y").read_text() == "y\n"
    assert typed("changes", "accept", name, f"{one}/x").stdout == f"A {one}/x\n"
    typed("sandbox", "rm", name)


@pytest.mark.parametrize("words", [("--force",), ()])
def test_protected_names_are_marked_and_named(
    capture: Callable[..., Captured], typed: Typed, words: tuple[str, ...]
) -> None:
    (typed.path / ".git").mkdir()
    own(typed.path)
    captured = capture(protect=["@vcs", "@shell"])
    name = captured.sandbox.id
    captured.sh(
        "mkdir .git/hooks; for i in 1 2; do echo evil > .git/hooks/h$i; done; echo evil > .bashrc; echo ok > ok"
    )
    marked = {line.split()[-2] for line in typed("changes", "list", name).stdout.splitlines() if "protected" in line}
    names = {f"{typed.path}/.bashrc", f"{typed.path}/.git/hooks/h1", f"{typed.path}/.git/hooks/h2"}
    assert names <= marked
    before = tree(typed.path)
    said = typed("changes", "accept", name, *words, status=1).stderr
    assert all(one in said for one in names), said
    assert "protects" in said
    assert tree(typed.path) == before
