"""What may come between an entry and the disk, where it is written natively: a listener that fails, a caller who
commits while another closes, no memory, no descriptor."""

from __future__ import annotations

import _testcapi  # type: ignore[import-not-found]
import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured.errors import Refused
from immured.ledger.entry import Entry
from immured.ledger.exports.head import Head
from immured.ledger.keeping import Keep, Keeping
from immured.ledger.keys import load_vkeys
from immured.ledger.ledger import Ledger, create
from immured.ledger.pending import Pending
from immured.ledger.rotation import Limits
from immured.ledger.saving import Pace
from immured.ledger.verify import verify_file
from immured.ledger.writer import GroupCommit
from tests.ledger.sample import ACTOR, DAEMON, bells, created, opened
from tests.ledger.test_faults import Model
from tests.patience import PATIENCE_S, until


def entry(ledger: Ledger, **options: Any) -> Pending:
    return ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 100]}, **options)


def append_on(ledger: Ledger) -> None:
    """Until it is refused: those who follow hear of an entry later than who waits for it."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        entry(ledger).wait(PATIENCE_S)


def leaves(state: Path) -> dict[int, bytes]:
    """Start again, and verify all. Their leaf hashes."""
    found: dict[int, bytes] = {}

    def see(one: Entry) -> None:
        found[one.seq] = one.leaf

    with Ledger.open(state):
        pass
    files = state / "ledger"
    report = verify_file(files, files / "checkpoints", load_vkeys(state / "keys" / "ledger.vkey"), visit=see)
    assert report.whole, report
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    create(tmp_path / "state", DAEMON)
    return tmp_path / "state"


# --- what is kept for a later start ---


class Slow(Keeping):
    """It takes its time."""

    early: list[bool]
    ledger: Ledger

    def placed(self, seq: int, offset: int, leaf: bytes, at_ns: int, keep: Keep) -> None:
        time.sleep(0.05)
        self.early.append(self.ledger._completion.count <= seq)
        super().placed(seq, offset, leaf, at_ns, keep)


def test_what_is_kept_of_an_entry_is_told_before_it_can_be_durable(state: Path) -> None:
    with Ledger.open(state, keeper=Model()) as ledger:
        entry(ledger).wait(PATIENCE_S)
        slow = Slow()
        slow.early, slow.ledger = [], ledger
        ledger._entrance.keeping = slow
        for _ in range(3):
            entry(ledger).wait(PATIENCE_S)
    assert slow.early == [True] * 3


# --- a listener that fails ---


class Follower:
    """It fails, once it has seen to it that more is durable, of which it was not told yet."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.told = 0

    def extend(self, leaves: bytes) -> None:
        del leaves
        self.told += 1
        if self.told < 3:
            entry(self._ledger).wait(PATIENCE_S)
        raise MemoryError

    def signed(self, head: Head, note: bytes) -> None:
        """See durable.Follower."""

    def close(self) -> None:
        """See durable.Follower."""


def test_whatever_a_listener_does_nobody_is_left_waiting(state: Path) -> None:
    ledger = Ledger.open(state, keeper=Model())
    entry(ledger).wait(PATIENCE_S)
    with ledger.turn():
        ledger.durable.followers.append(Follower(ledger))
    with pytest.raises(Refused, match="MemoryError"):
        append_on(ledger)
    ledger.close()
    with Ledger.open(state, keeper=Model()):
        pass


def test_who_could_not_follow_leaves_nothing_for_a_start_to_rely_on(state: Path) -> None:
    ledger = Ledger.open(state, keeper=Model())
    with ledger.turn():
        ledger.durable.followers.insert(0, Follower(ledger))
    with pytest.raises(Refused, match="MemoryError"):
        append_on(ledger)
    ledger.durable.sign()
    ledger.close()
    swift, whole = Model(), Model()
    with Ledger.open(state, keeper=swift, whole_bytes=0):
        pass
    (state / "ledger" / "resume").unlink()
    with Ledger.open(state, keeper=whole):
        pass
    assert swift.knows() == whole.knows()


