"""Sealing: the chain runs through, a reader sees one stream, and neither a crash nor a full disk loses a line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.errors import ConfigurationError, Refused
from immured.ledger import Entry, Ledger, Receipt, create
from immured.ledger.checkpoint import Checkpoint, open_checkpoint
from immured.ledger.keys import load_vkeys
from immured.ledger.posix_log import PosixLog
from immured.ledger.reader import Problem, Scan, begin, scan
from immured.ledger.rotation import Digest, Limits
from immured.ledger.segments import Files, segment_name
from immured.ledger.show import Selection, entries
from immured.ledger.storage import PosixStorage
from tests.ledger.memory import Bytes, MemoryStorage, PowerFailure
from tests.ledger.sample import ACTOR, DAEMON, START_NS, created, opened, ticking, until_short, vkeys
from tests.patience import PATIENCE_S

KEYS = vkeys(created())
SMALL = Limits(size=3_000)
LATER = itertools.count(1)


def checkpoints(storage: MemoryStorage) -> dict[int, Checkpoint]:
    notes = [open_checkpoint(storage.files[f"checkpoints/{name}"], KEYS) for name in storage.names("checkpoints")]
    return {note.size: note for note in notes}


def survivors(storage: MemoryStorage) -> dict[int, Entry]:
    """The entries of a whole ledger, each seam checked by the scan."""
    entries: list[Entry] = []
    found = scan(storage, storage.size(), checkpoints(storage), entries.append)
    assert found.problem is None
    return {entry.seq: entry for entry in entries}


def work(storage: MemoryStorage, count: int = 30, **options: object) -> list[Receipt]:
    """So many entries, some together; what was acknowledged. Ends early where the ledger does."""
    acknowledged: list[Receipt] = []
    chance = random.Random(count)
    clock = ticking(START_NS + next(LATER) * 10**9)
    try:
        ledger = opened(storage, KEYS, **{"checkpoint_entries": 9, "limits": SMALL, "clock": clock, **options})
    except PowerFailure:
        return acknowledged
    with contextlib.suppress(Refused):
        while count > 0:
            together = [
                ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300]}) for _ in range(chance.choice([1, 3]))
            ]
            acknowledged += [pending.wait(PATIENCE_S) for pending in together]
            count -= len(together)
    with contextlib.suppress(PowerFailure):
        ledger.close()
    return acknowledged


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- what is written


def test_the_chain_runs_through() -> None:
    storage = created()
    acknowledged = work(storage)
    assert len(storage.sealed) >= 3
    entries = survivors(storage)
    assert all(entries[receipt.seq].leaf == receipt.leaf for receipt in acknowledged)
    assert all(part.size >= SMALL.size for part in storage.sealed)


def test_the_first_line_of_a_file_says_what_was_sealed() -> None:
    storage = created()
    work(storage)
    entries = survivors(storage)
    signed = checkpoints(storage)
    firsts = [part.first for part in storage.parts()]
    rotations = [entry for entry in entries.values() if entry.type == "ledger.rotated"]
    assert [entry.seq for entry in rotations] == firsts[1:]
    for part, following, entry in zip(storage.sealed, firsts[1:], rotations, strict=True):
        assert entry.actor == {"ledger": entry.data["origin"]}
        assert entry.data["segment"] == part.name == segment_name(part.first)
        assert (entry.data["first"], entry.data["entries"]) == (part.first, following - part.first)
        assert (entry.data["size"], entry.data["bytes"]) == (following, part.end)
        assert entry.data["sha256"] == hashlib.sha256(storage.files[part.name]).hexdigest()
        assert signed[following].root.hex() == entry.data["root"]


def test_what_is_kept_of_it_verifies() -> None:
    storage = created()
    work(storage)
    whole = storage.content()

    class Kept:
        def __init__(self, start: int) -> None:
            self.start = start

        def read(self, offset: int, length: int) -> bytes:
            assert offset >= self.start
            return whole[offset : offset + length]

    for part in storage.parts()[1:]:
        begun = begin(Kept(part.offset), part.offset, checkpoints(storage))
        assert not isinstance(begun, Problem)
        found = scan(Kept(part.offset), len(whole), checkpoints(storage), None, begun)
        assert found.problem is None
        assert found.chain.size == found.covered == len(whole.splitlines())


def test_a_ledger_that_was_rotated_is_written_on() -> None:
    storage = created()
    work(storage, 20)
    sealed = len(storage.sealed)
    acknowledged = work(storage, 20)
    assert len(storage.sealed) > sealed
    entries = survivors(storage)
    assert all(entries[receipt.seq].leaf == receipt.leaf for receipt in acknowledged)


def test_the_head_is_where_the_stream_ends() -> None:
    storage = created()
    with opened(storage, limits=SMALL) as ledger:
        heads: list[tuple[int, int]] = []
        ledger.on_head(lambda head: heads.append((head.size, head.end)))
        for _ in range(20):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)
    whole = storage.content()
    assert [(size, whole[:end].count(b"\n")) for size, end in heads] == [(size, size) for size, _ in heads]
    assert heads[-1] == (len(whole.splitlines()), len(whole))
    assert [part.end for part in storage.sealed] == [end for _, end in heads[1:-1]]


@pytest.mark.parametrize("at", [0, 1])
def test_a_start_that_finds_damage_names_the_file_and_the_line_in_it(tmp_path: Path, at: int) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, limits=SMALL) as ledger:
        for _ in range(40):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 200]}).wait()
            until_short(tmp_path, SMALL.size)
    sealed = sorted((tmp_path / "ledger").glob("0*.jsonl"))[at]
    rows = sealed.read_bytes().split(b"\n")
    rows[2] = rows[2].replace(b"run.accepted", b"run.acc0pted")
    sealed.write_bytes(b"\n".join(rows))
    (tmp_path / "ledger" / "resume").unlink(missing_ok=True)
    with pytest.raises(ConfigurationError, match=rf"{sealed.name}: line 3 \(seq {int(sealed.stem) + 2}\)") as caught:
        Ledger.open(tmp_path)
    assert caught.value.code == "ledger_damaged"


def test_replay_reads_through_the_segments() -> None:
    storage = created()
    work(storage)
    with opened(storage) as ledger:
        assert [entry.seq for entry in ledger.replay()] == list(range(len(storage.content().splitlines())))


def test_an_outcome_is_let_in_after_its_intent_was_sealed() -> None:
    storage = created()
    with opened(storage, limits=SMALL) as ledger:
        intent = ledger.entry("run.accepted", ACTOR, {"x": 1}, reserves_outcome=True)
        intent.wait(PATIENCE_S)
        while not storage.sealed:
            ledger.entry("command.denied", ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)
        assert ledger.status().outstanding == 1
        ledger.entry("run.finished", ACTOR, {"x": 1}, outcome_of=intent.receipt.seq).wait(PATIENCE_S)
        assert ledger.status().outstanding == 0
    survivors(storage)


def test_a_clock_that_went_back_is_told_before_the_file_is_sealed() -> None:
    storage = created()
    now = START_NS + 10**12
    moving = [now, now, now + 1, START_NS, START_NS + 1]
    clock = itertools.chain(moving, itertools.count(START_NS + 2))
    with opened(storage, clock=lambda: next(clock), limits=Limits(size=700)) as ledger:
        for _ in range(6):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)
    survivors(storage)  # its seams are in order; a step is an entry


# --- when


def test_by_age() -> None:
    storage = created()
    now = START_NS + 10**9
    with opened(storage, clock=lambda: now, limits=Limits(age_s=3_600)) as ledger:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
        assert not storage.sealed
        now += 3_600 * 10**9
        ledger.entry("run.finished", ACTOR, {}).wait(PATIENCE_S)
        until(lambda: len(storage.sealed) == 1)
        now += 7_200 * 10**9  # a file of one line is not sealed, however old
        ledger.entry("run.finished", ACTOR, {})
        until(lambda: len(storage.sealed) == 2)
    assert [part.first for part in storage.sealed] == [0, 3]
    survivors(storage)


def test_not_before() -> None:
    storage = created()
    with opened(storage, limits=Limits(size=1 << 20, age_s=1e9)) as ledger:
        for _ in range(20):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)
    assert not storage.sealed


def test_a_long_file_is_digested_beside_who_writes() -> None:
    content = bytes(random.Random(5).randbytes(5 << 20))
    digest = Digest(LongLog(content), 0)
    assert not digest.follow(len(content) - 100)
    until(lambda: digest.follow(len(content)))
    assert digest.finish(len(content)) == hashlib.sha256(content).hexdigest()
    digest.close()


def test_a_digest_that_cannot_be_read_is_no_digest() -> None:
    digest = Digest(LongLog(b"x" * (2 << 20)), 0)
    assert not digest.follow(3 << 20)
    digest.close()
    digest = Digest(LongLog(b"x" * 100), 0)
    with pytest.raises(OSError, match="ends at byte 100"):
        digest.finish(101)


class LongLog(MemoryStorage):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._bytes = Bytes(content)

    def read(self, offset: int, length: int) -> bytes:
        return self._bytes.read(offset, length)


# --- what fails


class At:
    """Does something at the n-th operation of a name, or of any."""

    def __init__(self, number: int, what: Callable[[], None], name: str = "") -> None:
        self.number, self.what, self.name = number, what, name
        self.count = 0

    def __call__(self, operation: str) -> None:
        if self.name in ("", operation):
            self.count += 1
            if self.count == self.number:
                self.what()


class Dead(At):
    """And nothing after it."""

    def __call__(self, operation: str) -> None:
        self.count += 1
        if self.count >= self.number:
            raise PowerFailure


def io_error(number: int = errno.EIO) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_power_failure_at_any_point_of_it_loses_nothing_acknowledged() -> None:
    counter = Dead(1 << 30, lambda: None)
    storage = created()
    storage.before = counter
    work(storage, 24)
    assert len(storage.sealed) >= 2
    for step in range(1, counter.count + 1):
        storage = created()
        storage.before = Dead(step, lambda: None)
        acknowledged = work(storage, 24)
        for roll in range(3):
            restarted = storage.after_crash(random.Random(f"{step}.{roll}"))
            again = work(restarted, 6)
            assert again
            entries = survivors(restarted)
            assert all(entries[receipt.seq].leaf == receipt.leaf for receipt in (*acknowledged, *again))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_what_fails_before_the_renames_changes_nothing(number: int) -> None:
    storage = created()
    storage.before = At(1, io_error(number), "prepare")
    with opened(storage, limits=SMALL) as ledger:
        for _ in range(20):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)
        assert not storage.sealed
        assert ledger.status().rotation_failure == f"sealing {segment_name(0)}: {os.strerror(number)}"
        assert not ledger.status().failure
    survivors(storage)
    work(storage, 3)
    assert storage.sealed


def test_without_a_checkpoint_nothing_is_sealed() -> None:
    storage = created()

    def before(operation: str) -> None:
        if operation.startswith("write_whole checkpoints"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    storage.before = before
    with opened(storage, limits=SMALL) as ledger:
        for _ in range(20):
            ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S)
        until(lambda: "checkpoint" in ledger.status().rotation_failure)
        assert not storage.sealed


@pytest.mark.parametrize("name", ["turn", "turned"])
def test_what_fails_at_the_renames_ends_all_writing_until_a_restart(name: str) -> None:
    storage = created()
    storage.before = At(1, io_error(), name)
    acknowledged = work(storage)
    assert acknowledged
    storage.before = lambda _: None
    restarted = storage.after_crash(random.Random(0))
    again = work(restarted)
    entries = survivors(restarted)
    assert all(entries[receipt.seq].leaf == receipt.leaf for receipt in (*acknowledged, *again))
    assert restarted.sealed


def test_a_full_disk_is_no_place_for_another_file() -> None:
    storage = created()
    with opened(storage, limits=SMALL) as ledger:
        intents = [ledger.entry("run.accepted", ACTOR, {"x": "y" * 500}, reserves_outcome=True) for _ in range(3)]
        storage.capacity = storage.size() + 100_000
        for intent in intents:
            intent.wait(PATIENCE_S)
        for intent in intents:
            ledger.entry("run.finished", ACTOR, {"x": "y" * 900}, outcome_of=intent.receipt.seq).wait(PATIENCE_S)
        assert not ledger.status().failure
        assert not storage.sealed
    survivors(storage)


# --- on a real disk


def fill(ledger: Ledger, count: int) -> list[Receipt]:
    pending = [ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300], "number": number}) for number in range(count)]
    return [one.wait(PATIENCE_S) for one in pending]


def found_in(state: Path) -> Scan:
    heads = {}
    for path in (state / "ledger/checkpoints").iterdir():
        note = open_checkpoint(path.read_bytes(), load_vkeys(state / "keys/ledger.vkey"))
        heads[note.size] = note
    with Files.at(state / "ledger") as files:
        begun = begin(files, files.start, heads)
        assert not isinstance(begun, Problem)
        return scan(files, files.size(), heads, None, begun)


def test_many_threads_append_through_rotations(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    receipts: list[Receipt] = []
    deadline = time.monotonic() + PATIENCE_S

    def is_turned() -> bool:
        return len([*(tmp_path / "ledger").glob("0*.jsonl")]) > 5

    def work() -> None:
        """For so long at least; and on, as nobody who appends awaits a sealing."""
        count = 0
        while count < 100 or not is_turned():
            assert time.monotonic() < deadline, "no other file is begun"
            receipts.append(ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 300]}).wait(PATIENCE_S))
            count += 1

    with Ledger.open(tmp_path, limits=Limits(size=20_000)) as ledger:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        head = ledger.head
    found = found_in(tmp_path)
    assert found.problem is None
    assert sorted(receipt.seq for receipt in receipts) == sorted({receipt.seq for receipt in receipts})
    assert len(receipts) >= 400
    with Files.at(tmp_path / "ledger") as files:
        assert len(files.parts) > 5
        whole = files.read(0, files.size())
        lines = whole.splitlines()
        assert found.chain.size == len(lines) == len(receipts) + len(files.parts)
    assert head is not None
    assert max(path.name for path in (tmp_path / "ledger").glob("*.jsonl")) == "current.jsonl"


def test_a_crash_between_the_renames_is_completed(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, limits=Limits(size=3_000)) as ledger:
        receipts = fill(ledger, 9)
        until((tmp_path / "ledger" / segment_name(0)).exists)
    folder = tmp_path / "ledger"
    (folder / "current.jsonl").rename(folder / "next.jsonl")
    assert found_in(tmp_path).problem is None
    with Ledger.open(tmp_path) as ledger:
        assert ledger.status().entries == len(receipts) + 2
        fill(ledger, 1)
    assert found_in(tmp_path).problem is None
    assert not (folder / "next.jsonl").exists()


def test_a_crash_before_the_renames_leaves_nothing(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    (tmp_path / "ledger/next.jsonl").write_bytes(b"{")
    with Ledger.open(tmp_path) as ledger:
        fill(ledger, 1)
    assert not (tmp_path / "ledger/next.jsonl").exists()
    assert found_in(tmp_path).chain.size == 2


def test_a_missing_file_is_not_taken_for_a_crash(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, limits=Limits(size=3_000)) as ledger:
        fill(ledger, 9)
        until((tmp_path / "ledger" / segment_name(0)).exists)
    (tmp_path / "ledger/current.jsonl").unlink()
    with pytest.raises(ConfigurationError) as caught:
        Ledger.open(tmp_path)
    assert caught.value.code == "ledger_missing"


def test_a_segment_that_a_copy_has_twice_is_not_written_on(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    folder = tmp_path / "ledger"
    (folder / segment_name(0)).write_bytes((folder / "current.jsonl").read_bytes() + b"more\n")
    with pytest.raises(ConfigurationError, match="restore both from one copy"):
        Ledger.open(tmp_path)


def test_sealed_segments_are_never_cut_or_written(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, limits=Limits(size=3_000)) as ledger:
        fill(ledger, 9)
        until((tmp_path / "ledger" / segment_name(0)).exists)
    log = PosixLog(tmp_path / "ledger")
    try:
        base = log.parts()[-1].offset
        with pytest.raises(OSError, match="sealed"):
            log.truncate(base - 1)
        with pytest.raises(OSError, match="Invalid argument"):
            log.write(base - 1, b"x")
        whole = log.read(0, 1 << 20)
        assert log.read(base - 5, 10) == whole[base - 5 : base + 5]
        assert [log.read(at, 1 << 20) for at in range(0, len(whole) + 9, 97)] == [
            whole[at:] for at in range(0, len(whole) + 9, 97)
        ]
    finally:
        log.close()


def test_a_new_file_has_space_in_advance_and_a_sealed_one_none(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, limits=Limits(size=200_000)) as ledger:
        fill(ledger, 600)
        until((tmp_path / "ledger" / segment_name(0)).exists)
        until((tmp_path / "ledger/current.jsonl").exists)  # for an instant it is called next.jsonl
        facts = (tmp_path / "ledger/current.jsonl").stat()
        assert facts.st_blocks * 512 > 1 << 20
    sealed = (tmp_path / "ledger" / segment_name(0)).stat()
    assert sealed.st_blocks * 512 < sealed.st_size + (1 << 16)


def descriptors(state: Path) -> list[str]:
    """Of lines, by what is open."""
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return [path for path in held if path.startswith(str(state)) and ".jsonl" in path]


def test_a_long_file_is_sealed_with_its_digest(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, limits=Limits(size=3 << 20)) as ledger:
        for _ in range(6):
            fill(ledger, 1_200)
        until((tmp_path / "ledger" / segment_name(0)).exists)
    sealed = (tmp_path / "ledger" / segment_name(0)).read_bytes()
    assert len(sealed) > 3 << 20
    second = next(entries(tmp_path / "ledger", Selection(types=("ledger.rotated",))))
    assert second.data["sha256"] == hashlib.sha256(sealed).hexdigest()
    assert found_in(tmp_path).problem is None


def test_descriptors_do_not_pile_up(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path, limits=Limits(size=1_000)) as ledger:
        fill(ledger, 2)
        before = descriptors(tmp_path)
        for _ in range(30):
            fill(ledger, 3)
            until_short(tmp_path, 1_000)
        until(lambda: len(descriptors(tmp_path)) <= len(before) + 1)  # what was sealed last is being looked at
    storage = PosixStorage(tmp_path / "ledger")
    assert len(storage.open_log().parts()) > 10


def test_the_clock_of_a_test_is_looked_at_as_before() -> None:
    """Nothing of this asks for the time where nothing is due: what is written does not change."""
    looks = ticking()
    calls = 0

    def clock() -> int:
        nonlocal calls
        calls += 1
        return looks()

    storage = created()
    with opened(storage, clock=clock) as ledger:
        before = calls
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    assert calls == before + 1
