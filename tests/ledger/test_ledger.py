"""The ledger as the daemon uses it: places at once, durability later, one sync for many, and no second chance."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.errors import ConfigurationError, Refused
from immured.ledger import Ledger, Receipt, create
from immured.ledger.checkpoint import open_checkpoint
from immured.ledger.reader import scan
from immured.ledger.timestamps import timestamp
from immured.ledger.verify import verify_file
from tests.ledger.memory import MemoryStorage
from tests.ledger.sample import ACTOR, DAEMON, START_NS, bells, created, opened, vkeys
from tests.patience import PATIENCE_S, until


def entries(storage: MemoryStorage) -> list[tuple[int, str]]:
    seen: list[tuple[int, str]] = []
    found = scan(storage, storage.size(), {}, lambda entry: seen.append((entry.seq, entry.type)))
    assert found.problem is None
    return seen


class Gate:
    """Holds the writer back at its next sync until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.armed = False

    def __call__(self, operation: str) -> None:
        if operation == "sync" and self.armed:
            self.reached.set()
            assert self.open.wait(PATIENCE_S)


class Fault:
    """Makes an operation fail once armed."""

    def __init__(self, operation: str, number: int) -> None:
        self.operation, self.number = operation, number
        self.armed = False
        self.count = 0

    def __call__(self, operation: str) -> None:
        if self.armed and operation == self.operation:
            self.count += 1
            raise OSError(self.number, os.strerror(self.number))


def test_a_receipt_is_known_at_once() -> None:
    storage = created()
    with opened(storage) as ledger:
        pending = ledger.entry("run.accepted", ACTOR, {})
        assert pending.receipt.seq == 1
        assert pending.wait(PATIENCE_S) == pending.receipt
    seen: list[Receipt] = []
    scan(storage, storage.size(), {}, lambda entry: seen.append(Receipt(entry.seq, entry.leaf)))
    assert seen[1] == pending.receipt


def test_what_is_durable_is_on_the_disk() -> None:
    storage = created()
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {"sandbox": "s1"}).wait(PATIENCE_S)
        assert storage.disk is not None
        assert b'"sandbox":"s1"' in storage.disk


def test_entries_wait_for_their_own_sync() -> None:
    gate = Gate()
    storage = created(gate)
    ledger = opened(storage)
    gate.armed = True
    pending = ledger.entry("run.accepted", ACTOR, {})
    assert gate.reached.wait(PATIENCE_S)
    with pytest.raises(TimeoutError):
        pending.wait(0.01)
    gate.open.set()
    assert pending.wait(PATIENCE_S).seq == 1
    ledger.close()


def test_what_comes_during_a_sync_shares_the_next_one() -> None:
    gate = Gate()
    storage = created(gate)
    ledger = opened(storage)
    before = storage.syncs
    gate.armed = True
    first = ledger.entry("run.accepted", ACTOR, {})
    assert gate.reached.wait(PATIENCE_S)
    rest = [ledger.entry("run.accepted", ACTOR, {}) for _ in range(50)]
    gate.open.set()
    for pending in [first, *rest]:
        pending.wait(PATIENCE_S)
    assert storage.syncs - before == 2
    ledger.close()


def test_a_batch_wakes_an_event_loop_once() -> None:
    gate = Gate()
    storage = created(gate)
    ledger = opened(storage)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        wakes = 0
        plain = loop.add_reader

        def counting(fd: int, heard: Callable[[], None]) -> None:
            def counted() -> None:
                nonlocal wakes
                wakes += 1
                heard()

            plain(fd, counted)

        loop.add_reader = counting  # type: ignore[method-assign, assignment]
        gate.armed = True
        ledger.entry("run.accepted", ACTOR, {})
        await asyncio.to_thread(gate.reached.wait, PATIENCE_S)
        waiting = [asyncio.ensure_future(ledger.entry("run.accepted", ACTOR, {}).durable()) for _ in range(40)]
        await asyncio.sleep(0)
        gate.open.set()
        receipts = await asyncio.gather(*waiting)
        assert [receipt.seq for receipt in receipts] == list(range(2, 42))
        return wakes

    assert asyncio.run(main()) == 1
    ledger.close()


