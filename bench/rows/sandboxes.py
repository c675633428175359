"""Sandboxes that live: made and used once, used again, and many of them at once; each beside a one-shot run."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from types import TracebackType
from typing import Final, Self

from bench import measure as take
from bench.bars import Shown
from bench.ground import Ground, Part
from bench.report import comparison
from bench.rows.live import PATIENCE_S, SETTLE_S, SLOT_BASE, SPARE
from bench.subjects import COMMAND, Sample, Subject
from bench.subjects.daemon import Immured, cpu_ns
from immured import Client
from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon

__all__ = ["measure", "measure_many"]

ASKED_AT_ONCE: Final = 100


class _OfADaemon:
    """What both subjects are: orders on one open connection of the Python SDK, whose time counts."""

    told = Immured.told

    def __init__(self, daemon: ThrowawayDaemon, name: str, how: str) -> None:
        self.name = name
        self.how = how
        self._daemon = daemon

    def __enter__(self) -> Self:
        self.client = self._daemon.client()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()

    def probe(self) -> str:
        raise NotImplementedError("its walls are those of a run: tests/sandboxes")

    def cpu_total(self) -> int | None:
        return round(time.process_time() * 1e9) + cpu_ns(self._daemon.pid)


class Created(_OfADaemon):
    """From the order for a sandbox to the signed reply of its first exec. Its end is not waited for."""

    def run(self) -> Sample:
        start = time.perf_counter_ns()
        sandbox = self.client.sandbox()
        _execute(sandbox)
        wall = time.perf_counter_ns() - start
        sandbox.remove()
        return Sample(wall, None)


class Executed(_OfADaemon):
    """One more exec in a sandbox that lives."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.sandbox = self.client.sandbox()
        return self

    def run(self) -> Sample:
        start = time.perf_counter_ns()
        _execute(self.sandbox)
        return Sample(time.perf_counter_ns() - start, None)


def _execute(sandbox: Sandbox) -> None:
    result = sandbox.exec([COMMAND])
    if result.cause != "exited" or result.exit_code != 0:
        raise RuntimeError(f"an exec of {COMMAND} ended with {result}")


def measure(ground: Ground) -> Part:
    """The bars `create` and `exec`."""
    subjects: list[Subject] = [
        Immured(ground.daemon, native=False, name="run"),
        Created(ground.daemon, "create and exec", "`sandbox.create`, then `sandbox.exec`"),
        Executed(ground.daemon, "exec", "`sandbox.exec` in a sandbox that lives"),
    ]
    entered = [ground.stack.enter_context(subject) for subject in subjects]
    series = take.burst(entered, runs=max(100, ground.effort.runs // 2), block=50)
    run, created, executed = series
    shown = [
        Shown(name, one.p50 / run.p50, f"{one.p50:.2f} ms against {run.p50:.2f}", {"walls": one.walls})
        for name, one in (("create", created), ("exec", executed))
    ]
    return Part("Sandboxes that live", shown, comparison("back to back", series, "run"), {"sandboxes": series})


def measure_many(ground: Ground) -> Part:
    """The bars `many`, `many-create` and `many-kill`."""
    count = ground.effort.many
    with _roomy(count) as daemon, daemon.client() as client:
        _creations(client, ASKED_AT_ONCE)  # the pool grows under load: that is not what is measured
        _kill_all(client)
        time.sleep(SETTLE_S)
        few = _creations(client, ASKED_AT_ONCE)
        _kill_all(client)
        made = _creations(client, count - ASKED_AT_ONCE)
        time.sleep(SETTLE_S)  # what was begun beside the last ones, cells and wardens ahead of need, is done
        crowded = _creations(client, ASKED_AT_ONCE)
        lists = [_timed(lambda: _must_list(client, count)) for _ in range(10)]
        killed = _timed(lambda: _kill_all(client))
    shown = [
        Shown("many", median(lists) / 1e6, f"of {count}, p50 of {len(lists)}", {"walls": lists}),
        Shown(
            "many-create",
            median(crowded) / median(few),
            f"{median(crowded) / 1e6:.2f} ms beside {count - ASKED_AT_ONCE}, {median(few) / 1e6:.2f} beside none",
            {"few": few, "on the way": made, "crowded": crowded},
        ),
        Shown("many-kill", killed / 1e9, f"{count} sandboxes, until none is listed as alive", {"wall": killed}),
    ]
    return Part(f"{count} sandboxes that live", shown)


def _roomy(count: int) -> ThrowawayDaemon:
    daemon = ThrowawayDaemon()
    slots = 2 * count + SPARE
    (daemon.state / "config.toml").write_text(
        f"[daemon]\nmax_runs = {count + SPARE}\nrequests_per_connection = {count + SPARE}\n"
        f"[sandboxes]\nmax = {count + SPARE}\n"
        f"[launcher]\nslot_base = {SLOT_BASE}\nslot_count = {slots}\n"
    )
    return daemon


def _timed(act: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    act()
    return time.perf_counter_ns() - start


def _creations(client: Client, count: int) -> list[int]:
    return [_timed(client.sandbox) for _ in range(count)]


def _must_list(client: Client, count: int) -> None:
    if len(client.sandboxes()) != count:
        raise RuntimeError(f"{len(client.sandboxes())} sandboxes are listed, {count} live")


def _kill_all(client: Client) -> None:
    client.prune(alive=True)
    deadline = time.monotonic() + PATIENCE_S
    while client.sandboxes():
        if time.monotonic() > deadline:
            raise RuntimeError("sandboxes that were killed still live")
        time.sleep(0.005)
