"""A caller beside whom nobody works makes its entry durable itself; nothing else may be different."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
import time

import pytest

from immured.errors import Refused
from immured.ledger import Pending
from tests.ledger.sample import ACTOR, created, opened
from tests.ledger.test_ledger import Fault, Gate, entries
from tests.patience import PATIENCE_S

FAULTS = [("write", errno.EIO), ("sync", errno.EIO), ("write", errno.ENOSPC)]


def test_where_the_writer_rests_the_caller_syncs_and_has_it_durable_at_once() -> None:
    """The writer looks after other things now and then, so not every call finds it at rest."""
    threads: list[threading.Thread] = []

    def note(operation: str) -> None:
        if operation == "sync":
            threads.append(threading.current_thread())

    storage = created(note)
    deadline = time.monotonic() + PATIENCE_S
    with opened(storage) as ledger:
        for number in itertools.count():
            threads.clear()
            ledger.entry("run.accepted", ACTOR, {"sandbox": f"s{number}"}, alone=True)
            if threads == [threading.current_thread()]:
                break
            assert time.monotonic() < deadline, "the writer never rests"
        assert storage.disk is not None
        assert f'"sandbox":"s{number}"'.encode() in storage.disk


def test_beside_a_writer_at_work_it_waits_as_everybody_does() -> None:
    gate = Gate()
    storage = created(gate)
    ledger = opened(storage)
    gate.armed = True
    first = ledger.entry("run.accepted", ACTOR, {})
    assert gate.reached.wait(PATIENCE_S)
    second = ledger.entry("run.accepted", ACTOR, {}, alone=True)
    with pytest.raises(TimeoutError):
        second.wait(0.01)
    gate.open.set()
    assert [first.wait(PATIENCE_S).seq, second.wait(PATIENCE_S).seq] == [1, 2]
    ledger.close()


@pytest.mark.parametrize(("operation", "number"), FAULTS)
def test_a_failure_is_for_good(operation: str, number: int) -> None:
    fault = Fault(operation, number)
    storage = created(fault)
    ledger = opened(storage)
    ledger.entry("run.accepted", ACTOR, {}, alone=True).wait(PATIENCE_S)
    fault.armed = True
    with pytest.raises(Refused, match=os.strerror(number)):
        ledger.entry("run.accepted", ACTOR, {}, alone=True).wait(PATIENCE_S)
    fault.armed = False
    for alone in (True, False):
        with pytest.raises(Refused, match=os.strerror(number)):
            ledger.entry("run.accepted", ACTOR, {}, alone=alone)
    ledger.close()
    assert fault.count == 1, "the file was touched again after it had failed"


def test_many_threads_of_which_each_believes_itself_alone_keep_the_order() -> None:
    storage = created()
    made: list[Pending] = []
    with opened(storage) as ledger:

        def work() -> None:
            for _ in range(50):
                made.append(ledger.entry("run.accepted", ACTOR, {}, alone=True))
                made[-1].wait(PATIENCE_S)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [seq for seq, _ in entries(storage)] == list(range(201))


def test_a_checkpoint_is_still_signed_at_the_end() -> None:
    storage = created()
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {}, alone=True)
    assert storage.names("checkpoints")[-1] == f"{2:020d}"


def test_one_that_nobody_waits_for_goes_with_the_next() -> None:
    syncs: list[str] = []
    storage = created(lambda operation: syncs.append(operation) if operation == "sync" else None)
    deadline = time.monotonic() + PATIENCE_S
    with opened(storage) as ledger:
        together = False
        while not together:  # a writer that does not rest yet takes it at once
            assert time.monotonic() < deadline, "the writer never rests"
            ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
            syncs.clear()
            unhurried = ledger.entry("sandbox.ready", ACTOR, {}, unhurried=True)
            with contextlib.suppress(TimeoutError):
                unhurried.wait(0.1)
            waited = not syncs
            ledger.entry("exec.accepted", ACTOR, {}).wait(PATIENCE_S)
            assert unhurried.is_durable()
            together = waited and len(syncs) == 1


def test_one_that_nobody_waits_for_does_not_wait_for_ever() -> None:
    with opened(created()) as ledger:
        unhurried = ledger.entry("sandbox.ready", ACTOR, {}, unhurried=True)
        ledger.flush()
        assert unhurried.wait(PATIENCE_S).seq == 1
    with opened(created()) as ledger:
        last = ledger.entry("sandbox.ready", ACTOR, {}, unhurried=True)
    assert last.is_durable(), "the ledger was closed before it was written"