def test_an_entry_that_is_durable_already_is_not_waited_for() -> None:
    with opened(created()) as ledger:
        pending = ledger.entry("run.accepted", ACTOR, {})
        pending.wait(PATIENCE_S)

        async def main() -> Receipt:
            return await pending.durable()

        assert asyncio.run(main()) == pending.receipt


def test_a_waiter_that_gave_up_disturbs_nobody() -> None:
    gate = Gate()
    ledger = opened(created(gate))

    async def main() -> None:
        gate.armed = True
        one, other = ledger.entry("run.accepted", ACTOR, {}), ledger.entry("run.accepted", ACTOR, {})
        tasks = [asyncio.ensure_future(one.durable()), asyncio.ensure_future(other.durable())]
        await asyncio.sleep(0)
        tasks[0].cancel()
        gate.open.set()
        assert (await tasks[1]).seq == 2

    asyncio.run(main())
    ledger.close()


def test_threads_may_append_at_once() -> None:
    storage = created()
    with opened(storage) as ledger:

        def work() -> None:
            for _ in range(50):
                ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(entries(storage)) == 401


def test_short_writes_are_completed() -> None:
    storage = created()
    storage.largest_write = 7
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    assert len(entries(storage)) == 2


@pytest.mark.parametrize(("operation", "number"), [("write", errno.EIO), ("sync", errno.EIO), ("write", errno.ENOSPC)])
def test_after_a_failure_everything_is_refused_for_good(operation: str, number: int) -> None:
    fault = Fault(operation, number)
    storage = created(fault)
    ledger = opened(storage)
    ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    fault.armed = True
    with pytest.raises(Refused, match=os.strerror(number)) as caught:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    assert caught.value.code == "ledger_unavailable"
    assert caught.value.remedy
    fault.armed = False
    with pytest.raises(Refused, match=os.strerror(number)):
        ledger.entry("run.accepted", ACTOR, {})
    with pytest.raises(Refused, match=os.strerror(number)):
        ledger.admit()
    ledger.close()
    assert fault.count == 1, "the file was touched again after it had failed"


def test_a_failure_reaches_those_who_wait_on_an_event_loop() -> None:
    fault = Fault("sync", errno.EIO)
    ledger = opened(created(fault))

    async def main() -> None:
        fault.armed = True
        with ledger.turn():
            waiting = [ledger.entry("run.accepted", ACTOR, {}).durable() for _ in range(3)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, Refused) for result in results)

    asyncio.run(main())
    ledger.close()


def test_a_failed_ledger_signs_no_checkpoint() -> None:
    fault = Fault("sync", errno.EIO)
    storage = created(fault)
    ledger = opened(storage)
    fault.armed = True
    with pytest.raises(Refused):
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    ledger.close()
    assert storage.names("checkpoints") == [f"{1:020d}"]


def test_what_was_acknowledged_before_a_failure_is_there_after_a_restart() -> None:
    fault = Fault("write", errno.ENOSPC)
    storage = created(fault)
    ledger = opened(storage)
    receipt = ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    fault.armed = True
    with pytest.raises(Refused):
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    ledger.close()
    fault.armed = False
    opened(storage).close()
    assert entries(storage)[receipt.seq] == (receipt.seq, "run.accepted")


def test_a_closed_ledger_refuses() -> None:
    ledger = opened(created())
    ledger.close()
    with pytest.raises(Refused, match="closed") as caught:
        ledger.entry("run.accepted", ACTOR, {})
    assert caught.value.code == "ledger_unavailable"


def test_what_was_queued_before_closing_is_written() -> None:
    storage = created()
    ledger = opened(storage)
    pending = [ledger.entry("run.accepted", ACTOR, {}) for _ in range(20)]
    ledger.close()
    assert [one.wait(0).seq for one in pending] == list(range(1, 21))


