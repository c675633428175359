"""What no key of ours signed, as fast as one user can send it: it costs the daemon the same however much there is, and
nobody else waits for it.

Measured in processor time, so that a busy host changes nothing: bench/rows/flood.py has the runs a second.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator

import msgpack
import psutil
import pytest

from bench.subjects.flood import KINDS, Flood
from immured.client.throwaway import ThrowawayDaemon
from immured.service.turnstile import BAD_FRAMES, PER_SECOND
from immured.wire.keys import PrivateKey
from tests.hostile.raw import Connection, Talk, command, sealed
from tests.patience import PATIENCE_S, until
from tests.peers import connecting_as

SETTLE_S = 1.0
WINDOWS, WINDOW_S = 5, 1.0
MOST = 0.25
"""Of one processor: so much less signed work is done at most."""
_uids = itertools.count(61_000)


@pytest.fixture
def uid() -> int:
    """One who did nothing wrong yet."""
    return next(_uids)


@pytest.fixture
def talk(daemon: ThrowawayDaemon, admin: PrivateKey) -> Iterator[Talk]:
    """Somebody else's open connection, on which an order was taken."""
    talk = Talk(daemon, admin)
    talk.ask("status")
    yield talk
    talk.connection.socket.close()


def most_answers(flood: Flood) -> float:
    """That a busy host would give fewer of shows nothing; that an idle one gives no more does."""
    return 10 + BAD_FRAMES + 1.2 * PER_SECOND * flood.lasted


def processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def share(daemon: ThrowawayDaemon) -> float:
    """Of one processor, what the daemon takes while nobody gives orders: the least that was seen in any window, since a
    guest charges to whom it runs also what its host took from it meanwhile. A flood leaves none of them out."""
    least = 1.0
    for _ in range(WINDOWS):
        began, before = time.monotonic(), processor_s(daemon.pid)
        time.sleep(WINDOW_S)
        least = min(least, (processor_s(daemon.pid) - before) / (time.monotonic() - began))
    return least


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_costs_little_and_delays_nobody(
    daemon: ThrowawayDaemon, admin: PrivateKey, talk: Talk, uid: int, kind: str
) -> None:
    with Flood(daemon, kind, admin, uid=uid) as flood:
        time.sleep(SETTLE_S)
        taken = share(daemon)
        for _ in range(20):
            assert talk.ask("run", argv=["/bin/true"])["cause"] == "exited"
        with Connection(daemon) as another:  # and whoever comes anew
            assert another.ask(command(another.daemon_id), admin)["ok"] is True
    if kind != "garbage":  # a connection is closed after each: no more come than are let in
        assert flood.offered >= 50_000
    assert flood.answered <= most_answers(flood)
    assert taken <= MOST


@pytest.mark.parametrize("how", ["leave", "drip"])
def test_neither_connections_nor_single_bytes_cost_more(
    daemon: ThrowawayDaemon, admin: PrivateKey, talk: Talk, uid: int, how: str
) -> None:
    with Flood(daemon, "unsigned", admin, uid=uid, how=how):
        time.sleep(SETTLE_S)
        taken = share(daemon)
        for _ in range(20):
            assert talk.ask("run", argv=["/bin/true"])["cause"] == "exited"
    assert taken <= MOST


def test_a_user_who_floods_is_served_again_afterwards_and_on_what_he_has_proven(
    daemon: ThrowawayDaemon, admin: PrivateKey, uid: int
) -> None:
    with contextlib.ExitStack() as stack:
        proven, waiting = (stack.enter_context(connected(daemon, uid)) for _ in range(2))
        assert proven.ask(command(proven.daemon_id), admin)["ok"] is True
        with Flood(daemon, "wrong signature", admin, uid=uid, connections=100):
            time.sleep(SETTLE_S)
            waiting.frame(sealed(msgpack.packb(command(waiting.daemon_id)), [admin]))
            for _ in range(20):  # what has proven itself does not stand in the queue
                assert proven.ask(command(proven.daemon_id), admin)["ok"] is True
            reply = waiting.reply()  # in its turn: the queue is his own
            assert reply is not None
            assert reply["ok"] is True
        late = stack.enter_context(connected(daemon, uid))
        assert late.ask(command(late.daemon_id), admin)["ok"] is True


def connected(daemon: ThrowawayDaemon, uid: int) -> Connection:
    """As that user."""
    with connecting_as(uid):
        return Connection(daemon)


def test_who_leaves_while_he_waits_is_forgotten(daemon: ThrowawayDaemon, uid: int) -> None:
    """His places are free again: a user's bound is of what is open."""
    for _ in range(3):
        with Flood(daemon, "unsigned", PrivateKey.generate(), uid=uid, connections=250):
            time.sleep(0.5)
    until(lambda: lets_in(daemon, uid))


def lets_in(daemon: ThrowawayDaemon, uid: int) -> bool:
    """Whether that user gets a connection on which an order is read."""
    with connecting_as(uid), socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(PATIENCE_S)
        connected.connect(str(daemon.socket))
        try:
            connected.sendall(b"\0\0\0\0")
            received = b""
            while part := connected.recv(1 << 16):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            return False
    return b"bad_frame" in received
