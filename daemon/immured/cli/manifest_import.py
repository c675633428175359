"""`immure manifest import`: another sandbox's policy as a manifest, and what became of each part. No daemon, no key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.adapters.imported import invalid
from immured.adapters.show import finding_lines, manifest_text
from immured.cli.say import json_text, note
from immured.cli.surroundings import Here
from immured.errors import ConfigurationError
from immured.manifest.builtin import parse_toml

if TYPE_CHECKING:
    from immured.adapters.imported import Imported

__all__ = ["import_"]

_MAX_TEXT = 1 << 20
_TOOLS = {"codex": "Codex", "srt": "sandbox-runtime", "nsjail": "nsjail", "bwrap": "bubblewrap"}


@click.command("import", context_settings={"allow_interspersed_args": False})
@click.option("--from", "tool", type=click.Choice(sorted(_TOOLS)), required=True, help="Whose policy it is.")
@click.option("--cwd", metavar="DIR", help="Where the policy's relative paths start; else here.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, the findings, the command as JSON instead.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say on stderr what was lost.")
@click.argument("words", metavar="F | -- WORDS...", nargs=-1, required=True, type=click.UNPROCESSED)
def import_(tool: str, cwd: str | None, as_json: bool, quiet: bool, words: tuple[str, ...]) -> None:
    """Another sandbox's policy as a manifest, on stdout.

    What was lost, or lets more through, is said on stderr too; the manifest's comments have all of it. A file is a
    SandboxPolicy, a PermissionProfile or a config.toml (codex), settings (srt), a config (nsjail), a command line
    (bwrap); behind -- stand the tool's own words instead.

    \b
      immure manifest import --from nsjail sandbox.cfg > sandbox.toml
      immure manifest import --from bwrap -- --ro-bind /usr /usr --unshare-all /bin/sh
    """
    host = Here(cwd)
    # click takes the `--` away, and leaves no other trace of it than that one word is not a file's name.
    given = list(words)
    if len(given) == 1 and not given[0].startswith("-"):
        imported, source = _from_text(tool, _text(given[0]), host), given[0]
    elif given == ["-"]:
        imported, source = _from_text(tool, _text("-"), host), "standard input"
    else:
        imported, source = _from_words(tool, given, host), " ".join(given)
    text = manifest_text(imported, _TOOLS[tool], source)
    parse_toml(text)  # never what no daemon would read
    if as_json:
        click.echo(json_text(_record(imported)))
    else:
        click.echo(text, nl=False)
    for line in [] if quiet else finding_lines(imported, "lost", "looser"):
        note(line)


def _from_text(tool: str, text: str, host: Here) -> Imported:
    if tool == "codex":
        from immured.adapters.codex import import_codex

        return import_codex(text, host)
    if tool == "srt":
        from immured.adapters.srt import import_srt

        return import_srt(text, host)
    if tool == "nsjail":
        from immured.adapters.nsjail import import_nsjail

        return import_nsjail(text, host)
    from immured.adapters.bubblewrap import import_bubblewrap
    from immured.adapters.bubblewrap_words import read_line

    return import_bubblewrap(read_line(text), host, _descriptor)


def _from_words(tool: str, words: list[str], host: Here) -> Imported:
    if tool == "bwrap":
        from immured.adapters.bubblewrap import import_bubblewrap

        return import_bubblewrap(words, host, _descriptor)
    if tool == "codex":
        from immured.adapters.codex import import_policy
        from immured.adapters.codex_words import policy_of, read_words

        said = read_words(words)
        host = Here(said.values.get("--sandbox-policy-cwd"))
        return import_policy(policy_of(said, host), host)
    raise invalid(f"a policy of {_TOOLS[tool]}'s is a file", f"immure manifest import --from {tool} FILE")


def _text(path: str) -> str:
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(_MAX_TEXT + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(_MAX_TEXT + 1)
    except OSError as failed:
        raise ConfigurationError(
            "bad_path", f"{path}: {failed.strerror}", "name a policy's file, or - for stdin"
        ) from None
    if len(raw) > _MAX_TEXT:
        raise ConfigurationError("bad_path", f"{path} is larger than {_MAX_TEXT} bytes", "name a policy's file")
    return raw.decode("utf-8", "surrogateescape")


def _descriptor(number: int) -> bytes:
    with os.fdopen(os.dup(number), "rb") as file:
        raw = file.read(_MAX_TEXT + 1)
    if len(raw) > _MAX_TEXT:
        raise ConfigurationError("bad_path", f"descriptor {number} holds more than {_MAX_TEXT} bytes", "give it less")
    return raw


def _record(imported: Imported) -> dict[str, object]:
    return {
        "manifest": imported.manifest,
        "findings": [{"source": one.source, "verdict": one.verdict, "words": one.words} for one in imported.findings],
        "argv": imported.argv,
        "env": imported.env,
        "cwd": imported.cwd,
        "files": imported.files,
    }
