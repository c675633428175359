"""Many sandboxes at once: what each holds in memory, and what they do to the run of somebody else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from bench import measure as take
from bench import memory
from bench.bars import Shown
from bench.ground import Ground, Part
from bench.subjects.daemon import Immured
from immured import Client
from immured.client.throwaway import ThrowawayDaemon

__all__ = ["measure"]

#: Ids of their own, below those that daemons choose by themselves: the default block has room for 511 sandboxes.
SLOT_BASE: Final = 0x6000_0000
SPARE: Final = 128
LOOKS: Final = 5
SETTLE_S: Final = 3.0
PATIENCE_S: Final = 120.0
SLEEPER: Final = {"schema": 1, "name": "sleeper", "limits": {"wall": "1h"}}


@dataclass(frozen=True, slots=True)
class Look:
    """KiB: the lines of the kernel's part, of the whole machine; the PSS of the daemon's processes, and of payloads."""

    kernel: Mapping[str, int]
    ours: int
    payloads: int


def measure(ground: Ground) -> Part:
    count = ground.effort.live
    with ExitStack() as stack:
        crowded = stack.enter_context(roomy_daemon(count))
        for daemon in (ground.daemon, crowded):
            with daemon.client() as client:
                for _ in range(30):
                    client.run(["/bin/true"])
        before = looks(crowded)
        with sleeping(crowded, count):
            during = looks(crowded)
            quiet = stack.enter_context(Immured(ground.daemon, native=True, name="none live"))
            full = stack.enter_context(Immured(crowded, native=True, name=f"{count} live"))
            series = take.burst([quiet, full], runs=max(100, ground.effort.runs // 2), block=25)
        after = looks(crowded)
    none, many = series
    how = f"{many.p50:.2f} ms with {count}, {none.p50:.2f} with none"
    speed = Shown("live", many.p50 / none.p50, how, {one.name: one.walls for one in series})
    held, rows = _memory(before, during, after, count)
    return Part(f"{count} live sandboxes", [speed, held], rows, series={"live": series})


def _memory(before: Sequence[Look], during: Sequence[Look], after: Sequence[Look], count: int) -> tuple[Shown, str]:
    phases = (before, during, after)
    growth: dict[str, float] = {}
    for name in memory.KERNEL:
        growth[name] = memory.per_unit(*[[look.kernel[name] for look in looks] for looks in phases], units=count)
    ours = memory.per_unit(*[[look.ours for look in looks] for looks in phases], units=count)
    payload = memory.per_unit(*[[look.payloads for look in looks] for looks in phases], units=count)
    kernel = sum(growth.values())
    how = (
        f"PSS of warden, PID 1 and the rest of ours {ours:.0f} KiB, the kernel's {kernel:.0f} KiB with the payload's "
        f"stacks and page tables; the payload itself (/bin/sleep) {payload:.0f} KiB more"
    )
    lines = "\n".join(f"| {name} | {kib:.0f} |" for name, kib in {"PSS of ours": ours, **growth}.items())
    figures: dict[str, object] = {"ours": ours, **growth, "payload": payload, "sandboxes": count}
    return Shown("memory", ours + kernel, how, figures), f"| KiB a sandbox | |\n|---|---:|\n{lines}"


def looks(daemon: ThrowawayDaemon) -> list[Look]:
    """A few, once things have settled: what the kernel frees, it frees a little later."""
    time.sleep(SETTLE_S)
    found = []
    for _ in range(LOOKS):
        time.sleep(0.2)
        pids = memory.tree(daemon.pid)
        whole = memory.of_processes(pids)["Pss"]
        payloads = memory.of_processes(pids, named="sleep")["Pss"]
        meminfo = memory.read_meminfo()
        found.append(Look({name: meminfo[name] for name in memory.KERNEL}, whole - payloads, payloads))
    return found


@contextmanager
def roomy_daemon(count: int) -> Iterator[ThrowawayDaemon]:
    """One that may have so many live sandboxes, and some more."""
    daemon = ThrowawayDaemon()
    slots = 2 * count + SPARE
    config = (
        f"[daemon]\nmax_runs = {count + SPARE}\nrequests_per_connection = {count + SPARE}\n"
        f"[launcher]\nslot_base = {SLOT_BASE}\nslot_count = {slots}\n"
    )
    (daemon.state / "config.toml").write_text(config)
    with daemon:
        yield daemon


@contextmanager
def sleeping(daemon: ThrowawayDaemon, count: int) -> Iterator[None]:
    """So many sandboxes that do nothing; they end with their client."""
    with daemon.client() as watcher:
        client: Client = daemon.client()
        with client, ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(client.start(["/bin/sleep", "3600"], manifest=SLEEPER))
            _wait_for(watcher, count)
            yield
            client.close()
        _wait_for(watcher, 0)


def _wait_for(client: Client, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while client.status()["live"] != count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{client.status()['live']} sandboxes live, {count} awaited")
        time.sleep(0.1)
