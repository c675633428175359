"""`immure batch`: many runs under one signature, from a file of JSON lines to lines of JSON as they end."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from immured.cli.exits import REFUSED
from immured.cli.flags import Flags, compile_order, run_options
from immured.cli.paths import prepare_writable
from immured.cli.run import Running, ended_by_us, record
from immured.cli.say import complain, json_line, note
from immured.cli.session import connect
from immured.cli.target import connection_options
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from immured.client.batch_questions import OneRun

__all__ = ["batch", "parse_lines"]

KINDS = {"stdin": bytes, "env": dict, "parameters": dict, "limits": dict, "files": dict, "collect": list}
FIELDS = ("id", "argv", "parameters", "stdin", "env", "cwd", "limits", "files", "collect")


@click.command(cls=Running)
@click.argument("file", metavar="FILE.jsonl", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--concurrency", metavar="N", type=click.IntRange(1), help="So many at a time, at most.")
@click.option("-q", "--quiet", is_flag=True, help="No notes.")
@run_options
@connection_options
def batch(
    file: str, concurrency: int | None, quiet: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Run every line of a file, each in a sandbox of its own, under one signature; `-` reads standard input.

    A line is a JSON list of words, or an object: argv, and where it has its own: parameters, stdin, env, cwd, limits,
    files, collect, and an id to know it by. Bytes that are not text are {"b64": "..."}. The options hold for all.

    Prints a line of JSON for each, in the order in which they end. Exits with 0 where all exited with 0, else with 1;
    125 where not all ran.

    \b
      immure batch --wall 5s --memory 256M runs.jsonl > results.jsonl
      printf '["true"]\\n{"id":"b","argv":["cat"],"stdin":"hello"}\\n' | immure batch -
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        ids, runs = parse_lines(_read(file), file)
        order = compile_order(Flags(**options), Path.cwd())
        for bound in order.writable:
            if prepare_writable(bound) and not quiet:
                note(f"made {bound.source}")
        ended_by_us()
        failed, causes = 0, Counter[str]()
        doing = client.batch(
            runs, concurrency=concurrency, manifest=order.manifest, parameters=order.parameters or None,
            env=order.env or None, cwd=order.cwd, limits=order.limits or None,
        )  # fmt: skip
        for index, result in doing:
            named = {"run": index} | ({"id": ids[index]} if index in ids else {})
            click.echo(json_line({**named, **record(result)}))
            sys.stdout.flush()
            failed += not result.ok
            causes[result.cause] += 1
    if not quiet:
        note(f"{sum(causes.values())} runs: {', '.join(f'{count} {cause}' for cause, count in causes.most_common())}")
    if not doing.whole:
        last = doing.summaries[-1]
        complain("killed", f"{len(runs) - sum(causes.values())} runs never began: {last.ended}", "give them again")
        raise click.exceptions.Exit(REFUSED)
    raise click.exceptions.Exit(1 if failed else 0)


def parse_lines(lines: Iterable[bytes], name: str) -> tuple[dict[int, object], list[OneRun]]:
    """What each line asks for, and the ids of those that have one. Raises ConfigurationError, naming the line."""
    ids: dict[int, object] = {}
    runs: list[OneRun] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line, object_pairs_hook=_once, parse_float=_text)
            found = _run(given)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                "bad_line", f"{name}, line {number}: {error}", "a JSON list of words, or an object with `argv`"
            ) from None
        if "id" in found:
            ids[len(runs)] = found.pop("id")
        runs.append(found)  # type: ignore[arg-type]
    if not runs:
        raise ConfigurationError("bad_line", f"{name} holds no run", "a line of JSON for each")
    return ids, runs


def _run(given: object) -> dict[str, Any]:
    if isinstance(given, list):
        given = {"argv": given}
    if not isinstance(given, dict):
        raise ValueError("it is neither a list of words nor an object")  # noqa: TRY004 - of a line, not of a caller
    if unknown := given.keys() - set(FIELDS):
        raise ValueError(f"there is no field {min(unknown)!r}")
    found: dict[str, Any] = {name: _plain(value) for name, value in given.items()}
    argv = found.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str | bytes) for word in argv):
        raise ValueError("argv is a list of words")
    if isinstance(found.get("stdin"), str):
        found["stdin"] = found["stdin"].encode()
    if isinstance(found.get("files"), dict):
        found["files"] = {
            path: content.encode() if isinstance(content, str) else content for path, content in found["files"].items()
        }
    for name, kind in KINDS.items():
        if name in found and not isinstance(found[name], kind):
            raise ValueError(f"{name} is of another kind")
    if any(not isinstance(content, bytes) for content in found.get("files", {}).values()):
        raise ValueError("files holds something that is no text")
    return found


def _plain(value: object) -> object:
    """A value with its bytes in it, as the command line prints them."""
    if isinstance(value, dict):
        if value.keys() == {"b64"} and isinstance(value["b64"], str):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except binascii.Error as error:
                raise ValueError(f"b64: {error}") from None
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has a name twice")
    return made


def _text(number: str) -> str:
    """Floats do not travel: `cpus` of 1.5 is the text 1.5."""
    return number


def _read(file: str) -> list[bytes]:
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).splitlines()
    except OSError as error:
        raise ConfigurationError("bad_path", f"{file}: {error.strerror}", "name a file of JSON lines") from None
