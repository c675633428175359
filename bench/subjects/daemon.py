"""The daemon through one open connection: sign, send, wait for the signed reply, verify it."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from bench.programs import Answering, compiled
from bench.subjects import COMMAND, Sample
from bench.walls import BEYOND, DEFAULT_CLASS, NO_HOST_ROOT, PROBE
from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PublicKey

__all__ = ["Immured", "cpu_ns", "native_client"]


class Immured:
    """`native`: by programs/client.c, as bwrap is started by spawn.c; else by the Python SDK, whose time counts."""

    told = frozenset((DEFAULT_CLASS, NO_HOST_ROOT, *BEYOND))

    def __init__(self, daemon: ThrowawayDaemon, *, native: bool, name: str = "") -> None:
        self.name = name or ("immured" if native else "immured, Python SDK")
        self.how = "one open connection, a client in C" if native else "one open connection, `immured.Client`"
        self._daemon = daemon
        self._native = native
        self._client: Client | None = None
        self._asked: Answering | None = None

    def probe(self) -> str:
        with self._daemon.client() as client:
            return client.run(["/bin/sh", "-c", PROBE]).stdout.decode()

    def __enter__(self) -> Self:
        if self._native:
            self._asked = native_client(self._daemon)
        else:
            self._client = self._daemon.client()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
        if self._asked is not None:
            self._asked.end()

    def run(self) -> Sample:
        if self._asked is not None:
            self._asked.ask()
            return Sample(self._asked.answer()[0], None)
        assert self._client is not None
        start = time.perf_counter_ns()
        result = self._client.run([COMMAND])
        wall = time.perf_counter_ns() - start
        if result.cause != "exited" or result.exit_code != 0:
            raise RuntimeError(f"immured: {COMMAND} ended with {result}")
        return Sample(wall, None)

    def cpu_total(self) -> int | None:
        """Broker, launcher, parker, wardens and all that they have waited for, and the client's own."""
        own = 0 if self._asked is not None else round(time.process_time() * 1e9)
        return own + cpu_ns(self._daemon.pid) + (0 if self._asked is None else cpu_ns(self._asked.pid))


def native_client(daemon: ThrowawayDaemon) -> Answering:
    """programs/client.c on a connection of its own."""
    daemon_key = PublicKey.from_pem(daemon.daemon_key.read_bytes()).raw.hex()
    program = str(compiled("client", "-lsodium"))
    return Answering("client", [program, str(daemon.socket), _raw_seed(daemon.admin_key), daemon_key, COMMAND])


def cpu_ns(pid: int) -> int:
    """CPU time of a process, its descendants, and all that they have waited for."""
    total = 0.0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return round(total * 1e9)


def _raw_seed(pem: Path) -> str:
    """A throw-away daemon's admin key, in hex: for a client that reads no PEM."""
    key = load_pem_private_key(pem.read_bytes(), None)
    return key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()).hex()
