"""The arguments of `sandbox.create` and `sandbox.exec`, typed. What they may hold, plans are compiled to find out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from immured.isolation.compile_sandbox import Terminal
from immured.service.arguments import (
    RunArguments,
    parse_environment,
    parse_files,
    parse_manifest,
    parse_parameters,
    parse_run,
    raw_bytes,
)
from immured.service.sandboxes.sandbox import Restart
from immured.wire.strict import Fields, kind_of, shown, take

__all__ = ["MAX_COUNT", "CreateArguments", "ExecArguments", "labels_of", "parse_create", "parse_exec"]

MAX_COUNT: Final = 1000

_CREATE: Final = "manifest parameters name labels ttl_ms limits env cwd files count restart snapshot".split()
_EXEC: Final = "argv env cwd stdin collect limits stream fds detach".split()
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_ID: Final = re.compile(r"[se][0-9a-f]{20}", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}", re.ASCII)
_MAX_LABELS: Final = 32
_MAX_VALUE: Final = 256
_MAX_SIZE: Final = 9999  # rows and columns; struct winsize holds 65,535, no terminal has so many
_TERM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_.-]{0,63}", re.ASCII)
_MAX_TTL_MS: Final = 366 * 86_400_000


@dataclass(frozen=True, slots=True)
class CreateArguments:
    """What sandboxes are to be. `ttl_ms`, `restart`: None for the daemon's default; `snapshot`: what they begin with, a
    name of the tenant's; the rest as a run's."""

    manifest: str | Mapping[str, object] | None
    name: str | None
    labels: Mapping[str, str]
    ttl_ms: int | None
    limits: Mapping[str, object] | None
    env: Mapping[bytes, bytes]
    cwd: bytes | None
    files: Mapping[bytes, bytes]
    count: int
    restart: Restart | None
    snapshot: str | None
    parameters: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ExecArguments:
    """What an exec is to be. `term` is TERM for one with a terminal."""

    sandbox: str
    run: RunArguments
    terminal: Terminal | None
    term: bytes


def parse_create(args: Mapping[str, object]) -> CreateArguments:
    """Raises Refused `bad_argument` or `unknown_field`, naming the field."""
    fields = take(args, "args", _CREATE)
    name = fields.optional("name", str)
    if name is not None and (not _NAME.fullmatch(name) or _ID.fullmatch(name)):
        raise fields.wrong(
            "name", f"is {shown(name)}", "1 to 64 of a-z 0-9 . _ -, first a letter or digit, and not like an id"
        )
    count = fields.integer("count", 1, MAX_COUNT)
    if name is not None and count is not None:
        raise fields.wrong("name", "is given, and `count` too", "a name is one sandbox's; use labels")
    restart = fields.optional("restart", str)
    if restart is not None and restart not in list(Restart):
        raise fields.wrong("restart", f"is {shown(restart)}", "`adopt` or `end`")
    return CreateArguments(
        manifest=parse_manifest(fields),
        name=name,
        labels=labels_of(fields),
        ttl_ms=fields.integer("ttl_ms", 1, _MAX_TTL_MS),
        limits=fields.optional("limits", dict),
        env=parse_environment(fields),
        cwd=raw_bytes(fields, "cwd", fields.values["cwd"]) if "cwd" in fields else None,
        files=parse_files(fields),
        count=count or 1,
        restart=None if restart is None else Restart(restart),
        snapshot=fields.sized("snapshot", str, 1, 64),
        parameters=parse_parameters(fields),
    )


def parse_exec(args: Mapping[str, object]) -> ExecArguments:
    """Raises Refused `bad_argument` or `unknown_field`, naming the field."""
    fields = take(args, "args", ("sandbox", "terminal", *_EXEC))
    sandbox = fields.required("sandbox", str)
    run = parse_run({name: args[name] for name in _EXEC if name in args})
    terminal, term = _terminal(fields)
    if terminal is not None and "fds" in fields:
        raise fields.wrong("fds", "is given, and `terminal` too", "a terminal is all three; data frames feed it")
    if run.detach:
        for name, remedy in (
            ("fds", "what a caller passes would keep it to its caller"),
            ("collect", "get files from the sandbox once it ended (`file.get`)"),
            ("stream", "attach to it (`sandbox.attach`)"),
        ):
            if getattr(run, name):
                raise fields.wrong(name, "is given, and `detach` too", remedy)
    return ExecArguments(sandbox, run, terminal, term)


def labels_of(fields: Fields) -> dict[str, str]:
    """`labels`, a map of str to str; empty where absent. Raises Refused `bad_argument`."""
    found: dict[str, str] = {}
    for name, value in (fields.sized("labels", dict, 0, _MAX_LABELS) or {}).items():
        if not _LABEL.fullmatch(name):
            raise fields.wrong("labels", f"holds the name {shown(name)}", "1 to 64 of letters, digits and . _ / -")
        if not isinstance(value, str):
            raise fields.wrong("labels", f"holds {kind_of(value)} for {shown(name)}", "values are str")
        if len(value.encode()) > _MAX_VALUE or not value.isprintable():
            raise fields.wrong("labels", f"holds a value for {shown(name)}", f"at most {_MAX_VALUE} bytes, printable")
        found[name] = value
    return found


def _terminal(fields: Fields) -> tuple[Terminal | None, bytes]:
    given = fields.optional("terminal", dict)
    if given is None:
        return None, b""
    size = take(given, "args.terminal", ("rows", "columns", "term"))
    term = size.optional("term", str) or "xterm"
    if not _TERM.fullmatch(term):
        raise size.wrong("term", f"is {shown(term)}", "a terminal's name, as terminfo has it")
    rows, columns = size.integer("rows", 1, _MAX_SIZE), size.integer("columns", 1, _MAX_SIZE)
    return Terminal(rows or 24, columns or 80), term.encode()
