"""A sandbox taken from a warm template, beside a run that starts Python and imports the same."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, Final

from bench.bars import Shown
from bench.ground import Ground, Part
from immured import Client
from immured.client.sync import Run
from immured.client.templates import waiting_order
from immured.client.throwaway import ThrowawayDaemon

__all__ = ["measure"]

MODULES: Final = (
    "argparse asyncio base64 collections csv dataclasses datetime decimal email.message fractions hashlib http.client "
    "json logging random re sqlite3 statistics unittest xml.etree.ElementTree"
).split()
WARM: Final = 4
CODE: Final = "print(6 * 7, flush=True)"
PATIENCE_S: Final = 60.0


def measure(ground: Ground) -> Part:
    taken, started, in_a_row = [], [], []
    daemon = ThrowawayDaemon()
    templates = daemon.state / "templates"
    templates.mkdir(exist_ok=True)
    (templates / "bench.toml").write_text(f"warm = {WARM}\nmodules = {list(MODULES)}\n")
    with daemon, daemon.client() as client:
        for _ in range(ground.effort.forks):
            _wait_until_warm(client)
            taken.append(_take(client))
            started.append(_start(client))
        in_a_row += [_take(client) for _ in range(3 * WARM)]
    value = median(taken) / median(started)
    how = f"{median(taken) / 1e6:.2f} ms against {median(started) / 1e6:.1f}"
    text = (
        f"{len(MODULES)} modules, to the first output. Taken while {WARM} are ready: p50 {median(taken) / 1e6:.2f} ms. "
        f"{len(in_a_row)} in a row, more than were ready: p50 {median(in_a_row) / 1e6:.1f} ms, the slowest "
        f"{max(in_a_row) / 1e6:.0f}: where none is ready, one is started while the caller waits."
    )
    figures: dict[str, object] = {"taken": taken, "started": started, "in a row": in_a_row}
    return Part("Warm templates", [Shown("fork", value, how, figures)], text)


def _wait_until_warm(client: Client) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        rows: Any = client.call("template.list").result["templates"]
        if rows[0]["ready"] >= WARM:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the template is not ready: {rows[0]}")
        time.sleep(0.05)


def _take(client: Client) -> int:
    start = time.perf_counter_ns()
    sandbox = client.sandbox(template="bench")
    with client.begin(waiting_order(sandbox.facts, CODE)) as run:
        wall = _first_output(run, start)
    sandbox.remove()
    return wall


def _start(client: Client) -> int:
    start = time.perf_counter_ns()
    with client.start(["/usr/bin/python3", "-c", f"import {', '.join(MODULES)}\n{CODE}"]) as run:
        return _first_output(run, start)


def _first_output(run: Run, start: int) -> int:
    for _, data in run:
        wall = time.perf_counter_ns() - start
        if data != b"42\n":
            break
        if run.result.exit_code != 0:
            break
        return wall
    raise RuntimeError(f"not what was awaited: {run.result}")
