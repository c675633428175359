"""`immure doctor`: the host's examination, for people or for machines."""

from __future__ import annotations

from pathlib import Path

import click

from immured.cli.say import json_text, printable
from immured.cli.target import SYSTEM_STATE
from immured.errors import ImmuredError
from immured.host.check import Check, Status
from immured.host.doctor import Daemon, Report, examine
from immured.host.ids import SLOT_SIZE
from immured.host.probes_ids import is_running

__all__ = ["doctor"]

RUNG = {True: "yes", False: "no", None: ""}
COLOURS = {Status.OK: "green", Status.INFO: "blue", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command()
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="Where the state is or would be.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.pass_context
def doctor(ctx: click.Context, state: str, as_json: bool) -> None:
    """What this host can and cannot enforce, each with its remedy.

    The ladder: each wall, and what newer kernels add to one, with yes or no, and what stands instead of what is not
    there. Everything is tried, in children and under names of our own; nothing is left behind. Exits 0 when the daemon
    can run here (warnings say what would be weaker), 1 when it cannot.
    """
    report = examine(_daemon(Path(state)))
    if as_json:
        click.echo(json_text(report.as_map()))
    else:
        _print(report)
    ctx.exit(0 if report.able else 1)


def _daemon(state: Path) -> Daemon:
    """What its configuration says of ids, where there is one that can be read, and what others have left."""
    from immured.service.broker_user import ID_LOCKS, find_user, free_user
    from immured.service.config import Config, load_config

    try:
        config = load_config(state / "config.toml") if (state / "config.toml").exists() else Config()
        base, count = config.slot_base, config.slot_count
        slots = None if base is None or count is None else range(base, base + count * SLOT_SIZE)
        user = find_user(config.user, state.resolve(), slots or range(0))
        if not is_running(state):  # else its own id is among those that are taken
            user = free_user(ID_LOCKS, user)
    except (ImmuredError, OSError) as error:
        return Daemon(state, problem=str(error))
    return Daemon(state, slots, user.uid, user.name)


def _print(report: Report) -> None:
    click.echo(f"Linux {printable(report.release)}\n")
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        click.echo(_line(check, width))
    for remedy, names in _remedies(report).items():
        click.echo(f"\n{', '.join(names)}:\n  remedy: {printable(remedy)}")
    counts = report.counts()
    click.echo(
        f"\n{'The daemon can run here' if report.able else 'The daemon cannot run here'}: "
        f"{counts['ok']} ok, {counts['warn']} weaker, {counts['fail']} missing; "
        f"{sum(bool(rung.stands) for rung in report.ladder)} of {len(report.ladder)} rungs stand."
    )


def _line(check: Check, width: int) -> str:
    badge = click.style(f"{check.status.value:4}", fg=COLOURS[check.status])
    return f"{badge}  {RUNG[check.stands]:3}  {check.name:{width}}  {printable(check.found)}"


def _remedies(report: Report) -> dict[str, list[str]]:
    """Each remedy once, with the findings that it mends, in the report's order."""
    found: dict[str, list[str]] = {}
    for check in report.checks:
        if check.remedy:
            found.setdefault(check.remedy, []).append(check.name)
    return found
