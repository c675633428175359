"""`make bench`: measure what the bars are about, print it, and write bench/results/.

Exits 0 when no bar was missed and no measurement failed, else 1; 2 when it could not begin. A bar that cannot be
measured here is "not shown", with the reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import bars, plot, report
from bench.ground import Effort, Ground, Part
from bench.suite import ROWS
from immured.errors import ImmuredError


def main() -> int:
    """The command line."""
    chosen = arguments().parse_args()
    if os.geteuid() != 0:
        print("bench: the launcher is root's: sudo make bench", file=sys.stderr)
        return 2
    unknown = sorted(set(chosen.only) - bars.BARS.keys())
    if unknown:
        print(f"bench: no bar is called {', '.join(unknown)}; there are {', '.join(bars.BARS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the clean-up
    effort = Effort.quick() if chosen.quick else Effort()
    given = {
        name: value for name in ("runs", "block", "sporadic", "live", "vm_runs") if (value := getattr(chosen, name))
    }
    where = report.machine()
    try:
        with ExitStack() as stack:
            parts = measure(Ground(dataclasses.replace(effort, **given), stack), chosen.only)
    except ImmuredError as error:
        print(f"bench: {error.code}: {error.message}\nremedy: {error.remedy}", file=sys.stderr)
        return 2
    text = written(where, parts)
    print(text)
    save(chosen.results, where, parts, text)
    return 0 if bars.good([shown for part in parts for shown in part.shown]) else 1


def arguments() -> argparse.ArgumentParser:
    """What can be asked for."""
    options = argparse.ArgumentParser(prog="bench", description=__doc__)
    options.add_argument("--quick", action="store_true", help="under a minute: to see that it works, not to believe it")
    options.add_argument(
        "--only", action="append", default=[], metavar="NAME", help=f"of {', '.join(bars.BARS)}; repeat"
    )
    options.add_argument("--runs", type=int, help="runs of each subject in the burst scenario")
    options.add_argument("--block", type=int, help="runs of one subject in a row")
    options.add_argument("--sporadic", type=int, help="runs of each subject with 20 ms pauses")
    options.add_argument("--live", type=int, help="sandboxes alive at once")
    options.add_argument("--vm-runs", type=int, help="runs that write files, with a memory controller")
    options.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    return options


def measure(ground: Ground, only: Sequence[str]) -> list[Part]:
    """The rows that are asked for, all of them by default. One that fails is not shown, and the others go on."""
    parts = []
    for names, row in ROWS:
        if only and not set(names) & set(only):
            continue
        begun = time.monotonic()
        try:
            part = row(ground)
        except (ImmuredError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            why = f"the measurement failed: {type(error).__name__}: {error}"
            part = Part(", ".join(names), [bars.Shown(name, None, why, failed=True) for name in names])
        parts.append(part)
        print(f"bench: {', '.join(names)}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return parts


def written(where: str, parts: Sequence[Part]) -> str:
    """The whole report as Markdown."""
    shown = [one for part in parts for one in part.shown]
    return "\n\n".join(
        [
            "# What immured costs",
            f"{where}. Medians of one run on one machine: read the ratios.",
            bars.table(shown),
            report.lines(shown),
            *(f"## {part.title}\n\n{part.text}" for part in parts if part.text),
        ]
    )


def save(results: Path, where: str, parts: Sequence[Part], text: str) -> None:
    """latest.md, latest.json with every sample, latest.svg."""
    results.mkdir(parents=True, exist_ok=True)
    (results / "latest.md").write_text(text + "\n")
    (results / "latest.json").write_text(report.as_json(where, parts) + "\n")
    panels = {name: series for part in parts for name, series in part.series.items()}
    picture = results / "latest.svg"
    picture.unlink(missing_ok=True)  # never an older run's beside this one's table
    if panels:
        picture.write_text(plot.strips(panels, "bwrap"))


if __name__ == "__main__":
    sys.exit(main())
