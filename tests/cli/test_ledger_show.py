"""`immure ledger show`, `tail`: what people read."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from immured.cli.app import app
from immured.cli.ledger_lines import Display, Shown, beside
from immured.ledger import query
from immured.ledger.entry import Entry, build_line, encode_body, parse_line
from immured.ledger.index import INDEX
from immured.ledger.ledger import create
from immured.ledger.timestamps import timestamp
from tests.ledger.sample import START_NS, ticking
from tests.ledger.test_index import STORY, write


@pytest.fixture
def state(tmp_path: Path) -> Path:
    base = tmp_path / "state"
    (base / "keys").mkdir(parents=True)
    create(base, "ed25519:" + "d" * 32, clock=ticking())
    write(base, STORY)
    return base


def shown(state: Path, *words: str, **environment: str) -> list[str]:
    found = CliRunner(env=environment).invoke(
        app, ["ledger", words[0], "--state", str(state), *words[1:]], catch_exceptions=False
    )
    assert found.exit_code == 0, found.output
    return found.stdout.splitlines()


def made(seq: int, kind: str, actor: dict[str, object], data: dict[str, object], later_ms: int = 0) -> Entry:
    when = timestamp(START_NS + later_ms * 1_000_000)
    return parse_line(build_line(seq, when, encode_body(kind, actor, data), "0" * 64))


RUN = made(1, "run.accepted", {"key": "k" * 20, "name": "alice", "tenant": "acme"}, {"sandbox": "s1", "argv": ["make"]})
OTHER = made(2, "run.accepted", {"key": "k" * 20}, {"sandbox": "s2"})
DONE = made(3, "run.finished", {"daemon": "d"}, {"sandbox": "s1", "intent": 1, "exit_code": 0}, 1_234)


def test_an_outcome_stands_beside_its_intent() -> None:
    assert list(beside([RUN, OTHER, DONE])) == [Shown(RUN), Shown(DONE, RUN), Shown(OTHER)]


def test_one_that_comes_too_late_stands_where_it_came() -> None:
    assert list(beside([RUN, OTHER, DONE], held=1)) == [Shown(RUN), Shown(OTHER), Shown(DONE)]


def test_lines_are_aligned() -> None:
    lines = [Display().line(one) for one in beside([RUN, OTHER, DONE])]
    assert lines == [
        "       1  2026-09-21 14:13:20.000Z  run.accepted         alice@acme          sandbox=s1 argv=[make]",
        "       3                  +1.234 s  \u2514 run.finished                           exit_code=0",
        "       2  2026-09-21 14:13:20.000Z  run.accepted         " + "k" * 12 + "        sandbox=s2",
    ]


def test_times_of_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert "  2026-09-21 19:58:20.000+0545  " in Display(local=True).line(Shown(RUN))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_colour_is_for_terminals() -> None:
    assert "\x1b[" in Display(colour=True).line(Shown(RUN))
    assert "\x1b[" not in Display().line(Shown(RUN))


@pytest.mark.parametrize("char", ["\n", "\x1b", "\u202e"])
def test_nothing_in_it_moves_the_cursor(char: str) -> None:
    name = f"a{char}b"
    entry = made(1, "run.accepted", {"key": name, "name": name, "tenant": name}, {name: [name]})
    assert char not in Display().line(Shown(entry))


def test_a_line_fits_the_terminal() -> None:
    entry = made(1, "run.accepted", {"key": "k", "name": "alice"}, {"argv": ["x" * 500]})
    assert len(Display(width=120).line(Shown(entry))) == 120


def test_a_tenants(state: Path) -> None:
    assert [line.split()[0] for line in shown(state, "show", "--tenant", "acme")] == ["1", "2"]
    assert len(shown(state, "tail", "--tenant", "acme", "-n", "1", "--json")) == 1
    assert "ledger.created" in shown(state, "show", "--tenant", "")[0]


@pytest.mark.needs_root
def test_root_makes_the_index_as_the_ledgers_owner(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "WORTH_IT", 0)
    with tempfile.TemporaryDirectory() as name:
        reached = Path(name, "state")
        shutil.copytree(state, reached)
        Path(name).chmod(0o711)
        for path in [*reached.rglob("*"), reached]:
            os.chown(path, 4_321, 4_321)
        assert len(shown(reached, "show", "--tenant", "acme")) == 2
        made = (reached / "ledger" / INDEX).stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (4_321, 4_321, 0o600)
    assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.needs_root
def test_where_its_owner_does_not_come_root_makes_none(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "WORTH_IT", 0)
    state.chmod(0o700)
    os.chown(state / "ledger", 4_321, 4_321)
    assert len(shown(state, "show", "--tenant", "acme")) == 2
    assert not (state / "ledger" / INDEX).exists()
