"""What a daemon holds that has worked and now has nothing to do."""

from __future__ import annotations

import time
from typing import Final

from bench import memory
from bench.bars import Shown
from bench.ground import Ground, Part
from immured.client.throwaway import ThrowawayDaemon

__all__ = ["measure"]

RUNS: Final = 100
NAMES: Final = ("immured", "immured-launch", "immured-parker", "immured-warden", "init")


def measure(ground: Ground) -> Part:
    with ThrowawayDaemon() as daemon:
        with daemon.client() as client:
            for _ in range(RUNS):
                client.run(["/bin/true"])
        time.sleep(ground.effort.idle_s)
        pids = memory.tree(daemon.pid)
        whole = memory.of_processes(pids)
        parts = {name: memory.of_processes(pids, named=name) for name in NAMES}
    rows = ["| process | how many | RSS MiB | PSS MiB |", "|---|---:|---:|---:|"]
    rows += [
        f"| {name} | {one['processes']} | {one['Rss'] / 1024:.1f} | {one['Pss'] / 1024:.1f} |"
        for name, one in {**parts, "all": whole}.items()
    ]
    how = f"{whole['processes']} processes; PSS, which counts shared pages once, {whole['Pss'] / 1024:.1f} MiB"
    shown = Shown("idle", whole["Rss"] / 1024, how, {"whole": whole, **parts})
    return Part(f"The daemon {ground.effort.idle_s:g} s after {RUNS} runs", [shown], "\n".join(rows))
