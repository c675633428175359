"""`immure sandbox create, pause, resume, extend, kill, rm, prune`: the life of a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from immured.cli.flags import Flags, compile_order, run_options
from immured.cli.paths import prepare_writable
from immured.cli.sandbox_words import SPAN, labels_of, named
from immured.cli.say import json_text, note, printable
from immured.cli.session import connect
from immured.cli.table import span_text
from immured.cli.target import connection_options
from immured.errors import ImmuredError

if TYPE_CHECKING:
    from immured.client import Sandbox
    from immured.client.sandbox_questions import CreateOptions

__all__ = ["create", "creation", "extend", "kill", "life_options", "pause", "prune", "remove", "resume", "signal_exec"]

F = TypeVar("F", bound=Callable[..., Any])

LIFE = ("name", "ttl", "restart", "snapshot", "template")


def life_options(command: F) -> F:
    """Adds how a sandbox is called and lives; `creation` takes the keywords."""
    for option in (
        click.option("--template", metavar="T", help="Take one that a template holds ready."),
        click.option("--snapshot", metavar="S", help="With the files of a saved one."),
        click.option("--restart", type=click.Choice(["adopt", "end"]), help="What becomes of it if the daemon dies."),
        click.option("--ttl", metavar="TIME", type=SPAN, help="How long it lives at most: 30m, 2h."),
        click.option("--label", "labels", metavar="K=V", multiple=True, help="A label to find it by."),
        click.option("--name", metavar="NAME", help="What to call it; unique among your tenant's."),
    ):
        command = option(command)
    return command


def creation(options: Mapping[str, Any], *, quiet: bool) -> CreateOptions:
    """What `run_options` and `life_options` gave, as the SDK takes it; directories of --rw that are missing are made.
    Raises ConfigurationError."""
    order = compile_order(
        Flags(**{name: value for name, value in options.items() if name not in (*LIFE, "labels")}), Path.cwd()
    )
    for bound in order.writable:
        if prepare_writable(bound) and not quiet:
            note(f"made {bound.source}")
    return {
        "manifest": order.manifest, "parameters": order.parameters or None, "limits": order.limits or None,
        "env": order.env or None, "cwd": order.cwd,
        "labels": labels_of(options["labels"]) or None, "name": options["name"], "ttl": options["ttl"],
        "restart": options["restart"], "snapshot": options["snapshot"], "template": options["template"],
    }  # fmt: skip


@click.command()
@life_options
@click.option("--count", metavar="N", type=click.IntRange(1), help="So many, all alike.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.option("-q", "--quiet", is_flag=True, help="No notes.")
@run_options
@connection_options
def create(
    count: int | None, as_json: bool, quiet: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Make a sandbox, and print its id.

    What it may do is said as for `immure run`; limits are of all that runs in it together.
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        settled = creation(options, quiet=quiet)
        made = [client.sandbox(keep=True, **settled)] if count is None else client.create(count, **settled)
    if as_json:
        click.echo(json_text({"sandboxes": [one.facts.raw for one in made]}))
        return
    for one in made:
        click.echo(printable(one.id))


def _moves(name: str, said: str, help: str, act: Callable[[Sandbox], Mapping[str, object]]) -> click.Command:
    """A command that moves sandboxes from one state to another."""

    @click.command(name, help=help)
    @click.argument("sandboxes", metavar="SANDBOX...", nargs=-1, required=True)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
    @connection_options
    def move(
        sandboxes: tuple[str, ...], as_json: bool,
        socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    ) -> None:  # fmt: skip
        answers: list[Mapping[str, object]] = []
        with connect(socket, key_file, daemon_key, state, as_user) as client:
            for word in sandboxes:
                answers.append(act(client.at(word)))
                if not as_json:
                    click.echo(f"{printable(word)} is {said}")
        if as_json:
            click.echo(json_text({"sandboxes": answers}))

    return move


pause = _moves(
    "pause", "paused", "Freeze whatever runs in sandboxes; nothing new is taken until `resume`.",
    lambda one: one.pause().raw,
)  # fmt: skip
resume = _moves("resume", "ready", "Let paused sandboxes go on.", lambda one: one.resume().raw)
kill = _moves(
    "kill", "ended", "End sandboxes and all that runs in them. They stay listed, with what they used.",
    lambda one: one.kill(),
)  # fmt: skip
remove = _moves("rm", "removed", "End sandboxes, where they live, and list them no more.", lambda one: one.remove())


class SignalName(click.ParamType[str]):
    """A signal, by its name with or without SIG, or by its number."""

    name = "SIGNAL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from immured.client.sandbox_questions import signal as asked

        try:
            asked("", "", str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


@click.command("signal")
@click.argument("sandbox")
@click.argument("exec")
@click.argument("name", metavar="[SIGNAL]", type=SignalName(), default="TERM")
@connection_options
def signal_exec(
    sandbox: str, exec: str, name: str,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Send an exec a signal: TERM, or INT, 9, ...; KILL ends it with all that it started.

    `immure sandbox execs SANDBOX` shows what runs.
    """
    from immured.client.sandbox_questions import signal as asked

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        client.ask(asked(client.at(sandbox).id, exec, name))


@click.command()
@click.argument("sandbox")
@click.argument("ttl", metavar="TIME", type=SPAN)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def extend(
    sandbox: str, ttl: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Let a sandbox live for TIME from now on: 30m, 2h."""
    from immured.client import sandbox_questions as questions

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        facts = client.ask(questions.extend(sandbox, ttl))
    left = questions.milliseconds(ttl)
    click.echo(json_text(facts.raw) if as_json else f"{printable(named(facts))} lives for {span_text(left)}")


@click.command()
@click.option("--label", "labels", metavar="K=V", multiple=True, help="Only those with this label.")
@click.option("--alive", is_flag=True, help="Those that live too: they are ended first.")
@click.option("-y", "--yes", is_flag=True, help="With --alive: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def prune(
    labels: tuple[str, ...], alive: bool, yes: bool, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """List sandboxes no more that are over."""
    if alive and not yes and not click.confirm("End every sandbox of yours?", err=True):
        raise ImmuredError("aborted", "nothing was ended", "")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        removed = client.prune(alive=alive, labels=labels_of(labels) or None)
    if as_json:
        click.echo(json_text({"removed": removed}))
        return
    for one in removed:
        click.echo(printable(one))
