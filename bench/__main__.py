"""`make bench`: measure, print, and write bench/results/."""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from bench import measure, report, subjects
from immured.client.throwaway import ThrowawayDaemon


def main() -> int:
    options = argparse.ArgumentParser(prog="bench", description=__doc__)
    options.add_argument("--runs", type=int, default=1000, help="runs of each subject in the burst scenario")
    options.add_argument("--block", type=int, default=100, help="runs of one subject in a row")
    options.add_argument("--sporadic", type=int, default=200, help="runs of each subject with 20 ms pauses")
    options.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    chosen = options.parse_args()

    bwrap = shutil.which("bwrap")
    if bwrap is None:
        print("bench: bubblewrap is what this compares with: apt-get install bubblewrap", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        daemon = stack.enter_context(ThrowawayDaemon())
        with daemon.client() as client:
            view = subjects.view_of(client)
        compared: list[subjects.Subject] = [
            subjects.floor(),
            subjects.bwrap(bwrap, view),
            subjects.bwrap(bwrap),
            subjects.Immured(daemon, native=True),
            subjects.Immured(daemon, native=False),
        ]
        entered = [stack.enter_context(subject) for subject in compared]
        results = {
            "burst": measure.burst(entered, runs=chosen.runs, block=chosen.block),
            "sporadic": measure.sporadic(entered, runs=chosen.sporadic),
        }
        words, good = report.verdicts(results)
        text = "\n\n".join(
            [
                f"# What a signed run of `{subjects.COMMAND}` costs",
                report.machine() + "; one open connection; medians of one run, so read the ratios.",
                *(report.table(scenario, series, "bwrap") for scenario, series in results.items()),
                "Isolation compared (the floor has no walls at all and is there as the physics):\n\n"
                + report.walls(entered[1:]),
                "CPU: the command's and every process of the tool's; of immured the client's and the pool's too.",
                words,
            ]
        )
    print(text)
    chosen.results.mkdir(parents=True, exist_ok=True)
    (chosen.results / "latest.md").write_text(text + "\n")
    (chosen.results / "latest.json").write_text(report.as_json(results))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
