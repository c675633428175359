"""Clients that do everything there is to do, over and over, each with its own dice."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError

__all__ = ["Load"]

CLIENTS = 3


class Load:
    """Mixed load between `go` and `rest`. `failures` are what should not have been refused."""

    def __init__(self, daemon: ThrowawayDaemon) -> None:
        self.acts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._daemon = daemon
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, seconds: float) -> None:
        """So long, and then until everything that was begun is over."""
        self._stop.clear()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            if thread.is_alive():
                raise RuntimeError("a client of the load hangs")

    def _work(self, number: int) -> None:
        choose = random.Random(number + 100 * self.acts.total())
        while not self._stop.is_set():
            with self._daemon.client() as client:
                # In any order, each as often as it stands there: a slow machine does less, and no less of any.
                for act in choose.sample(ACTS, len(ACTS)):
                    try:
                        act(client, choose)
                    except ImmuredError as error:
                        self.failures.append(f"{act.__name__}: {error.code}: {error.message}")
                    self.acts[act.__name__] += 1
                    if self._stop.is_set():
                        break


def run_once(client: Client, choose: random.Random) -> None:
    client.run(["/bin/sh", "-c", f"echo {choose.random()} >&2; exit {choose.randrange(3)}"])


def run_into_a_limit(client: Client, _: random.Random) -> None:
    client.run(["/bin/sh", "-c", "while :; do :; done"], limits={"wall": "50ms"})


def stream(client: Client, choose: random.Random) -> None:
    client.run(["/bin/cat"], stdin=os.urandom(choose.randrange(300_000)), stream=True)


def batch(client: Client, _: random.Random) -> None:
    list(client.batch([["/bin/true"], ["/bin/false"], ["/bin/echo", "x"]] * 4))


def live(client: Client, choose: random.Random) -> None:
    with client.sandbox(ttl="10m") as sandbox:
        sandbox.files.write("/tmp/x", os.urandom(choose.randrange(200_000)))
        sandbox.exec(["/bin/cat", "/tmp/x"])
        started = sandbox.start(["/bin/sh", "-c", "while :; do echo tick; sleep 0.01; done"])
        sandbox.pause()
        sandbox.resume()
        sandbox.files.read("/tmp/x")
        started.logs()
        if choose.random() < 0.5:
            started.signal("TERM")
            started.wait()


def list_all(client: Client, _: random.Random) -> None:
    client.sandboxes()
    client.status()


def order_nonsense(client: Client, _: random.Random) -> None:
    try:
        client.open("nobody").exec(["/bin/true"])
    except ImmuredError as error:
        if error.code != "not_found":
            raise


def vanish(client: Client, _: random.Random) -> None:
    """The connection is lost under a run."""
    client.start(["/bin/sleep", "60"])
    client.close()


ACTS: tuple[Callable[[Client, random.Random], None], ...] = (
    run_once, run_once, run_once, run_into_a_limit, stream, batch, live, live, list_all, order_nonsense, vanish,
)  # fmt: skip
