"""`immure ledger witness`: serve as a witness, and what an operator of one does. It needs no daemon, and no root."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.say import json_text
from immured.cli.table import table
from immured.errors import ConfigurationError
from immured.ledger.note_keys import NoteError, parse_vkeys
from immured.ledger.timestamps import timestamp
from immured.ledger.witness_state import StateDamaged, WitnessState, init_witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from immured.ledger.note_keys import Cosigner
    from immured.ledger.witness_state import Known

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["witness"]

WITNESS_STATE = "/var/lib/immured-witness"
LISTEN = "127.0.0.1:7380"
ROOT_REMEDY = "chown -R USER {}, a user who has nothing else; started as root it becomes that user"


_LATER = ("concurrent.futures.thread", "encodings.idna", "linecache", "traceback", "immured.ledger.witness_server")
"""Loaded before root is given up: the package may stand where only root can read."""


def _state_option(command: F) -> F:
    said = "The witness's directory."
    return click.option("--state", metavar="DIR", default=WITNESS_STATE, show_default=True, help=said)(command)


@click.group(invoke_without_command=True)
@_state_option
@click.option(
    "--listen", metavar="WHERE", default=LISTEN, show_default=True, help="ADDRESS:PORT to serve at, or unix:PATH."
)
@click.pass_context
def witness(ctx: click.Context, state: str, listen: str) -> None:
    """Cosign the checkpoints of ledgers that only grow (C2SP tlog-witness). Without a subcommand: serve.

    docs/witness.md has the whole of it.
    """
    if ctx.invoked_subcommand is None:
        _serve(Path(state), listen)


@witness.command()
@_state_option
@click.option("--name", required=True, help="What notes call it: a URL without its scheme, witness.example.org/w1.")
def init(state: str, name: str) -> None:
    """Make a witness's directory with a new key, and print its verifier key."""
    with _own(Path(state)) as directory:
        click.echo(init_witness(directory, name).verifier.encode())


@witness.command()
@_state_option
def key(state: str) -> None:
    """Print its verifier key: what the logs' operators, and whoever verifies, are given."""
    with _own(Path(state)) as directory:
        click.echo(WitnessState(directory).cosigner().verifier.encode())


@witness.command()
@_state_option
@click.argument("vkeys", type=click.Path(), nargs=-1, required=True)
def trust(state: str, vkeys: tuple[str, ...]) -> None:
    """Cosign the logs whose verifier keys these files hold (a daemon's keys/ledger.vkey), from now on.

    A log may be named again, with a key that it signs with from now on.
    """
    keys = [one for name in vkeys for one in _parsed(name)]
    with _own(Path(state)) as directory:
        here = WitnessState(directory)
        here.cosigner()
        try:
            for origin in here.trust(keys):
                click.echo(origin)
        except StateDamaged as damaged:
            raise _damaged(damaged) from damaged


@witness.command(name="list")
@_state_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def list_(state: str, as_json: bool) -> None:
    """The logs that it knows: how far each was cosigned, and when. Exits 1 where one was caught with two histories."""
    with _own(Path(state)) as directory:
        here = WitnessState(directory)
        cosigner = here.cosigner()
        try:
            logs = [_shown(one, cosigner) for one in here.known()]
        except StateDamaged as damaged:
            raise _damaged(damaged) from damaged
    if as_json:
        click.echo(json_text(logs))
    else:
        rows = [[one["origin"], str(one["size"]), one["cosigned"] or "never", _remark(one)] for one in logs]
        click.echo(table(["LOG", "SIZE", "COSIGNED", ""], rows))
    if any(one["conflicts"] for one in logs):
        raise click.exceptions.Exit(1)


def _remark(shown: dict[str, Any]) -> str:
    return f"TWO HISTORIES: {len(shown['conflicts'])} conflicting checkpoints are kept" if shown["conflicts"] else ""


def _shown(known: Known, cosigner: Cosigner) -> dict[str, Any]:
    from immured.ledger.checkpoint import open_witnessed

    shown: dict[str, Any] = {"origin": known.origin, "size": 0, "root": "", "cosigned": "", "keys": []}
    if known.note is not None:
        try:
            found = open_witnessed(known.note, known.keys, [cosigner.verifier], 1)
        except NoteError as error:
            raise StateDamaged(f"the checkpoint that is kept of {known.origin}: {error}") from None
        shown |= {"size": found.checkpoint.size, "root": found.checkpoint.root.hex()}
        shown["cosigned"] = timestamp(found.cosignatures[0].time_s * 1_000_000_000)[:19] + "Z"
    shown["keys"] = [one.encode() for one in known.keys]
    shown["conflicts"] = list(known.conflicts)
    return shown


