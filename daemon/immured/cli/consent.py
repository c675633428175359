"""`immure consent`: what a manifest asks you to agree to, and your answer. In plain lines, for eyes and ears alike."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from immured.cli.consent_export import export
from immured.cli.flags import Flags, compile_order
from immured.cli.moments import date_of, left
from immured.cli.prose import heading, wrapped
from immured.cli.say import json_text, note, printable
from immured.cli.session import connect
from immured.cli.table import span_text, table
from immured.cli.target import connection_options
from immured.client.consents import ConsentAnswer, ConsentFacts, Consents, ShownText
from immured.errors import ConfigurationError
from immured.manifest.languages import from_locale, is_tag, normal
from immured.manifest.readable import same_word

__all__ = ["consent", "language_of"]

F = TypeVar("F", bound=Callable[..., Any])

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
_MANIFEST = click.argument("manifest", metavar="MANIFEST")
_LANGUAGE = click.option(
    "--language", metavar="TAG", help="In this language: de, zh-Hans.  [$LC_ALL, $LC_MESSAGES, $LANG]"
)
_TEXT = click.option("--text", metavar="DIGEST", help="Only if the text is still this one, as `show --json` has it.")
_TRIES: Final = 3


@click.group(no_args_is_help=True)
def consent() -> None:
    """What a manifest asks you to agree to before anything runs under it. docs/consent.md.

    \b
      immure consent show build.toml           # or sha256:..., as the refusal of a run names it
      immure consent accept build.toml
      immure run --manifest build.toml -- make
    """


@consent.command()
@_MANIFEST
@_LANGUAGE
@_JSON
@connection_options
def show(
    manifest: str, language: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Print the text. MANIFEST: a TOML file, or sha256:..."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        shown = Consents(client).show(_named(manifest), language=language_of(language))
    if as_json:
        click.echo(json_text(shown.raw))
        return
    _print(shown)
    if shown.required:
        click.echo(f"\nTo agree: immure consent accept {_word(manifest)}")
        click.echo(f"Not to:   immure consent decline {_word(manifest)}")


@consent.command(short_help="Print the text, and agree to it.")
@_MANIFEST
@_LANGUAGE
@_TEXT
@click.option("--yes", is_flag=True, help="Do not ask at the terminal: this command is the answer.")
@_JSON
@connection_options
@click.pass_context
def accept(
    ctx: click.Context, manifest: str, language: str | None, text: str | None, yes: bool, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Print the text, and agree to it: at a terminal once you have answered its question, else by this command.

    It holds for the same key, user, tenant, project, persona, sub and session, for as long as the manifest says.
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        consents = Consents(client)
        shown = consents.show(_named(manifest), language=language_of(language))
        _check_text(shown, text)
        if not as_json:
            _print(shown)
        agreed = True
        if shown.required and not yes and sys.stdin.isatty():
            if as_json:
                _print(shown, err=True)
            agreed = _ask(shown)
        answer = consents.accept(shown) if agreed else consents.decline(shown)
    _tell(answer, "accepted" if agreed else "declined", as_json)
    ctx.exit(0 if agreed else 1)


@consent.command()
@_MANIFEST
@_LANGUAGE
@_TEXT
@_JSON
@connection_options
def decline(
    manifest: str, language: str | None, text: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Print the text, and do not agree to it. An earlier consent ends with that."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        consents = Consents(client)
        shown = consents.show(_named(manifest), language=language_of(language))
        _check_text(shown, text)
        if not as_json:
            _print(shown)
        answer = consents.decline(shown)
    _tell(answer, "declined", as_json)


@consent.command()
@click.argument("manifest", metavar="[MANIFEST]", required=False)
@_JSON
@connection_options
@click.pass_context
def status(
    ctx: click.Context, manifest: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """What you answered, in this tenant. With a MANIFEST: whether commands under it may run; exits 1 where not."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Consents(client).status(None if manifest is None else _named(manifest))
    if as_json:
        click.echo(json_text(found.raw))
    elif manifest is None:
        click.echo(table(["MANIFEST", "ANSWER", "LEFT", "LANGUAGE", "SESSION"], [_row(one) for one in found.consents]))
    else:
        click.echo(wrapped(_sentence(found.words)))
        if found.remedy:
            click.echo(f"To agree: {printable(found.remedy)}")
    if manifest is not None:
        ctx.exit(0 if found.standing in ("given", "not_required") else 1)


