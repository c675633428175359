"""A storage that fails, falls short or dies at every single step of a ledger's life: appends, checkpoints, the resume,
rotation, and the recovery from it all. Exhaustive over a small history, and held against a model: what was acknowledged
is there with its hash, what recovery leaves verifies, and a start that reads on knows what one knows that reads all."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from immured.errors import ImmuredError, Refused
from immured.ledger.checkpoint import open_checkpoint
from immured.ledger.entry import Entry
from immured.ledger.keeping import Keep, Need, Tie
from immured.ledger.ledger import Ledger
from immured.ledger.pending import Receipt
from immured.ledger.reader import Problem, begin, scan
from immured.ledger.recovery import checkpoint_names
from immured.ledger.resume import RESUME
from immured.ledger.rotation import Limits
from immured.ledger.saving import Pace
from tests.ledger.memory import MemoryStorage, PowerFailure
from tests.ledger.sample import ACTOR, created, opened, vkeys
from tests.patience import PATIENCE_S

KEYS = vkeys(created())
CRASHES = 3


class Model:
    """A keeper of what is open and what stays: what a daemon learns, in small."""

    rules = "model/1"

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.stays: set[int] = set()

    def keep(self, type_: str, actor: Mapping[str, Any], data: Mapping[str, Any], /) -> Keep | None:
        del actor
        if type_ == "run.accepted":
            return Keep(0, True)
        if type_ == "run.finished":
            return Keep(tie=Tie.OUTCOME, intent=data["intent"])
        return Keep(forever=True) if type_ == "key.added" else None

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:
        if entry.type == "run.accepted" and needs & Need.ACT:
            self.open.add(entry.seq)
        if entry.type == "run.finished":
            self.open.discard(int(str(entry.data["intent"])))
        if entry.type == "key.added" and needs & Need.SAY:
            self.stays.add(entry.seq)

    def forgotten(self, until_ms: int) -> None:
        del until_ms

    def knows(self) -> tuple[set[int], set[int]]:
        return self.open, self.stays


class Step:
    """Does something at the step of that number; with `on`, at every one from there on."""

    def __init__(self, at: int, act: Callable[[], None], *, on: bool = False) -> None:
        self.at, self.act, self.on = at, act, on
        self.count = 0
        self.what = ""

    def __call__(self, operation: str) -> None:
        self.count += 1
        if self.count == self.at or (self.on and self.count > self.at):
            self.what = self.what or operation
            self.act()


def start(storage: MemoryStorage, keeper: Model) -> Ledger:
    """Small files, a checkpoint and a resume all the time, and the resume is used however small the ledger is."""
    ledger = opened(
        storage,
        KEYS,
        keeper=keeper,
        checkpoint_entries=4,
        whole_bytes=0,
        limits=Limits(size=2_500),
        pace=Pace(entries=1, aside=False),
    )
    ledger.durable.pause = 0.0
    return ledger


def life(storage: MemoryStorage, told: list[Receipt]) -> None:
    """Open, append alone and together, close, and once more. What was acknowledged is in `told`, whatever happens."""
    chance = random.Random(5)
    for _ in range(2):
        try:
            ledger = start(storage, Model())
        except (PowerFailure, ImmuredError):
            return
        try:
            for turn in range(5):
                with ledger.turn():
                    kind = "key.added" if turn == 2 else "run.accepted"
                    made = [
                        ledger.entry(kind, ACTOR, {"x": "y" * chance.choice([1, 400])})
                        for _ in range(chance.choice([1, 3]))
                    ]
                for pending in made:
                    told.append(pending.wait(PATIENCE_S))  # noqa: PERF401  what was told before a failure counts
                intent = made[0].receipt.seq
                if turn % 2:
                    told.append(
                        ledger.entry("run.finished", ACTOR, {"intent": intent}, outcome_of=intent).wait(PATIENCE_S)
                    )
        except Refused:
            pass
        with contextlib.suppress(PowerFailure):
            ledger.close()
        storage.locked = False


def checked(storage: MemoryStorage, told: list[Receipt]) -> None:
    """Start again, twice: the one reads on, the other reads all."""
    left = copied(storage)
    models = Model(), Model()
    start(storage, models[0]).close()
    left.files.pop(RESUME, None)
    start(left, models[1]).close()
    assert models[0].knows() == models[1].knows()
    heads = {
        head.size: head
        for head in (
            open_checkpoint(storage.files[f"checkpoints/{name}"], KEYS)
            for name in checkpoint_names(storage.names("checkpoints"))
        )
    }
    begun = begin(storage, 0, {})
    assert not isinstance(begun, Problem)
    entries: dict[int, Entry] = {}
    found = scan(storage, storage.size(), heads, lambda entry: entries.__setitem__(entry.seq, entry), begun)
    assert found.problem is None
    assert found.covered == max(heads) == len(entries)
    assert {seq: entries[seq].leaf for seq, _ in told} == dict(told)
    recorded = {entry.data["file"] for entry in entries.values() if entry.type == "ledger.recovered"}
    assert recorded == set(storage.names("quarantine"))


def copied(storage: MemoryStorage) -> MemoryStorage:
    """As the daemon's death alone leaves it: what the cache has."""
    other = MemoryStorage()
    other.files, other.sealed, other.retired = dict(storage.files), list(storage.sealed), storage.retired
    if storage.turned is not None:
        return copied(storage.turned)
    assert storage.cache is not None
    other.cache, other.disk = bytearray(storage.cache), bytearray(storage.cache)
    return other


