"""`immure doctor`: the host's examination, for people or for machines."""

from __future__ import annotations

from pathlib import Path

import click

from immured.cli.say import json_text, printable
from immured.cli.target import SYSTEM_STATE
from immured.host.check import Check, Status
from immured.host.doctor import Report, examine

__all__ = ["doctor"]

COLOURS = {Status.OK: "green", Status.INFO: "blue", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command()
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="Where the state is or would be.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def doctor(ctx: click.Context, state: str, as_json: bool) -> None:
    """What this host can and cannot enforce, each with its remedy.

    Everything is tried, in children and under names of our own; nothing is left behind. Exits 0 when the daemon can
    run here (warnings say what would be weaker), 1 when it cannot.
    """
    report = examine(Path(state))
    if as_json:
        click.echo(json_text(report.as_map()))
    else:
        _print(report)
    ctx.exit(0 if report.able else 1)


def _print(report: Report) -> None:
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        click.echo(_line(check, width))
    for remedy, names in _remedies(report).items():
        click.echo(f"\n{', '.join(names)}:\n  remedy: {printable(remedy)}")
    counts = report.counts()
    click.echo(
        f"\n{'The daemon can run here' if report.able else 'The daemon cannot run here'}: "
        f"{counts['ok']} ok, {counts['warn']} weaker, {counts['fail']} missing."
    )


def _line(check: Check, width: int) -> str:
    badge = click.style(f"{check.status.value:4}", fg=COLOURS[check.status])
    return f"{badge}  {check.name:{width}}  {printable(check.found)}"


def _remedies(report: Report) -> dict[str, list[str]]:
    """Each remedy once, with the findings that it mends, in the report's order."""
    found: dict[str, list[str]] = {}
    for check in report.checks:
        if check.remedy:
            found.setdefault(check.remedy, []).append(check.name)
    return found
