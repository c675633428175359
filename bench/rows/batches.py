"""Many runs under one signature, beside as many single ones on one connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.subjects import COMMAND
from immured import Client

__all__ = ["measure"]

ROUNDS: Final = 3


def measure(ground: Ground) -> Part:
    count = ground.effort.batch
    batches, singles = [], []
    with ground.daemon.client() as client:
        _batch(client, min(100, count))  # the pool grows under load: that is not what is measured
        for _ in range(ROUNDS):
            batches.append(_rate(_batch, client, count))
            singles.append(_rate(_one_by_one, client, max(count // 4, 20)))
    value = median(batches) / median(singles)
    how = f"{median(batches):.0f} a second in batches of {count}, {median(singles):.0f} one by one"
    return Part("Batches", [Shown("batch", value, how, {"batches": batches, "singles": singles})])


def _rate(act: Callable[[Client, int], None], client: Client, count: int) -> float:
    start = time.perf_counter()
    act(client, count)
    return count / (time.perf_counter() - start)


def _batch(client: Client, count: int) -> None:
    codes = [result.exit_code for _, result in client.batch([[COMMAND]] * count)]
    if codes != [0] * count:
        raise RuntimeError("a run of the batch did not end well")


def _one_by_one(client: Client, count: int) -> None:
    for _ in range(count):
        if client.run([COMMAND]).exit_code != 0:
            raise RuntimeError("a run did not end well")