def _parsed(name: str) -> Iterator[Any]:
    try:
        found = parse_vkeys(Path(name).read_text("utf-8"))
    except (NoteError, ValueError) as error:
        raise ConfigurationError(
            "bad_vkey", f"{name}: {error}", "give a daemon's keys/ledger.vkey, as it came from its operator"
        ) from error
    if not found:
        raise ConfigurationError("bad_vkey", f"{name} holds no verifier key", "give a daemon's keys/ledger.vkey")
    yield from found


def _damaged(damaged: StateDamaged) -> ConfigurationError:
    return ConfigurationError(
        "witness_damaged", str(damaged), "find out who changed it; a witness that lost its memory gets a new key"
    )


@contextlib.contextmanager
def _own(directory: Path) -> Iterator[Path]:
    """As root: be whose the directory is, so that what is made in it is his, and nothing that lies there is root's to
    follow. For good."""
    with contextlib.suppress(FileNotFoundError):
        _become_owner(directory)
    yield directory


def _become_owner(directory: Path) -> None:
    if os.geteuid() != 0:
        return
    owner = directory.stat()
    if owner.st_uid != 0:
        os.setgroups([])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


# --- serving


def _serve(directory: Path, listen: str) -> None:
    for name in _LATER:
        importlib.import_module(name)
    listening = _listen(listen)  # a port below 1024 is root's to give
    with contextlib.closing(listening):
        try:
            _become_owner(directory)
        except FileNotFoundError:
            raise ConfigurationError(
                "no_witness",
                f"{directory} is not there",
                "make a witness: immure ledger witness init --state DIR --name NAME",
            ) from None
        if os.geteuid() == 0:
            raise ConfigurationError(
                "witness_as_root", f"{directory} is root's, and a witness needs no root", ROOT_REMEDY.format(directory)
            )
        state = WitnessState(directory)
        cosigner = state.cosigner()
        state.lock()
        try:
            asyncio.run(_served(state, cosigner, listening))
        finally:
            state.unlock()
            if listen.startswith("unix:"):
                with contextlib.suppress(OSError):
                    Path(listen.removeprefix("unix:")).unlink()


async def _served(state: WitnessState, cosigner: Cosigner, listening: socket.socket) -> None:
    from immured.ledger.witness import Witness
    from immured.ledger.witness_server import Server

    server, stop = Server(Witness(state, cosigner)), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if listening.family == socket.AF_UNIX:
        made = await asyncio.start_unix_server(server.connected, sock=listening, limit=1 << 16)
    else:
        made = await asyncio.start_server(server.connected, sock=listening, limit=1 << 16, backlog=128)
    click.echo(f"{cosigner.verifier.name} listens at {_place(listening)}")
    await server.serve(made, stop)


def _place(listening: socket.socket) -> str:
    name = listening.getsockname()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return f"unix:{name}"


def _listen(where: str) -> socket.socket:
    """Raises ConfigurationError `cannot_listen`, click.UsageError."""
    if where.startswith("unix:"):
        return _listen_unix(where.removeprefix("unix:"))
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.UsageError(f"--listen {where} is neither ADDRESS:PORT nor unix:PATH")
    host = host.removeprefix("[").removesuffix("]")
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(128)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise _cannot_listen(where, error) from error
    return made


def _listen_unix(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):
            # One that nobody answers at was left by a process that was killed.
            made.connect(path)
            raise ConfigurationError(
                "cannot_listen", f"somebody serves at unix:{path}", "stop it, or name another path"
            )
        made.close()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if Path(path).is_socket():
            Path(path).unlink()
        made.bind(path)
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - nobody is asked who he is; the directory says who may come
        made.listen(128)
    except OSError as error:
        made.close()
        raise _cannot_listen(f"unix:{path}", error) from error
    except BaseException:
        made.close()
        raise
    return made


def _cannot_listen(where: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        "cannot_listen", f"{where}: {error.strerror or error}", "name an address of this host that is free: --listen"
    )
