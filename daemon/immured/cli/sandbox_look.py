"""`immure sandbox list, show, execs, logs, stats`: what there is, and what it said and used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from immured.cli.run import ended_by_us, leave, writer
from immured.cli.sandbox_words import label_text, labels_of, now_ms, sandbox_table
from immured.cli.say import json_line, json_text, note, printable
from immured.cli.session import connect
from immured.cli.table import size_text, span_text, table
from immured.cli.target import connection_options
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from immured.client import Sandbox
    from immured.client.sandbox_facts import ExecFacts, SandboxFacts, SandboxStats

__all__ = ["execs", "listing", "logs", "pick_exec", "show", "stats"]


@click.command("list")
@click.option("--label", "labels", metavar="K=V", multiple=True, help="Only those with this label.")
@click.option("--in", "wanted", metavar="STATE", help="Only those in this state: ready, paused, ended, ...")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that are over, too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def listing(
    labels: tuple[str, ...], wanted: str | None, everything: bool, quiet: bool, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Your sandboxes that live."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = [one.facts for one in client.sandboxes(labels=labels_of(labels) or None, state=wanted)]
    shown = [one for one in found if everything or wanted is not None or one.live]
    if as_json:
        click.echo(json_text({"sandboxes": [one.raw for one in shown]}))
    elif quiet:
        for one in shown:
            click.echo(printable(one.id))
    else:
        click.echo(sandbox_table(shown, now_ms()))


@click.command()
@click.argument("sandbox")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def show(
    sandbox: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """One sandbox, and what runs in it."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        opened = client.open(sandbox)
        running = opened.execs()
    if as_json:
        click.echo(json_text({**opened.facts.raw, "execs": [one.raw for one in running]}))
        return
    click.echo("\n".join(_fact_lines(opened.facts, now_ms())))
    if running:
        click.echo("\n" + _exec_table(running, now_ms()))


@click.command()
@click.argument("sandbox")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def execs(
    sandbox: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """What runs in a sandbox, and the last that did."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        running = client.open(sandbox).execs()
    click.echo(json_text({"execs": [one.raw for one in running]}) if as_json else _exec_table(running, now_ms()))


@click.command()
@click.argument("sandbox")
@click.argument("exec", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the exec ends.")
@click.option("--from", "start", metavar="N", type=click.IntRange(0), default=0, help="From this byte of output on.")
@click.option("-t", "--time", "with_time", is_flag=True, help="Say when, before each piece. Not with --follow.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line: when, the stream, what.")
@connection_options
def logs(
    sandbox: str, exec: str | None, follow: bool, start: int, with_time: bool, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """What a detached exec has written: its stdout on stdout, its stderr on stderr.

    Without EXEC, the one that was started last. The log is bounded; what it has lost is counted on stderr.
    """
    if follow and with_time:
        raise click.UsageError("--time is not told of what is followed: leave out --time or --follow")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        opened = client.open(sandbox)
        chosen = opened.find(pick_exec(opened, exec))
        out = {"stdout": writer(1), "stderr": writer(2)}
        if follow:
            ended_by_us()
            for stream, data in chosen.follow(start):
                if as_json:
                    click.echo(json_line({"stream": stream, "data": data}))
                else:
                    out[stream](data)
            leave(0)
        while True:
            page = chosen.logs(start)
            if page.lost:
                note(f"{page.lost} bytes before offset {page.start} are lost")
            for record in page.records:
                if as_json:
                    click.echo(json_line({"time_ms": record.time_ms, "stream": record.stream, "data": record.data}))
                    continue
                said = f"{_when(record.time_ms)} ".encode() if with_time else b""
                out.get(record.stream, out["stdout"])(said + record.data)
            if page.next <= start or not page.records:
                return
            start = page.next


@click.command()
@click.argument("sandboxes", metavar="[SANDBOX...]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def stats(
    sandboxes: tuple[str, ...], as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """What sandboxes use now and have used: all that live, or those that are named."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        opened = (
            [client.open(word) for word in sandboxes]
            if sandboxes
            else [one for one in client.sandboxes() if one.facts.state in ("ready", "paused")]
        )
        measured = [(one.facts, one.stats()) for one in opened]
    if as_json:
        click.echo(json_text({"sandboxes": [figures.raw for _, figures in measured]}))
        return
    click.echo(
        table(
            ("ID", "NAME", "CPU", "MEMORY", "PEAK", "PIDS", "EXECS", "DISK", "FILES"),
            [_stat_row(facts, figures) for facts, figures in measured],
        )
    )


def pick_exec(sandbox: Sandbox, wanted: str | None) -> str:
    """The exec that was named, else the detached one that was started last. Raises ConfigurationError `usage`."""
    if wanted is not None:
        return wanted
    detached = [one for one in sandbox.execs() if one.detached]
    if not detached:
        raise ConfigurationError(
            "usage", f"{sandbox.facts.name or sandbox.id} has no detached exec",
            "start one: immure sandbox exec --detach",
        )  # fmt: skip
    return max(detached, key=lambda one: (one.live, one.started_ms)).id


def _fact_lines(facts: SandboxFacts, now: int) -> list[str]:
    rows = [
        ("id", facts.id), ("name", facts.name or "none"), ("state", facts.state),
        ("tenant", facts.tenant), ("key", facts.key), ("manifest", facts.manifest),
        ("labels", label_text(facts.labels) or "none"),
        ("created", f"{_when(facts.created_ms)} ({span_text(now - facts.created_ms)} ago)"),
    ]  # fmt: skip
    if facts.live:
        rows.append(("expires", f"{_when(facts.expires_ms)} (in {span_text(facts.expires_ms - now)})"))
        rows.append(("restart", facts.restart))
    else:
        rows.append(("ended", _when(facts.ended_ms or 0)))
        rows.append(("cause", facts.cause or "unknown"))
    rows += [(f"limit {name}", means) for name, means in sorted(facts.enforcement.items())]
    rows += [(name, str(value)) for name, value in sorted(facts.usage.items())]
    return [f"{printable(name):22} {printable(value)}" for name, value in rows]


def _exec_table(rows: Sequence[ExecFacts], now: int) -> str:
    return table(
        ("EXEC", "STATE", "AGE", "KIND", "COMMAND"),
        [
            (
                one.id, one.state if one.live else _ended(one), span_text(now - one.started_ms),
                " ".join(word for word, on in (("detached", one.detached), ("terminal", one.terminal)) if on),
                one.command,
            )
            for one in rows
        ],
    )  # fmt: skip


def _ended(one: ExecFacts) -> str:
    if one.cause == "exited":
        return f"exited {one.exit_code}"
    return f"{one.cause or 'ended'}" + (f" {one.signal}" if one.signal is not None else "")


def _stat_row(facts: SandboxFacts, figures: SandboxStats) -> tuple[str, ...]:
    usage = figures.usage

    def size(value: int | None) -> str:
        return "" if value is None else size_text(value)

    return (
        facts.id, facts.name or "", f"{usage.get('cpu_ms', 0) / 1000:.2f} s", size(figures.memory_bytes),
        size(usage.get("memory_peak_bytes")), "" if figures.pids is None else str(figures.pids), str(figures.execs),
        size(figures.disk_bytes), "" if figures.disk_files is None else str(figures.disk_files),
    )  # fmt: skip


def _when(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"  # beyond the calendar
