"""What is kept verifies, what is needed is not forgotten, and nothing goes that is not signed and copied."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from immured.errors import ConfigurationError, Refused
from immured.ledger import Entry, Ledger, create
from immured.ledger.carried import Carried, CarriedError, carried_name
from immured.ledger.entry import parse_line
from immured.ledger.keeping import Keep, Keyed, Need, Op
from immured.ledger.keys import load_vkeys
from immured.ledger.retention import CannotRetire
from immured.ledger.rotation import Limits
from immured.ledger.segments import segment_name
from immured.ledger.timestamps import parse_timestamp
from immured.ledger.verify import verify_file
from tests.ledger.memory import MemoryStorage, PowerFailure
from tests.ledger.sample import ACTOR, DAEMON, START_NS, created, opened, ticking, until_short, vkeys
from tests.patience import PATIENCE_S

KEYS = vkeys(created())
SMALL = Limits(size=3_000)
EVER = 1 << 62


class Folding:
    """Needs every `key.*` for good, and of `policy.changed` the last; has both, in order."""

    rules = "test/1"

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.policy: int | None = None
        self.horizon_ms = 0

    def keep(self, type_: str, actor: Mapping[str, Any], data: Mapping[str, Any], /) -> Keep | None:
        if type_.startswith("key."):
            return Keep(forever=True)
        return Keep(keyed=(Keyed(Op.REPLACE, "policy"),)) if type_ == "policy.changed" else None

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:
        if entry.type.startswith("key."):
            self.keys.append(entry.seq)
        if entry.type == "policy.changed":
            self.policy = entry.seq

    def forgotten(self, until_ms: int) -> None:
        self.horizon_ms = until_ms

    @property
    def known(self) -> tuple[list[int], int | None]:
        return self.keys, self.policy


def types(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return [chance.choice(["key.added", "policy.changed", *["run.accepted"] * 5]) for _ in range(count)]


def fill(ledger: Ledger, seed: int, count: int = 30) -> None:
    for type_ in types(seed, count):
        ledger.entry(type_, ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)


def grown(storage: MemoryStorage, seed: int = 1, count: int = 30, later: int = 1) -> MemoryStorage:
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + later * 10**9)) as ledger:
        fill(ledger, seed, count)
    return storage


def whole(storage: MemoryStorage) -> list[Entry]:
    """What a start of a ledger that has everything learns."""
    seen: list[Entry] = []
    with opened(storage, KEYS, visit=seen.append, clock=ticking(START_NS + 10**12)):
        return seen


def learnt(seen: list[Entry]) -> tuple[list[int], int | None]:
    folding = Folding()
    for entry in seen:
        folding.visit(entry)
    return folding.known


def restarted(storage: MemoryStorage, **options: object) -> Folding:
    folding = Folding()
    opened(storage, KEYS, keeper=folding, limits=SMALL, clock=ticking(START_NS + 10**12), **options).close()
    return folding


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("resumed", [True, False])
def test_what_is_retired_is_not_forgotten(seed: int, resumed: bool) -> None:
    storage = grown(created(), seed)
    known = learnt(whole(storage))
    sealed = [part.name for part in storage.sealed]
    assert len(sealed) >= 3
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        assert ledger.retire(EVER)[: len(sealed)] == sealed
    assert all(name not in storage.files for name in sealed)
    for _ in range(2):
        if not resumed:
            storage.files.pop("resume", None)
        assert restarted(storage).known == known


def test_again_and_again() -> None:
    storage = grown(created(), 1)
    everything = learnt(whole(storage))
    for round_ in range(2, 6):
        with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + round_ * 10**10)) as ledger:
            ledger.retire(EVER)
            before = ledger.status().entries
            fill(ledger, round_, 12)
        fresh = [entry for entry in whole_of(storage) if entry.seq >= before]
        keys, policy = learnt(fresh)
        everything = everything[0] + keys, everything[1] if policy is None else policy
        storage.files.pop("resume")
        assert restarted(storage).known == everything
    assert [name for name in storage.files if name.startswith("carried")] == [carried_name(storage.parts()[0].first)]


def whole_of(storage: MemoryStorage) -> list[Entry]:
    seen: list[Entry] = []
    storage.locked = False
    with opened(storage, KEYS, keeper=Folding(), visit=seen.append, limits=SMALL, clock=ticking(START_NS + 10**12)):
        return seen


def test_the_ledger_says_what_went() -> None:
    storage = grown(created())
    first, second = storage.sealed[:2]
    with opened(storage, KEYS, keeper=Folding(), clock=ticking(START_NS + 10**11)) as ledger:
        ledger.retire(EVER)
    told = [entry.data for entry in whole_of(storage) if entry.type == "ledger.retired"]
    assert (told[0]["segments"], told[0]["first"], told[0]["bytes"]) == ([first.name], second.first, second.offset)
    last = told[-1]["carried"]
    assert isinstance(last, dict)
    held = Carried.decode(storage.files[str(last["file"])], storage.parts()[0].first)
    assert (held.sha256, len(held.lines)) == (last["sha256"], last["lines"])


def test_no_younger_than_asked() -> None:
    storage = grown(created())
    second = storage.sealed[1]
    begun = parse_timestamp(json.loads(storage.files[second.name].splitlines()[0])["ts"])
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        assert ledger.retire(begun) == []
        assert ledger.retire(begun + 1) == [segment_name(0)]
        assert storage.sealed[0] == second


def test_not_before_every_copy_has_it() -> None:
    storage = grown(created())
    second = storage.sealed[1]
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        with pytest.raises(CannotRetire, match="in every copy"):
            ledger.retire(EVER, second.first - 1)
        with pytest.raises(CannotRetire, match="in every copy"):
            ledger.retire(EVER, second.first)
    assert storage.sealed[0] == second


def test_not_without_the_checkpoint_that_vouches_for_it() -> None:
    storage = grown(created())
    name = f"checkpoints/{storage.sealed[1].first:020d}"
    note = storage.files.pop(name)
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        with pytest.raises(CannotRetire, match="vouch"):
            ledger.retire(EVER)
        storage.files[name] = note.replace(note.split(b"\n")[2], b"A" * 43 + b"=")
        with pytest.raises(CannotRetire, match="is not of what"):
            ledger.retire(EVER)
    assert storage.sealed[0].first == 0


def test_nothing_goes_that_no_signed_entry_tells_of() -> None:
    storage = grown(created())
    with opened(storage, KEYS, keeper=Folding(), clock=ticking(START_NS + 10**11)) as ledger:

        def before(operation: str) -> None:
            if operation.startswith("write_whole checkpoints"):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            if operation.startswith("retire"):
                assert ledger.durable.signed > told()

        def told() -> int:
            return next(
                one.seq
                for one in reversed(list(map(parse_line, storage.content().splitlines())))
                if one.type == "ledger.retired"
            )

        storage.before = before
        with pytest.raises(CannotRetire, match="no checkpoint could be signed"):
            ledger.retire(EVER)
        assert storage.sealed[0].first == 0
        storage.before = lambda operation: before(operation) if operation.startswith("retire") else None
        assert ledger.retire(EVER)


def test_not_what_may_only_be_added_to() -> None:
    storage = grown(created())
    storage.fixed.add(segment_name(0))
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        size = ledger.status().entries
        with pytest.raises(CannotRetire, match="next start"):
            ledger.retire(EVER)
        assert ledger.status().entries == size  # nothing was said that is not so


def test_not_where_nobody_said_what_is_needed() -> None:
    storage = grown(created())
    with opened(storage, KEYS) as ledger, pytest.raises(CannotRetire, match="needed"):
        ledger.retire(EVER)


def test_a_needed_line_that_was_changed_keeps_its_file() -> None:
    seed = next(seed for seed in range(99) if "key.added" in types(seed, 30)[:3])
    storage = grown(created(), seed)
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        content = storage.files[segment_name(0)]
        storage.files[segment_name(0)] = content.replace(b'"type":"key.added"', b'"type":"key.baked"')
        assert storage.files[segment_name(0)] != content
        with pytest.raises(CannotRetire, match="not where it was"):
            ledger.retire(EVER)
        storage.files[segment_name(0)] = content


@pytest.mark.parametrize("damage", ["gone", "flipped", "a line less", "older"])
def test_a_start_does_not_do_without_what_is_needed(damage: str) -> None:
    storage = grown(created(), 3)
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        ledger.retire(EVER)
    name = carried_name(storage.parts()[0].first)
    content = storage.files[name]
    rows = content.splitlines(keepends=True)
    assert len(rows) > 3
    storage.files[name] = {
        "gone": b"",
        "flipped": content.replace(b'"key.added', b'"key.bdded', 1).replace(b'\\"key.added', b'\\"key.bdded', 1),
        "a line less": b"".join(rows[:-1]),
        "older": b"".join(rows[:2]),
    }[damage]
    assert storage.files[name] != content
    if damage == "gone":
        del storage.files[name]
    del storage.files["resume"]
    with pytest.raises(ConfigurationError, match="lines of retired segments") as caught:
        restarted(storage)
    assert caught.value.code == "ledger_damaged"
    storage.files[name] = content
    storage.locked = False
    restarted(storage)


def test_a_crash_at_any_point_of_it_forgets_nothing() -> None:
    def attempt(step: int) -> tuple[MemoryStorage, int]:
        storage = grown(created(), 2, 18)
        count = 0

        def before(operation: str) -> None:
            nonlocal count
            count += 1
            if count >= step:
                raise PowerFailure

        ledger = opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11))
        storage.before = before
        with contextlib.suppress(PowerFailure, Refused, CannotRetire):
            ledger.retire(EVER)
        with contextlib.suppress(PowerFailure):
            ledger.close()
        return storage, count

    known = learnt(whole(grown(created(), 2, 18)))
    _, steps = attempt(1 << 30)
    for step in range(1, steps + 1):
        storage, _ = attempt(step)
        for roll, resume in enumerate((True, False)):
            again = storage.after_crash(random.Random(f"{step}.{roll}"))
            if not resume:
                again.files.pop("resume", None)
            assert restarted(again).known == known
            with opened(again, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**13)) as ledger:
                ledger.retire(EVER)
            assert restarted(again).known == known


# --- the file


def test_what_is_carried_is_read_strictly() -> None:
    storage = grown(created(), 3)
    with opened(storage, KEYS, keeper=Folding(), limits=SMALL, clock=ticking(START_NS + 10**11)) as ledger:
        ledger.retire(EVER)
    first = storage.parts()[0].first
    content = storage.files[carried_name(first)]
    assert Carried.decode(content, first).lines
    rows = content.splitlines(keepends=True)
    for wrong in (
        b"",
        b"{}\n",
        b"[]\n",
        rows[0].replace(b'"v":1', b'"v":2'),
        b"".join([rows[0], rows[2], rows[1]]),
        b"".join([*rows, rows[-1]]),
        b"".join([rows[0], b'{"seq":1}\n']),
        b"".join([rows[0], rows[1].replace(b'"seq":', b'"seq":1')]),
        b"".join([rows[0], rows[1].replace(b"argv", b"\\nargv")]),
    ):
        with pytest.raises(CarriedError):
            Carried.decode(wrong, first)
    with pytest.raises(CarriedError, match="is not of a ledger"):
        Carried.decode(content, first + 1)


# --- on a real disk


def test_on_a_disk(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, keeper=Folding(), limits=Limits(size=4_000)) as ledger:
        for type_ in types(4, 40):
            ledger.entry(type_, ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)
            until_short(tmp_path, 4_000)
    names = sorted(path.name for path in (tmp_path / "ledger").glob("0*.jsonl"))
    assert len(names) >= 3
    known = Folding()
    with Ledger.open(tmp_path, keeper=known, limits=Limits(size=4_000)) as ledger:
        assert ledger.retire(EVER)[: len(names)] == names
        held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not [path for path in held if "(deleted)" in path and str(tmp_path) in path]
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    assert not any((tmp_path / "ledger" / name).exists() for name in names)
    for resume in (True, False):
        if not resume:
            (tmp_path / "ledger/resume").unlink()
        again = Folding()
        with Ledger.open(tmp_path, keeper=again, limits=Limits(size=4_000)):
            assert again.known == known.known
    keys = load_vkeys(tmp_path / "keys/ledger.vkey")
    report = verify_file(tmp_path / "ledger", tmp_path / "ledger/checkpoints", keys)
    assert report.whole, report
    anchor = tmp_path / f"ledger/checkpoints/{json.loads(first_line(tmp_path))['seq']:020d}"
    anchor.rename(tmp_path / "elsewhere")
    report = verify_file(tmp_path / "ledger", tmp_path / "ledger/checkpoints", keys)
    assert report.problem is not None
    assert report.problem.code == "anchor_missing"


def first_line(state: Path) -> bytes:
    """Of what is kept. Whether a file was sealed since, and which, is a matter of when the writer looked."""
    files = [*sorted((state / "ledger").glob("0*.jsonl")), state / "ledger/current.jsonl"]
    return files[0].read_bytes().partition(b"\n")[0]
