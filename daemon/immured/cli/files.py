"""`immure file`: the files of a sandbox that lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

import immured.client.files  # noqa: F401 - now: who we become may not be able to read where it is
from immured.cli.progress import Bar
from immured.cli.say import json_text, note, printable
from immured.cli.session import connect
from immured.cli.table import size_text, table
from immured.cli.target import connection_options

if TYPE_CHECKING:
    from immured.client.files import Files
    from immured.client.files_questions import Archive, Content, FileInfo

__all__ = ["files"]

F = TypeVar("F", bound=Callable[..., Any])

_LETTERS = {"file": "-", "directory": "d", "link": "l", "fifo": "p", "socket": "s", "character": "c", "block": "b"}


class Mode(click.ParamType[int]):
    """Permissions, in octal."""

    name = "MODE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 8)
        except ValueError:
            self.fail(f"{value!r} is no number in octal, as 644 is", param, ctx)


MODE = Mode()


def inside(name: str) -> Callable[[F], F]:
    """Adds a path in the sandbox as an argument; bytes that are no text come as the command line had them."""
    return click.argument(name, metavar=name.upper(), type=str, callback=_as_bytes)  # nothing of it is this host's


def _as_bytes(_ctx: click.Context, _param: click.Parameter, value: str) -> bytes:
    return os.fsencode(value)


def answered(command: F) -> F:
    """Adds --json and how to reach the daemon."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")(connection_options(command))


sandbox_argument = click.argument("sandbox", metavar="SANDBOX")


@click.group("file", no_args_is_help=True)
def files() -> None:
    """The files of a sandbox that lives: put, get, look, change.

    SANDBOX is an id or a name; a path in it is absolute, and never leads through `..`. LOCAL is a file of yours; `-` is
    standard input or output.

    \b
      immure file put dev app.py /tmp/app.py
      immure file get dev /tmp/result.json -
      immure file ls dev /tmp
      immure file archive dev /tmp/out out.tar
    """


@contextmanager
def _files(
    sandbox: str,
    socket: str | None,
    key_file: str | None,
    daemon_key: str | None,
    state: str | None,
    as_user: str | None,
) -> Iterator[Files]:
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        yield client.at(sandbox).files


def _text(path: str | bytes) -> str:
    return printable(path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path)


def _row(info: FileInfo) -> dict[str, object]:
    shown: dict[str, object] = {
        "path": info.path, "kind": info.kind, "size": info.size, "allocated": info.allocated,
        "mode": f"{info.mode:04o}", "uid": info.uid, "gid": info.gid, "links": info.links, "mtime_ns": info.mtime_ns,
    }  # fmt: skip
    return shown | ({"target": info.target} if info.target is not None else {})


