"""Whatever bytes and descriptors come through the control socket: the launcher, built with the sanitizers, answers or
ends in order. It never dies of them."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from immured.isolation.abi import Message
from immured.isolation.messages import HEADER, encode_prepare
from immured.isolation.sealed import sealed_memfd
from tests.launcher.conftest import FLAGS, PARTS, SOURCES
from tests.launcher.conftest import HERE as LAUNCHER
from tests.launcher.harness import Broker, plan_for
from tests.launcher.test_plans import mutated
from tests.patience import PATIENCE_S

ROUNDS = 60
STARTS = 6
LAST = 1 << 40  # the number of a run that is refused, when all before it was answered


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher's own sources around a warden that makes no cell."""
    built = tmp_path_factory.mktemp("native") / "immured-launcher"
    sources = [*(SOURCES / f"{part}.c" for part in PARTS), LAUNCHER / "fake_warden.c"]
    subprocess.run(["gcc", *FLAGS, *sources, "-o", built], check=True)
    return built


def any_packet(rng: random.Random, connection: int, plan: bytes) -> bytes:
    """Mostly plans that are almost right, for those get furthest."""
    if rng.random() < 0.98:
        changed = mutated(plan, rng) if rng.random() < 0.9 else plan
        data = bytearray(encode_prepare(rng.randrange(1 << 30), connection, changed, in_memfd=rng.random() < 0.2))
        if rng.random() < 0.2:
            at = rng.randrange(HEADER.size, len(data))
            data[at] ^= 1 << rng.randrange(8)
        return bytes(data)
    kind = rng.choice([Message.KILL, Message.CONN_CLOSED, Message.STOP, Message.PREPARE, rng.randrange(1 << 32)])
    body = rng.randbytes(rng.choice([0, 0, 8, 16, 24, 400]))
    length = HEADER.size + len(body) + rng.choice([0, 0, 0, 0, 1, -1])
    return HEADER.pack(kind, max(length, 0), rng.randrange(1 << 64)) + body


class Refused:
    """How many refusals there were."""

    def __init__(self) -> None:
        self.count = 0

    def take(self, broker: Broker, *, until: int | None = None) -> None:
        """What is answered at once; or all until this run was answered, or the launcher's end (EOFError)."""
        while True:
            try:
                packet = broker.receive(0.003 if until is None else PATIENCE_S)
            except TimeoutError:
                if until is None:
                    return
                raise
            for fd in packet.fds:
                os.close(fd)
            self.count += packet.type == Message.FAILED
            if packet.id == until and packet.type > Message.CONN:
                return


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_and_no_descriptors_kill_the_launcher(program: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    plan = plan_for("true")
    refused = Refused()
    for start in range(STARTS):
        directory = tmp_path / str(start)
        directory.mkdir()
        broker = Broker(program, directory)
        image, (gate, hold) = sealed_memfd("plan", plan), os.pipe()
        try:
            broker.ready()
            client, told = broker.connect()
            with client, contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
                # It may end in order, as the status must say.
                for _ in range(ROUNDS):
                    right = [broker.null, broker.null, broker.null, gate]
                    fds = rng.choice([right, right, [image, *right], [], [gate], [image] * 4, [broker.null] * 16])
                    broker.send(any_packet(rng, told.id, plan), fds)
                    refused.take(broker)
                last = encode_prepare(LAST, told.id, plan[:-8], in_memfd=False)
                broker.send(last, [broker.null, broker.null, broker.null, gate])
            for _ in ("of wardens", "of the launcher"):  # where it ended, either has its own end of file
                with contextlib.suppress(ConnectionResetError, EOFError):
                    refused.take(broker, until=LAST)
                    break
                if broker.ends is not None:
                    broker.ends.close()
                    broker.ends = None
        finally:
            for fd in (image, gate, hold):
                os.close(fd)
            broker.close()
        assert broker.process.returncode in (0, 1), broker.log.read_text()
        assert "Sanitizer" not in broker.log.read_text()
    assert refused.count > 10 * STARTS, "hardly a packet was looked at"
