"""The launcher's own count of payloads: what ran, what GO came for in vain, and that an upgrade loses none of it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import immured
from immured.isolation import messages
from immured.isolation.abi import Ability, Message
from tests.launcher.harness import Broker, eventually, plan_for

Start = Callable[..., Broker]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Of a launcher with wardens of its own, which may become another."""
    made = tmp_path / "program"
    shutil.copy(Path(immured.__file__).parent / "_native" / "immured-launcher", made)
    made.chmod(0o755)
    control = tmp_path / "launcher.sock"
    broker = Broker(made, tmp_path, slot_count=8, standing=True, control=control, broker_uid=4321, program=made)
    try:
        assert broker.come(control).abilities & Ability.COUNT
        yield broker
    finally:
        broker.close()


def counts(broker: Broker) -> messages.Counts:
    broker.send(messages.encode_count())
    return messages.parse_counts(broker.wait_for(lambda packet: packet.type == Message.COUNTS).body)


def upgrade(broker: Broker) -> None:
    before = broker.log.read_text().count("becoming ")
    broker.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: broker.log.read_text().count("becoming ") > before), broker.log.read_text()


def test_what_ran_is_counted_and_what_did_not_is_told_apart(broker: Broker) -> None:
    first = counts(broker)
    assert (first.started, first.undone) == (0, 0)
    assert abs(first.since_ns - time.time_ns()) < 60 * 10**9
    with broker.connection() as connection:
        broker.run(connection, plan_for("/bin/true"))
        broker.run(connection, plan_for("/bin/false"))
        broker.run(connection, plan_for("/no/such/program"))
        called_off = broker.prepare(connection, plan_for("/bin/true"))
        broker.call_off(called_off)
        broker.of_run(called_off)
    now = counts(broker)
    assert (now.started, now.undone, now.ran) == (3, 1, 2)
    assert (now.id, now.since_ns) == (first.id, first.since_ns)


def test_the_launcher_that_it_becomes_goes_on_counting(broker: Broker) -> None:
    with broker.connection() as connection:
        broker.run(connection, plan_for("/bin/true"))
        before = counts(broker)
        held = broker.prepare(connection, plan_for("/bin/true"))  # its warden is of the launcher before
        for ran in (2, 3):
            upgrade(broker)
            broker.run(connection, plan_for("/bin/true"))
            assert counts(broker).ran == ran
        broker.go(held)
        broker.of_run(held)
    after = counts(broker)
    assert (after.id, after.since_ns, after.ran) == (before.id, before.since_ns, 4)


def test_another_launcher_has_another_count(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    program = Path(immured.__file__).parent / "_native" / "immured-launcher"
    other = Broker(program, tmp_path / "other", slot_count=8)
    try:
        other.ready()
        assert counts(other).id != counts(broker).id
    finally:
        other.close()


def test_a_count_takes_no_descriptor_of_a_payload(broker: Broker) -> None:
    """The page is shared with what becomes the payload, and exec gives it up: nothing to count with is left there."""
    ours, theirs = os.pipe()
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("/bin/grep", "-c", "counts", "/proc/self/maps"), fds=[theirs] * 3)
        os.close(theirs)
        broker.go(run)
        broker.of_run(run)
    assert os.read(ours, 100) == b"0\n"
    os.close(ours)