def failing(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def dying() -> None:
    raise PowerFailure


STEPS = 70
"""More than that life has; a few more or less, as threads meet."""


def afterwards(storage: MemoryStorage, seed: str) -> Iterator[MemoryStorage]:
    """What may be there at the next start: what the cache has, or what the disk has, in several ways."""
    yield copied(storage)
    for roll in range(CRASHES):
        yield storage.after_crash(random.Random(f"{seed}.{roll}"))


def test_the_history_has_every_step_in_it() -> None:
    seen: set[str] = set()
    storage = created()
    count = 0

    def before(operation: str) -> None:
        nonlocal count
        count += 1
        seen.add(operation.partition(" ")[0] + operation.partition("/")[1])

    storage.before = before
    told: list[Receipt] = []
    life(storage, told)
    assert {"write", "sync", "prepare", "turn", "turned", "write_whole", "write_whole/"} <= seen
    assert len(told) >= 20
    assert 40 < count < STEPS
    checked(storage, told)


@pytest.mark.parametrize("at", range(1, STEPS))
def test_death_at_every_step(at: int) -> None:
    storage, told = created(), list[Receipt]()
    storage.before = Step(at, dying, on=True)
    life(storage, told)
    for left in afterwards(storage, f"{at}"):
        checked(left, told)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("on", [False, True], ids=["once", "from-then-on"])
def test_an_error_at_every_step(number: int, *, on: bool) -> None:
    for at in range(1, STEPS + 1):
        storage, told = created(), list[Receipt]()
        storage.before = Step(at, failing(number), on=on)
        life(storage, told)
        for left in afterwards(storage, f"{at}"):
            checked(left, told)


@pytest.mark.parametrize("length", [1, 100])
def test_every_write_falls_short_and_then_the_power_fails(length: int) -> None:
    for at in range(1, STEPS + 1):
        storage, told = created(), list[Receipt]()
        count = 0

        def before(operation: str, at: int = at, storage: MemoryStorage = storage) -> None:
            nonlocal count
            count += 1
            if count > at:
                raise PowerFailure
            storage.largest_write = length if count == at else 1 << 30

        storage.before = before
        life(storage, told)
        for left in afterwards(storage, f"{at}"):
            checked(left, told)


def test_writes_that_fall_short_all_the_time_lose_nothing() -> None:
    storage, told = created(), list[Receipt]()
    storage.largest_write = 7
    life(storage, told)
    assert len(told) >= 20
    checked(copied(storage), told)


@pytest.mark.parametrize("at", range(1, STEPS + 1, 2))
def test_death_at_every_step_of_the_recovery_from_it(at: int) -> None:
    storage, told = created(), list[Receipt]()
    storage.before = Step(at, dying, on=True)
    life(storage, told)
    for left in afterwards(storage, f"{at}"):
        for again in range(1, 12):
            torn = left.after_crash(random.Random(0)) if left.disk == left.cache else copied(left)
            torn.before = counter = Step(again, dying, on=True)
            with contextlib.suppress(PowerFailure, ImmuredError):
                start(torn, Model()).close()
            checked(torn.after_crash(random.Random(f"{at}.{again}")), told)
            if not counter.what:
                break