consent.add_command(export)


def language_of(given: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The tag that --language or the environment names; None where none does. Raises ConfigurationError."""
    if given is not None:
        if not is_tag(given):
            raise ConfigurationError(
                "bad_argument", f"--language {given!r} is no language's tag", "such as de, zh-Hans"
            )
        return normal(given)
    locale = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return from_locale(locale)


def _named(manifest: str) -> str | Mapping[str, object]:
    """As `immure run --manifest` would name or send it."""
    order = compile_order(Flags(manifest=manifest), Path.cwd())
    assert order.manifest is not None  # noqa: S101 - one was given
    return order.manifest


def _check_text(shown: ShownText, text: str | None) -> None:
    if text is not None and text != shown.text:
        raise ConfigurationError(
            "consent_changed",
            f"the text is {shown.text or 'none'}, and not {text[:80]}",
            "read it: immure consent show",
        )


def _print(shown: ShownText, *, err: bool = False) -> None:
    """The text, then what else is to be known, each fact a line that says what it is."""

    def say(text: str) -> None:
        click.echo(text, err=err)

    name, digest = printable(shown.name), printable(shown.manifest)
    if not shown.required:
        say(wrapped(f"The manifest {name} asks for no consent."))
        return
    words = shown.words
    if shown.other:
        say(wrapped(f"There is no text in {shown.asked}; this one is in {shown.language}.") + "\n")
    say(heading(wrapped(words["title"])))
    say("\n" + wrapped(words["text"]))
    say("\n" + wrapped(words["question"]) + "\n")
    reviewed = "by nobody on record"
    if shown.reviewed_by is not None:
        reviewed = f"{printable(shown.reviewed_by)}, {printable(shown.reviewed_on or '')}"
    say(f"Manifest: {name}, {digest}")
    say(f"Holds for: {span_text(shown.valid_ms)}")
    say(f"Language: {printable(shown.language)} (there is also {_others(shown)})")
    say(f"Reviewed: {reviewed}")
    say(f"Text: {printable(shown.text)}")


def _others(shown: ShownText) -> str:
    return printable(", ".join(one for one in shown.languages if one != shown.language)) or "none"


def _ask(shown: ShownText) -> bool:
    """Raises ConfigurationError `no_answer`: then neither was answered."""
    yes, no = printable(shown.words["accept"]), printable(shown.words["decline"])
    for _ in range(_TRIES):
        click.echo(f"\n{wrapped(shown.words['question'])} ({yes} / {no}) ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            break
        if same_word(line, yes):
            return True
        if same_word(line, no):
            return False
    raise ConfigurationError("no_answer", "the question was not answered", f"answer {yes!r} or {no!r}, in full")


def _tell(answer: ConsentAnswer, what: str, as_json: bool) -> None:
    if as_json:
        seq = {} if answer.seq is None else {"seq": answer.seq}
        click.echo(json_text({"answer": what, **answer.raw, **seq}))
        return
    until = f" until {date_of(answer.expires_ms)}" if what == "accepted" else ""
    entry = "" if answer.seq is None else f", entry {answer.seq} of the ledger"
    click.echo(f"\n{what.title()}{until}{entry}.")
    if what == "declined":
        note("nothing runs under this manifest until you agree")


def _row(one: ConsentFacts) -> list[str]:
    answer = "accepted" if one.accepted else "declined"
    return [one.manifest, answer, left(one.expires_ms) if one.accepted else "-", one.language, one.session or "-"]


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _word(manifest: str) -> str:
    return printable(shlex.quote(manifest))
