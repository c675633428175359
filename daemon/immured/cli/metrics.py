"""`immure metrics`: METRIC-AUDIT-OK and METRIC-SEC-INC, with their evidence; for people, programs, and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import connection_options

if TYPE_CHECKING:
    from typing import Any

__all__ = ["metrics", "prometheus"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.option("--prometheus", "as_text", is_flag=True, help="Print Prometheus' text format instead.")
@connection_options
def metrics(
    as_json: bool, as_text: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Of what was decided and executed, how much is in the ledger; and security incidents, by class and severity.

    What is executed is counted by the launcher, what is decided by the server: neither asks the ledger. Exits with 1
    where something has no record.
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found: Mapping[str, Any] = client.metrics()
    audit = found["audit_ok"]
    if as_json:
        click.echo(json_text(found))
    elif as_text:
        click.echo("\n".join(prometheus(found)))
    else:
        click.echo("\n".join(_lines(found)))
    if audit["recorded"] < audit["counted"] or "problem" in audit["ledger"]:
        raise click.exceptions.Exit(1)


def _share(audit: Mapping[str, Any]) -> str:
    """Never rounded up to what it is not."""
    if not audit["counted"]:
        return "nothing was counted"
    parts = audit["recorded"] * 10_000_000 // audit["counted"]
    return f"{parts // 10_000_000}.{parts % 10_000_000:07d}"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    audit = found["audit_ok"]
    yield f"METRIC-AUDIT-OK  {_share(audit)}  ({audit['recorded']} of {audit['counted']})"
    for name, what in (("executions", "the launcher counted"), ("decisions", "the server counted")):
        part = audit[name]
        if "unknown" in part:
            yield f"  {name:11} not known: {printable(part['unknown'])}"
            continue
        yield f"  {name:11} {what} {part['counted']}, entries {part['first']} to {part['last']} have {part['recorded']}"
        rest = {
            key: part[key] for key in ("open", "lost", "never_ran", "reads", "undecided", "bounded") if part.get(key)
        }
        if rest:
            yield "              " + ", ".join(f"{key} {count}" for key, count in rest.items())
        if part["missing"]:
            yield f"              MISSING {part['missing']}"
        for cmd, count in part.get("missing_by_command", {}).items():
            yield f"                {printable(cmd)}: {count}"
        for one in part.get("missing_first", ()):
            yield f"                {printable(one['cmd'])} with the payload {one['payload']}"
    if audit["incomplete"]:
        yield f"  {audit['incomplete']} without an outcome, the first at entry {audit['incomplete_first']}"
    ledger = audit["ledger"]
    yield f"  verified    {ledger['entries']} entries, {ledger['covered']} of them signed"
    if "problem" in ledger:
        yield f"  DAMAGED     {printable(ledger['problem'])}"
    yield f"METRIC-SEC-INC   {sum(one['count'] for one in found['sec_inc'])}"
    for one in found["sec_inc"]:
        where = f"  entries {one['first']} to {one['last']}" if "first" in one else ""
        yield f"  {one['severity']:9} {one['class']:12} {one['count']}{where}"


def prometheus(found: Mapping[str, Any]) -> Iterator[str]:
    """Version 0.0.4 of the text format."""
    audit = found["audit_ok"]
    for name, said in (("counted", "counted outside of the ledger"), ("recorded", "of them in the ledger, whole")):
        yield f"# HELP immured_audit_{name} Executions and decisions, {said}."
        yield f"# TYPE immured_audit_{name} gauge"
        for kind in ("executions", "decisions"):
            if "unknown" not in audit[kind]:
                yield f'immured_audit_{name}{{kind="{kind}"}} {audit[kind][name]}'
    yield "# HELP immured_audit_incomplete Intents without an outcome whose daemon is over."
    yield "# TYPE immured_audit_incomplete gauge"
    yield f"immured_audit_incomplete {audit['incomplete']}"
    yield "# HELP immured_audit_ok METRIC-AUDIT-OK: the recorded share, 0 to 1."
    yield "# TYPE immured_audit_ok gauge"
    yield f"immured_audit_ok {audit['recorded'] / audit['counted'] if audit['counted'] else 1.0}"
    yield "# HELP immured_audit_ledger_damaged Whether the ledger's files do not verify."
    yield "# TYPE immured_audit_ledger_damaged gauge"
    yield f"immured_audit_ledger_damaged {int('problem' in audit['ledger'])}"
    yield "# HELP immured_security_incidents METRIC-SEC-INC."
    yield "# TYPE immured_security_incidents gauge"
    for one in found["sec_inc"]:
        labels = f'class="{one["class"]}",severity="{one["severity"]}"'
        yield f"immured_security_incidents{{{labels}}} {one['count']}"
