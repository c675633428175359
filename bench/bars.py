"""The bars: what is promised of each figure, and whether a measurement holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

__all__ = ["BARS", "Bar", "Shown", "Verdict", "good", "table", "verdict"]


@dataclass(frozen=True, slots=True)
class Bar:
    """`value` must be at most `bar` (at least, where `more` is better); `aim` is where it should go."""

    name: str
    what: str
    bar: float
    aim: float
    unit: str
    more: bool = False


BARS: Final = {
    bar.name: bar
    for bar in (
        Bar("burst", "a run of /bin/true, back to back, p50 / bwrap", 0.65, 0.40, "x"),
        Bar("sporadic", "the same after pauses of 20 ms, p50 / bwrap", 0.65, 0.40, "x"),
        Bar("cpu", "CPU time per run, back to back, everything included / bwrap", 1.5, 1.0, "x"),
        Bar("throughput", "runs per second, 8 clients at once / bwrap's best", 2.5, 4.0, "x", more=True),
        Bar(
            "flood",
            "runs per second while another user floods the daemon unsigned / while none does",
            0.75,
            0.95,
            "x",
            more=True,
        ),
        Bar("live", "p50 with 500 live sandboxes / p50 with none", 1.5, 1.1, "x"),
        Bar("memory", "memory per live sandbox: PSS of ours and the kernel's", 1024, 450, "KiB"),
        Bar("dying", "dying memory cgroups after runs that write files / live ones", 2.0, 0.0, "x"),
        Bar("idle", "daemon idle, RSS of all its processes", 64, 40, "MiB"),
        Bar("call", "a system call that is always allowed, inside / outside", 1.05, 1.0, "x"),
        Bar("open", "a write-open under explanation, added", 6.0, 3.5, "us"),
        Bar("compile", "the default class compiled to BPF, uncached", 2.0, 0.5, "ms"),
        Bar("authorise", "authorisation of a command: 1,000 keys, 200 rules, 100 tenants, p50", 30, 15, "us"),
        Bar(
            "pipeline",
            "a loaded manifest looked at before a run: 1,000 keys, 200 rules, 200 manifests, p50",
            150,
            15,
            "us",
        ),
        Bar("pipeline-new", "a new manifest through all stages, p50", 3.0, 1.0, "ms"),
        Bar("command", "`immure run -- true`, wall / bwrap", 2.0, 1.0, "x"),
        Bar("create", "a sandbox made, to its first exec's end / a run", 1.3, 1.1, "x"),
        Bar("exec", "an exec in a live sandbox / a run", 0.8, 0.5, "x"),
        Bar("fork", "a warm Python taken, to its result / `python3 -c` with the same imports", 0.4, 0.1, "x"),
        Bar("batch", "runs per second in one `run.batch` / single runs on one connection", 1.5, 2.5, "x", more=True),
        Bar("put", "a large file into a sandbox, bytes per second / cp", 0.5, 0.9, "x", more=True),
        Bar("get", "a large file out of a sandbox, bytes per second / cp", 0.5, 0.9, "x", more=True),
        Bar("stream", "stdout streamed to a client, bytes per second / a pipe to Python", 0.5, 0.9, "x", more=True),
        Bar("many", "a list of 1,000 live sandboxes", 50, 20, "ms"),
        Bar("many-create", "p50 of making one beside 900 live ones / beside none", 1.5, 1.1, "x"),
        Bar("many-kill", "1,000 live sandboxes killed", 2.0, 1.0, "s"),
        Bar("appends", "durable entries per second, 64 callers at once / append+fdatasync", 15, 40, "x", more=True),
        Bar("append", "one entry, alone, until it is durable, p50 / append+fdatasync", 1.6, 1.2, "x"),
        Bar("verify", "a large ledger's bytes per second, chain, tree and heads / sha256sum", 0.3, 0.6, "x", more=True),
        Bar("prove", "the proof of one of 1,000,000 entries, made and checked, p50", 10, 1, "ms"),
        Bar("filter", "a tenant's 1,000 of 1,000,000 entries, found by the index", 50, 5, "ms"),
        Bar("ledger-open", "a large ledger opened; a daemon's start on it, beside one on a new ledger", 0.5, 0.05, "s"),
        Bar("ledger-open-memory", "the most memory that the process which opens it ever held", 64, 56, "MiB"),
        Bar("spread", "spread of a fixed computation's CPU time, inside / outside", 1.2, 1.0, "x"),
    )
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a row found for the bar `name`: its value, or why there is none. `how` is one line for the reader.

    `failed`: it should have been measured, and something broke; without it, what it takes is not there.
    """

    name: str
    value: float | None
    how: str
    figures: dict[str, object] = field(default_factory=dict)
    failed: bool = False


class Verdict(Enum):
    """What came of a bar."""

    AIM = "holds, and the aim"
    HOLDS = "holds"
    MISSED = "MISSED"
    FAILED = "FAILED"
    NOT_SHOWN = "not shown"


def verdict(shown: Shown, bar: Bar | None = None) -> Verdict:
    """Of the value as it was measured, not as it is printed; the bar is the one of its name."""
    bar = bar or BARS[shown.name]
    value = shown.value
    if value is None:
        return Verdict.FAILED if shown.failed else Verdict.NOT_SHOWN

    def reaches(mark: float) -> bool:
        return value >= mark if bar.more else value <= mark

    if reaches(bar.aim):
        return Verdict.AIM
    return Verdict.HOLDS if reaches(bar.bar) else Verdict.MISSED


def good(shown: Iterable[Shown]) -> bool:
    """No bar was missed, and nothing broke. A bar that cannot be measured here is not shown, which is not the same."""
    return not {verdict(one) for one in shown} & {Verdict.MISSED, Verdict.FAILED}


def number(value: float, unit: str) -> str:
    """With as many digits as mean something."""
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
    return f"{text} {unit}" if unit != "x" else f"{text} x"


def table(shown: Iterable[Shown]) -> str:
    """Every bar in the order of BARS as a Markdown table; one that no row was asked for is left out."""
    found = {one.name: one for one in shown}
    rows = ["| bar | what | measured | bar | aim | |", "|---|---|---:|---:|---:|---|"]
    rows += [
        f"| {bar.name} | {bar.what} | {'-' if one.value is None else number(one.value, bar.unit)} "
        f"| {'>=' if bar.more else '<='} {bar.bar:g} | {bar.aim:g} | {verdict(one).value} |"
        for bar in BARS.values()
        if (one := found.get(bar.name))
    ]
    return "\n".join(rows)