def test_what_comes_after_a_sealed_file_stands_after_it_in_the_tree(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(state, limits=Limits(size=3_000))
    made: list[Pending] = []

    def done() -> None:
        made.append(entry(ledger))
        made[-1].wait(PATIENCE_S)
        raise OSError(5, "what is sealed cannot be read")

    monkeypatch.setattr(ledger._rotation, "done", done)
    with pytest.raises(Refused, match="cannot be read"):
        append_on(ledger)
    assert not ledger.cover(made[0].receipt.seq)
    ledger.close()
    assert leaves(state)[made[0].receipt.seq] == made[0].receipt.leaf


def test_a_tree_that_may_lack_entries_is_signed_by_nobody(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.open(state)
    committed, made = ledger.committed, list[Pending]()

    def first_not(leaves: bytes, length: int) -> None:
        if made:
            committed(leaves, length)
            return
        made.append(entry(ledger))
        made[0].wait(PATIENCE_S)
        raise MemoryError

    monkeypatch.setattr(ledger, "committed", first_not)
    with pytest.raises(Refused, match="MemoryError"):
        append_on(ledger)
    assert not ledger.cover(made[0].receipt.seq)
    ledger.close()
    assert leaves(state)[made[0].receipt.seq] == made[0].receipt.leaf


def test_whoever_takes_the_turn_and_finds_that_the_listener_fails_ends_it(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what it was to be told of would be missing in the tree, and more would come."""
    ledger = Ledger.open(state)
    raising = threading.Event()

    def committed(leaves: bytes, length: int) -> None:
        del leaves, length
        raising.set()
        raise MemoryError

    monkeypatch.setattr(ledger, "committed", committed)
    entry(ledger).wait(PATIENCE_S)
    with contextlib.suppress(MemoryError), ledger.turn():
        pass
    assert raising.is_set()
    with pytest.raises(Refused, match="MemoryError"):
        entry(ledger).wait(PATIENCE_S)
    ledger.close()


# --- closing ---


class Late(GroupCommit):
    """Its thread has looked after all that is due, and looks late whether it should end."""

    armed = False
    reached, may_go = threading.Event(), threading.Event()
    _value = False

    @property
    def _stopping(self) -> bool:
        if self.armed and threading.current_thread().name == "immured-ledger":
            Late.armed = False
            self.reached.set()
            assert self.may_go.wait(PATIENCE_S)
        return self._value

    @_stopping.setter
    def _stopping(self, value: bool) -> None:
        self._value = value
        if value:
            self.may_go.set()


def test_who_closes_waits_for_a_caller_who_commits_himself(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immured.ledger.ledger.GroupCommit", Late)
    ledger = Ledger.open(state)
    here, go_on = threading.Event(), threading.Event()
    committed = ledger.committed
    made: list[Pending] = []

    def slowly(leaves: bytes, length: int) -> None:
        if threading.current_thread() is alone:
            here.set()
            assert go_on.wait(PATIENCE_S)
        committed(leaves, length)

    alone = threading.Thread(target=lambda: made.append(entry(ledger, alone=True)))
    entry(ledger).wait(PATIENCE_S)
    monkeypatch.setattr(ledger, "committed", slowly)
    Late.armed = True
    ledger._writer.queue.rouse(True)
    assert Late.reached.wait(PATIENCE_S)
    alone.start()
    assert here.wait(PATIENCE_S)
    closing = threading.Thread(target=ledger.close)
    closing.start()
    closing.join(0.3)
    assert closing.is_alive(), "it was closed while somebody wrote"
    go_on.set()
    for one in (alone, closing):
        one.join(PATIENCE_S)
        assert not one.is_alive()
    assert leaves(state)[made[0].receipt.seq] == made[0].receipt.leaf


# --- no memory ---


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """No thread takes the interpreter from another that does not wait: else it would be its allocation that fails."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1_000)
    yield
    sys.setswitchinterval(before)


@contextlib.contextmanager
def failing_allocation(number: int) -> Iterator[None]:
    _testcapi.set_nomemory(number, number + 1)
    try:
        yield
    finally:
        _testcapi.remove_mem_hooks()


WAYS: dict[str, Callable[[Ledger], None]] = {
    "the short way": lambda ledger: None,
    "the long way": lambda ledger: setattr(ledger._places, "room", 0),
    "after a clock that went back": lambda ledger: setattr(ledger._places, "last_ns", ledger._places.last_ns + 10**10),
}


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("way", WAYS)
def test_whatever_allocation_fails_an_entry_is_in_or_nothing_is_changed(way: str) -> None:
    storage = created()
    ledger = opened(storage, keeper=Model())
    places = ledger._places
    assert ledger.keeping is not None
    whole = entry(ledger, reserves_outcome=True).wait(PATIENCE_S).seq
    big = entry(ledger, reserves_outcome=500_000).wait(PATIENCE_S).seq
    made = [whole, big]
    failures = successes = number = 0
    options: tuple[dict[str, Any], ...] = ({"reserves_outcome": True}, {"part_of": big}, {"outcome_of": whole})
    while successes < 3:
        given = options[successes]
        with ledger.turn():
            WAYS[way](ledger)
            before = (places.seq, places.kept, dict(places.outstanding))
            data, error, pending = {"argv": ["x" * 100]}, False, None
            with failing_allocation(number):
                try:
                    pending = ledger.entry("run.accepted", ACTOR, data, **given)
                except MemoryError:
                    error = True
            after = (places.seq, places.kept, dict(places.outstanding))
            stepped = way.startswith("after") and after[0] == before[0] + 1
            if error:
                assert after[1:] == before[1:], number
                assert after[0] == before[0] or stepped, number
            else:
                assert pending is not None
                assert pending.receipt.seq == after[0] - 1
                made.append(pending.receipt.seq)
        number, failures = number + 1, failures + error
        if pending is not None:
            pending.wait(PATIENCE_S)
            if number > 200:
                successes, number = successes + 1, 0
    assert failures > 5
    last = places.seq
    ledger.close()
    assert ledger.keeping.intents() == made, "what is kept is of other entries"
    with opened(storage) as again:
        assert again.status().entries == last


# --- no descriptor ---


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Nor one that another thread gives back meanwhile: none is given above the standard ones, which stay taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_descriptor_a_loop_hears_of_it_all_the_same(state: Path) -> None:
    async def waits(ledger: Ledger) -> None:
        with no_more_descriptors():
            with pytest.raises(OSError, match="Too many open files"):
                os.eventfd(0)
            made = [entry(ledger) for _ in range(5)]
            told = await asyncio.wait_for(asyncio.gather(*(one.durable() for one in made)), PATIENCE_S)
            assert told == [one.receipt for one in made]
        assert await asyncio.wait_for(entry(ledger).durable(), PATIENCE_S)
        ledger._writer.condemn(OSError(5, "condemned"))
        with pytest.raises(Refused, match="condemned"):
            entry(ledger)

    ledger = Ledger.open(state)
    asyncio.run(waits(ledger))
    ledger.close()


def test_without_a_descriptor_a_loop_hears_of_a_failure_too(state: Path) -> None:
    async def waits(ledger: Ledger) -> None:
        with no_more_descriptors():
            with ledger._writer._turns():
                made = entry(ledger).durable()
                ledger._writer._fail(OSError(5, "condemned"))
            with pytest.raises(Refused, match="condemned"):
                await asyncio.wait_for(made, PATIENCE_S)

    ledger = Ledger.open(state)
    asyncio.run(waits(ledger))
    ledger.close()


def test_a_loop_that_takes_no_descriptor_hears_of_it_too(state: Path) -> None:
    """And what was hung up for it is taken down: the disk's thread would go on ringing it."""

    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *arguments: Any) -> None:  # type: ignore[override]
            if "heard" in repr(callback):
                raise NotImplementedError
            super().add_reader(fd, callback, *arguments)

    async def waits() -> None:
        before = bells()
        for _ in range(20):
            await asyncio.wait_for(entry(ledger).durable(), PATIENCE_S)
        assert bells() == before

    with Ledger.open(state) as ledger, asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(waits())


# --- no thread ---


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From then on none of that name can be started, as where the kernel gives no more."""
    start = threading.Thread.start

    def without(name: str) -> None:
        def started(thread: threading.Thread) -> None:
            if thread.name == name:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", started)

    return without


def test_who_takes_the_turn_first_keeps_nobody_from_what_is_due(state: Path) -> None:
    """He tells the listener what the thread that follows then hears nothing of, and it sleeps until it does."""
    with Ledger.open(state, checkpoint_seconds=0.01) as ledger:
        for _ in range(30):
            ledger.entry("run.intent", ACTOR, {}).wait(PATIENCE_S)
            with ledger.turn():  # sooner, nearly always, than the one who follows wakes up
                size = ledger.durable.tree.size
            until(lambda size=size: ledger.durable.signed >= size)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["immured-disk", "immured-ledger"])
def test_a_ledger_that_gets_one_thread_of_two_leaves_none(
    state: Path, no_thread: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = set(threading.enumerate())
    no_thread(name)
    with pytest.raises(RuntimeError, match="new thread"):
        Ledger.open(state)
    assert set(threading.enumerate()) <= before
    monkeypatch.undo()
    assert leaves(state)


@pytest.mark.parametrize("name", ["immured-resume", "immured-tree", "immured-digest"])
def test_what_is_done_aside_is_put_off_where_there_is_no_thread(
    state: Path, no_thread: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pace = Pace(entries=1, seconds=0.0)
    ledger = Ledger.open(
        state, keeper=Model(), limits=Limits(size=1_500_000), checkpoint_seconds=0.001, pace=pace, whole_bytes=0
    )
    ledger.durable.pause = 0.0
    assert ledger.tree is not None
    no_thread(name)
    for number in range(40):
        if number % 10 == 0:
            ledger.tree.amiss()
            ledger.tree._retry = 0.0
        ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 1_000] * 55}).wait(PATIENCE_S)
    monkeypatch.undo()
    last = entry(ledger).wait(PATIENCE_S)
    until = time.monotonic() + PATIENCE_S
    while not ledger.status().segments:
        assert time.monotonic() < until, "nothing is sealed"
        time.sleep(0.01)
    ledger.close()
    assert (state / "ledger" / "resume").exists()
    assert leaves(state)[last.seq] == last.leaf


# --- signals ---


class Struck(Exception):
    """A signal came."""


@pytest.mark.parametrize("raises", [False, True], ids=["it is seen to", "it ends the waiting"])
def test_a_signal_comes_through_to_who_waits(state: Path, *, raises: bool) -> None:
    came: list[int] = []

    def handler(number: int, frame: object) -> None:
        del frame
        came.append(number)
        if raises:
            raise Struck

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with Ledger.open(state) as ledger:
            with ledger.turn():
                pending = entry(ledger)

                def waits() -> None:
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    pending.wait(PATIENCE_S if raises else 0.5)

                with pytest.raises(Struck if raises else TimeoutError):
                    waits()
            assert came == [signal.SIGALRM]
            assert pending.wait(PATIENCE_S) == pending.receipt
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- event loops and processes that end ---


def test_a_loop_that_runs_again_hears_of_what_it_did_not_wait_for(state: Path) -> None:
    with Ledger.open(state) as ledger:
        stopped = asyncio.new_event_loop()

        async def leaves_it() -> list[asyncio.Future[Any]]:
            return [entry(ledger).durable()]

        for _ in range(3):
            asyncio.run(leaves_it())
        with ledger.turn():
            (awaited,) = stopped.run_until_complete(leaves_it())
        asyncio.run(leaves_it())
        entry(ledger).wait(PATIENCE_S)
        assert not awaited.done()
        receipt = stopped.run_until_complete(asyncio.wait_for(awaited, PATIENCE_S))
        assert receipt.seq == 4
        stopped.close()


ENDS = """
import asyncio, os, sys, threading
from pathlib import Path
from immured.ledger.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]))
def tell(receipt):
    os.write(1, f"{receipt.seq} {receipt.leaf.hex()}\\n".encode())
def threaded(alone):
    while True:
        tell(ledger.entry("run.accepted", {}, {}, alone=alone).wait())
async def looped():
    while True:
        tell(await ledger.entry("run.accepted", {}, {}).durable())
for alone in (False, False, True):
    threading.Thread(target=threaded, args=(alone,), daemon=True).start()
threading.Thread(target=lambda: asyncio.run(looped()), daemon=True).start()
async def last():
    for _ in range(50):
        tell(await ledger.entry("run.accepted", {}, {}).durable())
    ledger.entry("run.accepted", {}, {}).durable()
asyncio.run(last())
ledger.entry("run.accepted", {}, {})
if sys.argv[2] == "dropped":
    del ledger
"""


@pytest.mark.parametrize("how", ["held", "dropped"])
def test_an_interpreter_ends_with_all_of_it_under_way(state: Path, how: str) -> None:
    command = [sys.executable, "-X", "dev", "-c", ENDS, str(state), how]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        told = {
            int(seq): bytes.fromhex(leaf) for seq, leaf in (line.split() for line in done.stdout.decode().splitlines())
        }
        assert len(told) >= 50
        found = leaves(state)
        assert told == {seq: found.get(seq) for seq in told}
