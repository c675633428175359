"""The daemon's keyring: `immure key add`, `list`, `show`, `label`, `bind`, `suspend`, `resume`, `revoke`, `rotate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from immured.cli.key_files import read_public
from immured.cli.moments import date_of, left, moment_of, span_of
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.table import table
from immured.cli.target import connection_options

if TYPE_CHECKING:
    from immured.client.keys import Bindings, KeyFacts

__all__ = ["add", "bind", "label", "list_keys", "resume", "revoke", "rotate", "show", "suspend"]

F = TypeVar("F", bound=Callable[..., Any])

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
_REASON = click.option("--reason", metavar="WHY", help="For the ledger.")
_SETS = {
    "uids": "uid", "gids": "gid", "personas": "as_persona", "tenants": "in_tenant", "projects": "in_project",
    "subjects": "speak_for",
}  # fmt: skip
_TIMES = {"not_before_ms": "from_", "expires_ms": "until"}


def binding_options(command: F) -> F:
    """What a key is bound to; one parameter each, as `bindings` takes them."""
    for option in reversed(
        (
            click.option("--uid", type=click.IntRange(0), multiple=True, help="Only a peer with this uid may use it."),
            click.option(
                "--gid", type=click.IntRange(0), multiple=True, help="Only a peer with this group may use it."
            ),
            click.option("--in-tenant", metavar="NAME", multiple=True, help="It works in this tenant.  [default]"),
            click.option("--in-project", metavar="NAME", multiple=True, help="And in this project alone."),
            click.option("--as-persona", metavar="NAME", multiple=True, help="It may act under this persona."),
            click.option("--speak-for", metavar="WHO", multiple=True, help="It may act on their behalf: --sub WHO."),
            click.option("--from", "from_", metavar="WHEN", help="It serves from then on: 2h, 2027-01-31T12:00:00Z."),
            click.option("--until", metavar="WHEN", help="It serves no longer than that: 90d, 2027-01-31T12:00:00Z."),
            click.option("--note", metavar="TEXT", help="For people."),
        )
    ):
        command = option(command)
    return command


def bindings(given: dict[str, Any]) -> Bindings:
    """What `binding_options` were given, for the SDK."""
    found: dict[str, object] = {name: sorted(set(given[option])) for name, option in _SETS.items() if given[option]}
    for name, option in _TIMES.items():
        if given[option] is not None:
            found[name] = moment_of(given[option], "--" + option.strip("_"))
    if given["note"] is not None:
        found["note"] = given["note"]
    return found  # type: ignore[return-value]


@click.command()
@click.argument("name")
@click.argument("public", metavar="PUB")
@click.option("--role", default="runner", show_default=True, help="A role of the policy's.")
@binding_options
@_JSON
@connection_options
def add(
    name: str, public: str, role: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **bound: Any,
) -> None:  # fmt: skip
    """Let the owner of a public key in. PUB: a PEM file, OpenSSH's .pub, or the hex that `immure key new` prints."""
    from immured.client.keys import Keys

    given, wanted = read_public(public), bindings(bound)
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        made = Keys(client).add(name, given, role=role, **wanted)
    click.echo(json_text(made.raw) if as_json else f"{given.id} is in, as {printable(name)} ({printable(role)})")


