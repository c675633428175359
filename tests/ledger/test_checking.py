"""A ledger that serves is verified whole beside its work; damage ends it, and names the line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immured.errors import Refused
from immured.ledger.checking import Checking
from immured.ledger.entry import Entry
from immured.ledger.keeping import Keep, Need
from immured.ledger.ledger import Ledger, create
from immured.ledger.reader import Problem
from tests.ledger.memory import MemoryStorage
from tests.ledger.sample import ACTOR, DAEMON, created, opened
from tests.patience import PATIENCE_S


class Nothing:
    """A keeper that needs none."""

    rules = "nothing"

    def keep(self, type_: str, actor: object, data: object, /) -> Keep | None:
        del type_, actor, data
        return None

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:
        del entry, needs

    def forgotten(self, until_ms: int) -> None:
        del until_ms


class View:
    """A storage in memory, read by another thread."""

    def __init__(self, storage: MemoryStorage, before: Callable[[], None] = lambda: None) -> None:
        self.start = 0
        self._storage = storage
        self._before = before

    def read(self, offset: int, length: int) -> bytes:
        self._before()
        return self._storage.read(offset, length)

    def placed(self, problem: Problem) -> Problem:
        return problem

    def close(self) -> None:
        return


def filled(entries: int = 30) -> MemoryStorage:
    storage = created()
    with opened(storage, keeper=Nothing()) as ledger:
        for _ in range(entries):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x"]})
    return storage


def flip(storage: MemoryStorage, seq: int) -> None:
    assert storage.cache is not None
    storage.cache[storage.content().find(b'"seq":%d,' % seq) + 20] ^= 1


def serving(storage: MemoryStorage, **options: object) -> Ledger:
    settings: dict[str, Any] = {
        "keeper": Nothing(),
        "whole_bytes": 0,
        "stream": lambda: View(storage),
        "check_s": 1e9,
        **options,
    }
    return opened(storage, **settings)


def until(so: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_was_not_read_at_the_start_is_verified_soon() -> None:
    storage = filled()
    with serving(storage) as ledger:
        checking = ledger._checking
        assert checking is not None
        until(lambda: checking.checked == 31)
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
        assert ledger.failure is None


def test_damage_there_refuses_every_entry_and_names_the_line(caplog: pytest.LogCaptureFixture) -> None:
    storage = filled()
    flip(storage, 9)
    with serving(storage) as ledger:
        until(lambda: ledger.failure)
        before = storage.content()
        with pytest.raises(Refused, match=r"current.jsonl: line 10 \(seq 9\).*expected") as caught:
            ledger.entry("run.accepted", ACTOR, {})
        assert caught.value.code == "ledger_damaged"
        assert caught.value.details["seq"] == 9
        with pytest.raises(Refused, match="line 10"):
            ledger.admit()
        assert "line 10" in ledger.status().failure
    assert "ledger_damaged: /memory/ledger/current.jsonl: line 10" in caplog.text
    assert storage.content() == before, "nothing is written to what is damaged"
    flip(storage, 9)
    with serving(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)


def test_who_waits_for_an_entry_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = filled()
    flip(storage, 3)
    found, go = threading.Event(), threading.Event()

    def before() -> None:
        found.set()
        assert go.wait(PATIENCE_S)

    with serving(storage, stream=lambda: View(storage, before)) as ledger:
        assert found.wait(PATIENCE_S)
        with ledger.turn():  # from here on nothing more becomes durable
            monkeypatch.setattr(ledger._writer, "_commit", lambda: None)
        pending = ledger.entry("run.accepted", ACTOR, {}, unhurried=True)
        go.set()
        with pytest.raises(Refused, match="line 4"):
            pending.wait(PATIENCE_S)


def test_it_is_verified_again_every_so_often() -> None:
    storage = filled()
    with serving(storage, whole_bytes=1 << 20, check_s=0.02) as ledger:
        checking = ledger._checking
        assert checking is not None
        until(lambda: checking.checked == 31)
        flip(storage, 12)
        until(lambda: ledger.failure)
        assert "line 13" in str(ledger.failure)


def test_it_is_held_against_what_was_signed_and_not_against_the_files() -> None:
    """Lines and checkpoint both written anew, with the ledger's own key, while the daemon runs."""
    storage = filled()
    with serving(storage, whole_bytes=1 << 20, check_s=0.02) as ledger:
        other = created()
        with opened(other, keeper=Nothing()) as forged:
            for _ in range(30):
                forged.entry("run.accepted", ACTOR, {"argv": ["y"]})
        assert storage.cache is not None
        storage.cache[:] = other.content()
        storage.files.update({name: other.files[name] for name in other.files if name.startswith("checkpoints/")})
        ledger.durable.on_head(lambda _: None)
        until(lambda: ledger.failure)
        assert ledger.failure is not None
        assert ledger.failure.code == "ledger_damaged"


def test_a_disk_that_cannot_be_read_is_tried_again_and_no_damage(caplog: pytest.LogCaptureFixture) -> None:
    storage = filled()
    tries: list[int] = []

    def before() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(5, "Input/output error")

    with serving(storage, stream=lambda: View(storage, before), check_s=0.02) as ledger:
        checking = ledger._checking
        assert checking is not None
        until(lambda: checking.checked == 31)
        assert ledger.failure is None
    assert "could not be verified whole" in caplog.text


def test_a_ledger_that_is_closed_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immured.ledger.checking._MOMENT", 1)
    monkeypatch.setattr("immured.ledger.scan._PIECE", 64)
    storage = filled(3_000)
    began = threading.Event()

    def slowly() -> None:
        began.set()
        time.sleep(0.05)

    slow = View(storage, slowly)
    ledger = serving(storage, stream=lambda: slow)
    assert began.wait(PATIENCE_S)
    ledger.close()
    assert ledger._checking is not None
    assert ledger._checking.checked == 0


def test_on_a_disk_too(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, keeper=Nothing()) as ledger:
        for _ in range(50):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x"]})
    path = tmp_path / "ledger" / "current.jsonl"
    content = bytearray(path.read_bytes())
    content[content.find(b'"seq":20,') + 30] ^= 1
    path.write_bytes(content)
    with Ledger.open(tmp_path, keeper=Nothing(), whole_bytes=0) as ledger:
        until(lambda: ledger.failure)
        assert "current.jsonl: line 21 (seq 20)" in str(ledger.failure)


def test_it_ends_by_itself_where_nothing_was_signed() -> None:
    checking = Checking("here", lambda: pytest.fail("nothing is read"), lambda: None, lambda _: None, 1e9)
    checking.start(now=True)
    checking.close()
