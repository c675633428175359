"""The default class's filter, from profiles to BPF, without the cache that every run but the first has."""

from __future__ import annotations

import time
from statistics import median

from bench.bars import Shown
from bench.ground import Ground, Part
from immured.isolation.profiles import SHIPPED
from immured.isolation.seccomp import compile_uncached, host_architecture

__all__ = ["measure"]


def measure(ground: Ground) -> Part:
    took: dict[bool, list[float]] = {False: [], True: []}
    sizes: dict[bool, int] = {}
    for _ in range(10 * ground.effort.batches):
        for explain, times in took.items():
            start = time.perf_counter_ns()
            program = compile_uncached(SHIPPED, "default", (), (), host_architecture(), explain)
            times.append((time.perf_counter_ns() - start) / 1e6)
            sizes[explain] = len(program) // 8
    value = median(took[False])
    how = f"{sizes[False]} instructions; the explained form {median(took[True]):.2f} ms, {sizes[True]} instructions"
    figures: dict[str, object] = {"plain_ms": took[False], "explained_ms": took[True]}
    return Part("The filter's compiler", [Shown("compile", value, how, figures)])