def _lines(found: Sequence[FileInfo], *, whole: bool) -> str:
    rows = []
    for info in found:
        name = _text(info.path if whole else info.name)
        rows.append(
            (
                _LETTERS.get(info.kind, "?") + f"{info.mode:04o}", str(info.uid), str(info.gid), size_text(info.size),
                datetime.fromtimestamp(info.mtime_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                name + (f" -> {_text(info.target)}" if info.target is not None else ""),
            )
        )  # fmt: skip
    return table(("MODE", "UID", "GID", "SIZE", "CHANGED (UTC)", "NAME"), rows)


# -- contents


@files.command("put")
@sandbox_argument
@click.argument("local", metavar="LOCAL", type=click.Path(path_type=Path, allow_dash=True))
@inside("path")
@click.option("--mode", type=MODE, help="Permissions, in octal; by default those of what is replaced, else 644.")
@click.option("-p", "--parents", is_flag=True, help="Make directories that are missing.")
@click.option("-n", "--no-replace", is_flag=True, help="Refuse where something is there.")
@answered
def put(
    sandbox: str,
    local: Path,
    path: bytes,
    mode: int | None,
    parents: bool,
    no_replace: bool,
    as_json: bool,
    **target: Any,
) -> None:
    """Put a file of yours into a sandbox: whole, or not at all."""
    with _files(sandbox, **target) as there, _source(local) as (source, size), Bar(f"put {local}", size) as bar:
        content = there.put(source, path, mode=mode, parents=parents, replace=not no_replace, progress=bar.at)
    if as_json:
        click.echo(json_text(_content(content)))
    elif content.in_place:
        note(f"{_text(path)} was written where it stands: its directory takes no new names")


@files.command("get")
@sandbox_argument
@inside("path")
@click.argument("local", metavar="LOCAL", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--most", metavar="BYTES", type=click.IntRange(0), help="Refuse what has more bytes [8 GiB].")
@answered
def get(sandbox: str, path: bytes, local: Path, most: int | None, as_json: bool, **target: Any) -> None:
    """Bring a file of a sandbox back: whole, or not at all."""
    with _files(sandbox, **target) as there, _target(local) as file, Bar(f"get {_text(path)}") as bar:
        content = there.get(path, file, most=most, progress=bar.at)
    if as_json:
        click.echo(json_text(_content(content)), err=str(local) == "-")


@files.command("archive")
@sandbox_argument
@inside("path")
@click.argument("local", metavar="LOCAL", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--most", metavar="BYTES", type=click.IntRange(0), help="Refuse where contents come to more [8 GiB].")
@answered
def archive(sandbox: str, path: bytes, local: Path, most: int | None, as_json: bool, **target: Any) -> None:
    """Bring a directory back as a tar archive."""
    with _files(sandbox, **target) as there, _target(local) as file, Bar(f"archive {_text(path)}") as bar:
        told = there.archive(path, file, most=most, progress=bar.at)
    if as_json:
        click.echo(json_text(_archive(told)), err=str(local) == "-")
    if told.left_out:
        first = "" if told.left_out_first is None else f", the first of them {_text(told.left_out_first)}"
        note(f"{told.left_out} left out (sockets, or not readable){first}")
    if told.changed:
        note(f"{told.changed} grew or shrank while they were read")


@files.command("extract")
@sandbox_argument
@click.argument("local", metavar="LOCAL", type=click.Path(path_type=Path, allow_dash=True))
@inside("path")
@click.option("-p", "--parents", is_flag=True, help="Make the directory where it is missing.")
@click.option("-n", "--no-replace", is_flag=True, help="Refuse where something is there.")
@click.option("--most", metavar="BYTES", type=click.IntRange(0), help="Refuse where contents come to more [8 GiB].")
@answered
def extract(
    sandbox: str,
    local: Path,
    path: bytes,
    parents: bool,
    no_replace: bool,
    most: int | None,
    as_json: bool,
    **target: Any,
) -> None:
    """Unpack a tar archive (not compressed) into a directory of a sandbox."""
    with _files(sandbox, **target) as there, _source(local) as (source, size), Bar(f"extract {local}", size) as bar:
        told = there.extract(source, path, parents=parents, replace=not no_replace, most=most, progress=bar.at)
    if as_json:
        click.echo(json_text(_archive(told)))


@contextmanager
def _source(local: Path) -> Iterator[tuple[Path | BinaryIO, int | None]]:
    """What is read, and how large it is where somebody knows."""
    if str(local) == "-":
        yield sys.stdin.buffer, None
        return
    yield local, local.stat().st_size if local.is_file() else None


@contextmanager
def _target(local: Path) -> Iterator[Path | BinaryIO]:
    if str(local) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    yield local


def _content(content: Content) -> dict[str, object]:
    shown: dict[str, object] = {"length": content.length, "sha256": content.sha256, "file": _row(content.file)}
    if content.in_place:
        shown["in_place"] = True
    return shown | ({"receipt": content.receipt.to_map()} if content.receipt else {})


def _archive(told: Archive) -> dict[str, object]:
    shown: dict[str, object] = {
        "length": told.length, "sha256": told.sha256, "entries": told.entries, "bytes": told.content,
        "left_out": told.left_out, "changed": told.changed,
    }  # fmt: skip
    return shown | ({"receipt": told.receipt.to_map()} if told.receipt else {})


# -- looking


@files.command("ls")
@sandbox_argument
@inside("path")
@click.option("-1", "names", is_flag=True, help="Names alone, one a line.")
@click.option("-0", "nul", is_flag=True, help="Names alone, as they are, a NUL behind each.")
@answered
def ls(sandbox: str, path: bytes, names: bool, nul: bool, as_json: bool, **target: Any) -> None:
    """What is in a directory."""
    with _files(sandbox, **target) as there:
        found = there.list(path)
    _show(found, whole=False, names=names, nul=nul, as_json=as_json)


@files.command("glob")
@sandbox_argument
@inside("pattern")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="So many at the most [1000].")
@click.option("-0", "nul", is_flag=True, help="Paths as they are, a NUL behind each.")
@answered
def glob(sandbox: str, pattern: bytes, limit: int | None, nul: bool, as_json: bool, **target: Any) -> None:
    """What a pattern finds: * ? [...] within a name, ** for directories between."""
    with _files(sandbox, **target) as there:
        found = there.glob(pattern, limit=limit)
    _show(found.entries, whole=True, names=True, nul=nul, as_json=as_json)
    if found.truncated:
        note("there is more")


def _show(found: Sequence[FileInfo], *, whole: bool, names: bool, nul: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json_text({"entries": [_row(one) for one in found]}))
    elif nul:
        for one in found:
            name = one.path if whole else one.name
            sys.stdout.buffer.write((name.encode() if isinstance(name, str) else name) + b"\0")
        sys.stdout.buffer.flush()
    elif names:
        for one in found:
            click.echo(_text(one.path if whole else one.name))
    elif found:
        click.echo(_lines(found, whole=whole))


@files.command("stat")
@sandbox_argument
@inside("path")
@click.option("-L", "--follow", is_flag=True, help="Where a link leads, not the link.")
@answered
def stat(sandbox: str, path: bytes, follow: bool, as_json: bool, **target: Any) -> None:
    """One file."""
    with _files(sandbox, **target) as there:
        info = there.stat(path, follow=follow)
    click.echo(json_text(_row(info)) if as_json else _lines([info], whole=True))


# -- changing


@files.command("mkdir")
@sandbox_argument
@inside("path")
@click.option("--mode", type=MODE, help="Permissions, in octal [755].")
@click.option("-p", "--parents", is_flag=True, help="Those above it too; one that is there is fine.")
@connection_options
def mkdir(sandbox: str, path: bytes, mode: int | None, parents: bool, **target: Any) -> None:
    """Make a directory."""
    with _files(sandbox, **target) as there:
        there.mkdir(path, mode=mode, parents=parents)


@files.command("mv")
@sandbox_argument
@inside("path")
@inside("to")
@click.option("-f", "--replace", is_flag=True, help="What is there may go.")
@connection_options
def move(sandbox: str, path: bytes, to: bytes, replace: bool, **target: Any) -> None:
    """Rename, within one file system."""
    with _files(sandbox, **target) as there:
        there.move(path, to, replace=replace)


@files.command("rm")
@sandbox_argument
@inside("path")
@click.option("-r", "--recursive", is_flag=True, help="All that is in it, too.")
@click.option("-f", "--force", is_flag=True, help="Nothing there is fine.")
@connection_options
def remove(sandbox: str, path: bytes, recursive: bool, force: bool, **target: Any) -> None:
    """Remove a file or a directory; no link is followed."""
    with _files(sandbox, **target) as there:
        there.remove(path, recursive=recursive, missing_ok=force)


@files.command("chmod")
@sandbox_argument
@click.argument("mode", type=MODE)
@inside("path")
@connection_options
def chmod(sandbox: str, mode: int, path: bytes, **target: Any) -> None:
    """Set permissions, in octal."""
    with _files(sandbox, **target) as there:
        there.chmod(path, mode)