@click.command("list")
@_JSON
@connection_options
def list_keys(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Who is in, with which role."""
    from immured.client.keys import Keys

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Keys(client).list()
    if as_json:
        click.echo(json_text({"keys": [one.raw for one in found]}))
        return
    rows = [[one.id, one.role, one.standing, _bound(one), left(one.expires_ms), one.name] for one in found]
    click.echo(table(["ID", "ROLE", "STANDING", "BOUND TO", "LEFT", "NAME"], rows))


@click.command()
@click.argument("key")
@_JSON
@connection_options
def show(
    key: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """One key: KEY is its name or its id."""
    from immured.client.keys import Keys

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Keys(client).show(key)
    _say(found, as_json)


@click.command()
@click.argument("key")
@click.option("--name", metavar="NAME", help="What people call it from now on.")
@click.option("--note", metavar="TEXT", help="For people.")
@_JSON
@connection_options
def label(
    key: str, name: str | None, note: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Call it otherwise."""
    from immured.client.keys import Keys

    if name is None and note is None:
        raise click.UsageError("say what is to change: --name, --note")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Keys(client).label(key, name=name, note=note)
    _say(found, as_json)


@click.command()
@click.argument("key")
@click.option("--role", help="A role of the policy's.")
@binding_options
@click.option(
    "--free", multiple=True, type=click.Choice([*_SETS, *_TIMES]), help="Take this binding away.", metavar="FIELD"
)
@_JSON
@connection_options
def bind(
    key: str, role: str | None, free: tuple[str, ...], as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **bound: Any,
) -> None:  # fmt: skip
    """Bind it anew. What is named takes the place of what was there; all else stays.

    --free takes one of uids, gids, personas, tenants, projects, subjects, not_before_ms, expires_ms away. Nobody gives
    a key what he does not have himself.
    """
    from immured.client.keys import Keys

    wanted: dict[str, Any] = {**bindings(bound)}
    for field in free:
        if field in wanted:
            raise click.UsageError(f"{field} is given, and to be freed")
        wanted[field] = [] if field in _SETS else 0
    if role is None and not wanted:
        raise click.UsageError("say what it is to be bound to")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Keys(client).bind(key, role=role, **wanted)
    _say(found, as_json)


@click.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@_REASON
@connection_options
def suspend(
    keys: tuple[str, ...], reason: str | None,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """They give no orders until they are resumed, nor do those whom they certified. What runs goes on."""
    from immured.client.keys import Keys

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for key in keys:
            _told(Keys(client).suspend(key, reason=reason))


@click.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@_REASON
@connection_options
def resume(
    keys: tuple[str, ...], reason: str | None,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """They give orders again."""
    from immured.client.keys import Keys

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for key in keys:
            _told(Keys(client).resume(key, reason=reason))


@click.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--issuer", metavar="KEY", help="Of a certified key: beneath this one alone.")
@_REASON
@connection_options
def revoke(
    keys: tuple[str, ...], issuer: str | None, reason: str | None,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """They never give orders again. For good.

    An id that is in no keyring is that of a key which another certified: that one alone is barred.
    """
    from immured.client.keys import Keys

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for key in keys:
            done = Keys(client).revoke(key, reason=reason, issuer=issuer)
            name = done.get("name", "certified")
            click.echo(f"{printable(str(done.get('id', done.get('key', key))))}  revoked  {printable(str(name))}")


@click.command()
@click.argument("key")
@click.argument("public", metavar="PUB")
@click.option("--overlap", metavar="TIME", help="How long the old key serves on.  [1d]")
@click.option("--until", metavar="WHEN", help="The new key serves no longer than that.  [the old one's]")
@_JSON
@connection_options
def rotate(
    key: str, public: str, overlap: str | None, until: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """PUB takes KEY's place: its name, its bindings, and what it made. KEY serves on for the overlap.

    Of a key that leaked: --overlap 0s, or revoke it.
    """
    from immured.client.keys import Keys

    given = read_public(public)
    overlap_ms = None if overlap is None else span_of(overlap, "--overlap")
    expires_ms = None if until is None else moment_of(until, "--until")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Keys(client).rotate(key, given, overlap_ms=overlap_ms, expires_ms=expires_ms)
    _say(found, as_json)


def _told(facts: KeyFacts) -> None:
    click.echo(f"{printable(facts.id)}  {printable(facts.standing)}  {printable(facts.name)}")


def _bound(facts: KeyFacts) -> str:
    parts = [f"uid {uid}" for uid in facts.uids] + [f"gid {gid}" for gid in facts.gids]
    parts += [f"tenant {name}" for name in facts.tenants] + [f"project {name}" for name in facts.projects]
    return ", ".join(parts) or "-"


def _say(facts: KeyFacts, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(facts.raw))
        return
    lines = [
        ("id", facts.id), ("name", facts.name), ("role", facts.role), ("standing", facts.standing),
        ("added", facts.added), ("public", facts.public), ("bound to", _bound(facts)),
        ("personas", ", ".join(facts.personas)), ("speaks for", ", ".join(facts.subjects)),
        ("from", "" if facts.not_before_ms is None else date_of(facts.not_before_ms)),
        ("until", "" if facts.expires_ms is None else date_of(facts.expires_ms)),
        ("successor", facts.successor or ""), ("note", facts.note),
    ]  # fmt: skip
    click.echo("\n".join(f"{name:10}  {printable(value)}" for name, value in lines if value))