def test_closing_signs_a_checkpoint_of_everything() -> None:
    storage = created()
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    newest = storage.names("checkpoints")[-1]
    head = open_checkpoint(storage.files[f"checkpoints/{newest}"], vkeys(storage))
    assert scan(storage, storage.size(), {head.size: head}).covered == head.size == 2


def test_closing_an_unchanged_ledger_signs_nothing() -> None:
    storage = created()
    opened(storage).close()
    assert storage.names("checkpoints") == [f"{1:020d}"]


def test_a_checkpoint_comes_after_so_many_entries() -> None:
    storage = created()
    with opened(storage, checkpoint_entries=4) as ledger:
        for _ in range(9):
            ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    assert storage.names("checkpoints") == [f"{size:020d}" for size in (1, 5, 9, 10)]


def test_a_checkpoint_comes_after_so_long() -> None:
    signed = threading.Event()

    def before(operation: str) -> None:
        if operation.startswith("write_whole checkpoints/") and not operation.endswith("01"):
            signed.set()

    with opened(created(before), checkpoint_seconds=0.01) as ledger:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
        assert signed.wait(PATIENCE_S)


def test_a_ledger_that_died_unsigned_is_signed_at_its_next_start() -> None:
    storage = created()
    first = opened(storage)
    first.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
    storage.locked = False  # the process is gone
    opened(storage, checkpoint_seconds=1e9).close()
    assert storage.names("checkpoints")[-1] == f"{2:020d}"
    first.close()


def test_a_checkpoint_that_cannot_be_written_stops_no_entry() -> None:
    def before(operation: str) -> None:
        if operation.startswith("write_whole checkpoints/") and not operation.endswith("01"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(created(before), checkpoint_entries=1) as ledger:
        for _ in range(3):
            ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
        # The third was taken up only after the second's checkpoint had been tried.
        assert os.strerror(errno.ENOSPC) in ledger.status().checkpoint_failure


def test_a_clock_that_steps_back_is_remarked_on() -> None:
    now = START_NS + 10**9
    storage = created()
    with opened(storage, clock=lambda: now) as ledger:
        ledger.entry("run.accepted", ACTOR, {})
        now -= 5 * 10**9
        assert ledger.entry("run.finished", ACTOR, {}).receipt.seq == 3
    assert [kind for _, kind in entries(storage)] == ["ledger.created", "run.accepted", "clock.stepped", "run.finished"]


def test_the_remark_names_both_times() -> None:
    storage = created()
    with opened(storage, clock=lambda: START_NS - 1) as ledger:
        ledger.entry("run.accepted", ACTOR, {})
    data: list[object] = []
    scan(storage, storage.size(), {}, lambda entry: data.append((entry.ts, entry.data)))
    before, after = timestamp(START_NS), timestamp(START_NS - 1)
    assert data[1] == (after, {"from": before, "to": after})


def test_what_no_entry_can_hold_takes_no_place() -> None:
    with opened(created()) as ledger:
        with pytest.raises(ValueError, match="no place"):
            ledger.entry("run.accepted", ACTOR, {"share": 0.5})
        assert ledger.entry("run.accepted", ACTOR, {}).receipt.seq == 1


def test_replay_gives_what_the_file_held_at_the_start() -> None:
    storage = created()
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {"sandbox": "s1"})
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {"sandbox": "s2"}).wait(PATIENCE_S)
        assert [(entry.seq, entry.data.get("sandbox")) for entry in ledger.replay()] == [(0, None), (1, "s1")]


def test_a_visitor_sees_the_same_without_a_second_reading() -> None:
    storage = created()
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {})
    seen: list[int] = []
    opened(storage, visit=lambda entry: seen.append(entry.seq)).close()
    assert seen == [0, 1]


# --- a state directory ---


def test_a_new_ledger_verifies(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path) as ledger:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
        keys = ledger.origin
    from immured.ledger.ledger import load_vkeys

    vkey = load_vkeys(tmp_path / "keys" / "ledger.vkey")
    report = verify_file(tmp_path / "ledger" / "current.jsonl", tmp_path / "ledger" / "checkpoints", vkey)
    assert report.whole
    assert (report.entries, report.covered, report.origin) == (2, 2, keys)


def test_private_files_are_private(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    modes = {
        str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777
        for path in tmp_path.rglob("*")
        if not path.name.startswith("0")
    }
    assert modes == {
        "keys": 0o711,
        "keys/ledger.pem": 0o600,
        "keys/ledger.vkey": 0o644,
        "ledger": 0o700,
        "ledger/checkpoints": 0o700,
        "ledger/current.jsonl": 0o600,
        "ledger/lock": 0o600,
        "ledger/quarantine": 0o700,
    }


def test_a_ledger_is_never_replaced(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    before = (tmp_path / "ledger" / "current.jsonl").read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        create(tmp_path, DAEMON)
    assert caught.value.code == "ledger_exists"
    assert (tmp_path / "ledger" / "current.jsonl").read_bytes() == before


def test_one_process_opens_it(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path):
        with pytest.raises(ConfigurationError) as caught:
            Ledger.open(tmp_path)
        assert caught.value.code == "ledger_in_use"
    Ledger.open(tmp_path).close()


def test_no_ledger_is_said_plainly(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    (tmp_path / "ledger" / "current.jsonl").unlink()
    with pytest.raises(ConfigurationError) as caught:
        Ledger.open(tmp_path)
    assert caught.value.code == "ledger_missing"


def test_another_key_than_the_ledgers_refuses(tmp_path: Path) -> None:
    create(tmp_path / "a", DAEMON)
    create(tmp_path / "b", DAEMON)
    (tmp_path / "a/keys/ledger.pem").write_bytes((tmp_path / "b/keys/ledger.pem").read_bytes())
    with pytest.raises(ConfigurationError) as caught:
        Ledger.open(tmp_path / "a")
    assert caught.value.code == "ledger_key_mismatch"


def test_a_closed_ledger_keeps_no_disk_space_in_reserve(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path) as ledger:
        ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)
    assert (tmp_path / "ledger" / "current.jsonl").stat().st_blocks * 512 < 65_536


def test_two_ledgers_of_one_daemon_are_not_alike(tmp_path: Path) -> None:
    for name in ("a", "b"):
        create(tmp_path / name, DAEMON, clock=lambda: START_NS)
    one, other = ((tmp_path / name / "keys" / "ledger.vkey").read_text() for name in ("a", "b"))
    assert one.partition("+")[0] != other.partition("+")[0]


def test_event_loops_keep_nothing_of_a_ledger_that_is_closed(tmp_path: Path) -> None:
    """Neither one that runs on, nor one that ended before."""

    async def waits(ledger: Ledger) -> None:
        await ledger.entry("run.accepted", ACTOR, {}).durable()

    async def outlives(directory: Path) -> None:
        create(directory, DAEMON)
        with Ledger.open(directory) as ledger:
            await asyncio.to_thread(asyncio.run, waits(ledger))
            await waits(ledger)
            assert bells() > before
        await asyncio.to_thread(until, lambda: bells() == before)

    gc.collect()  # what a test before has left to it
    before = bells()
    asyncio.run(outlives(tmp_path))
    assert bells() == before


def test_what_is_durable_can_be_covered_at_once(tmp_path: Path) -> None:
    """Those who follow hear of it a little later than who waits for it."""
    create(tmp_path, DAEMON)
    with Ledger.open(tmp_path) as ledger:
        for _ in range(20):
            seq = ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S).seq
            assert ledger.cover(seq)
            assert ledger.durable.signed > seq


def test_a_ledger_that_is_closed_is_signed_to_its_end(tmp_path: Path) -> None:
    """However late the last lines came."""
    create(tmp_path, DAEMON)
    for entries in (40, 400, 1_500) * 6:
        with Ledger.open(tmp_path) as ledger:
            pending = [ledger.entry("run.accepted", ACTOR, {}) for _ in range(entries)]
        assert ledger.head is not None
        assert ledger.head.size == pending[-1].receipt.seq + 1
        assert ledger.head.end == (tmp_path / "ledger" / "current.jsonl").stat().st_size
