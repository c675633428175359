"""`immure ledger prove`, `check-proof`, `consistency`, `check-consistency`: what is handed to somebody who trusts a key
and nothing else, and how he checks it: offline, without the ledger."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.ledger_places import unreadable
from immured.cli.say import complain, json_text, printable
from immured.cli.session import connect
from immured.cli.target import SYSTEM_STATE, connection_options
from immured.errors import ConfigurationError
from immured.ledger.checkpoint import CosignKey, NoteError, VerifierKey, parse_vkeys, parse_witness_keys
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.proof import MAX_PROOF, Consistency, Proof, ProofError
from immured.ledger.proving import NoProof, NotSigned, Prover
from immured.ledger.show import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TypeVar

    from immured.ledger.checkpoint import Witnessed

    F = TypeVar("F", bound=Callable[..., Any])
    Key = TypeVar("Key", VerifierKey, CosignKey)

__all__ = ["check_consistency", "check_proof", "consistency", "keys_named", "prove", "trust_options", "trusted"]

_MAX_KEYS = 1 << 20


def _out_options(command: F) -> F:
    """Adds --copy and --out (parameters: copy, out)."""
    for option in (
        click.option("-o", "--out", metavar="F", type=click.Path(), help="Write it there, not to standard output."),
        click.option("--copy", metavar="DIR", type=click.Path(), help="A copy of a ledger's directory."),
    ):
        command = option(command)
    return command


def trust_options(command: F) -> F:
    """Adds --key, --rotations, --witness, --require and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead."),
        click.option("--require", metavar="N", type=click.IntRange(0), help="So many of the witnesses; all of them."),
        click.option(
            "--witness", "witnesses", metavar="KEY", multiple=True, help="A witness's key, or a file of such."
        ),
        click.option("--rotations", metavar="F", type=click.Path(), help="The ledger's own ledger.key_rotated lines."),
        click.option(
            "--key", "keys", metavar="KEY", multiple=True, required=True, help="The ledger's key, or ledger.vkey."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("seq", type=click.IntRange(0))
@_out_options
@click.option(
    "--ask",
    is_flag=True,
    help="Ask the daemon; it signs a head where none covers it.",
)
@connection_options
def prove(
    seq: int, copy: str | None, out: str | None, ask: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Write a proof that entry SEQ is in the ledger: for somebody who has its key, and nothing else of it."""
    if not ask:
        write_out(out, _made(state or SYSTEM_STATE, copy, lambda prover: prover.prove(seq).encode()))
        return
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        write_out(out, client.prove(seq).proof.encode())


@click.command()
@click.option("--from", "old", metavar="SIZE", type=click.IntRange(0), required=True, help="The older checkpoint's.")
@click.option("--to", "new", metavar="SIZE", type=click.IntRange(1), help="The newer one's; the newest, if cosigned.")
@_out_options
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="A state directory.")
def consistency(old: int, new: int | None, state: str, copy: str | None, out: str | None) -> None:
    """Write a proof that a newer checkpoint goes on from an older one: that nothing before it was changed."""
    made = _made(state, copy, lambda prover: prover.consistency(old, new).encode())
    write_out(out, made)


@click.command("check-proof")
@click.argument("file", type=click.Path())
@trust_options
def check_proof(file: str, as_json: bool, **trust: Any) -> None:
    """Check a proof that `prove` wrote, and print the entry. Exits 1 where it proves nothing."""
    history, witnesses, require = trusted(**trust)
    try:
        proven = Proof.parse(_read(file, MAX_PROOF)).check(history, witnesses, require)
    except ProofError as error:
        _nothing(file, error)
    if as_json:
        entry = proven.entry
        described = {"seq": entry.seq, "ts": entry.ts, "type": entry.type, "actor": entry.actor, "data": entry.data}
        click.echo(json_text({**_told(proven.witnessed), "entry": described}))
        return
    click.echo(one_line(proven.entry))
    click.echo(f"{printable(file)}: proven: {_words(proven.witnessed)}")


@click.command("check-consistency")
@click.argument("file", type=click.Path())
@click.argument("older", type=click.Path())
@click.argument("newer", type=click.Path(), required=False)
@trust_options
def check_consistency(file: str, older: str, newer: str | None, as_json: bool, **trust: Any) -> None:
    """Check a proof that `consistency` wrote, from the checkpoint file OLDER, which was kept, to the one in FILE, or to
    NEWER. Exits 1 where one does not go on from the other."""
    history, witnesses, require = trusted(**trust)
    try:
        proof = Consistency.parse(_read(file, MAX_PROOF))
        if newer is not None:
            proof = Consistency(proof.old, proof.path, _read(newer, MAX_PROOF))
        before, after = proof.check(_read(older, MAX_PROOF), history, witnesses, require)
    except ProofError as error:
        _nothing(file, error)
    if as_json:
        click.echo(json_text({"from": before.size, **_told(after)}))
        return
    click.echo(f"{printable(file)}: proven: goes on from size {before.size}: {_words(after)}")


def _made(state: str, copy: str | None, make: Callable[[Prover], bytes]) -> bytes:
    directory = Path(copy) if copy else Path(state) / "ledger"
    try:
        with Prover.open(directory) as prover:
            return make(prover)
    except OSError as failed:
        raise unreadable(failed) from failed
    except NotSigned as error:
        remedy = "a daemon signs a head every five minutes and when it stops; for `prove --ask` it signs one at once"
        raise ConfigurationError("no_proof", f"{directory}: {error}", remedy) from error
    except NoProof as error:
        raise ConfigurationError(
            "no_proof", f"{directory}: {error}", "immure ledger verify says how far it is whole and signed"
        ) from error


def write_out(out: str | None, made: bytes) -> None:
    """To a file, or to standard output. Raises ConfigurationError."""
    if out is None:
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()
        return
    try:
        Path(out).write_bytes(made)
    except OSError as failed:
        raise ConfigurationError("unwritable", f"{out}: {failed.strerror}", "name another file with -o") from failed


def _read(name: str, most: int) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(most + 1)
    except OSError as failed:
        raise ConfigurationError(
            "unreadable", f"{name}: {failed.strerror}", "name a file that you may read"
        ) from failed


def keys_named(named: Sequence[str], parse: Callable[[str], tuple[Key, ...]]) -> tuple[Key, ...]:
    """Those that are named, as themselves or by files."""
    found: list[Key] = []
    for one in named:
        literal = one.count("+") >= 2 and not Path(one).exists()
        try:
            found += parse(one if literal else _read(one, _MAX_KEYS).decode())
        except UnicodeDecodeError as error:
            raise _no_key(one, "it is not UTF-8") from error
        except NoteError as error:
            raise _no_key(one, str(error)) from error
    return tuple(found)


def _no_key(name: str, what: str) -> ConfigurationError:
    return ConfigurationError("bad_key", f"{name}: {what}", "name a verifier key, or a file of such, as ledger.vkey is")


def trusted(
    keys: Sequence[str], rotations: str | None, witnesses: Sequence[str], require: int | None
) -> tuple[KeyHistory, tuple[CosignKey, ...], int]:
    history, cosigners = KeyHistory(keys_named(keys, parse_vkeys)), keys_named(witnesses, parse_witness_keys)
    if rotations is not None:
        try:
            history.read(_read(rotations, _MAX_KEYS))
        except NoteError as error:
            remedy = "immure ledger show --type ledger.key_rotated --json has them"
            raise ConfigurationError("bad_key", f"{rotations}: {error}", remedy) from error
    if not history.known:
        raise _no_key(" ".join(keys), "there is no key in it")
    return history, cosigners, len({key.public for key in cosigners}) if require is None else require


def _nothing(file: str, error: ProofError) -> NoReturn:
    remedy = "ask whoever gave it for another, and keep this one; --rotations, where the ledger's key was changed since"
    complain("bad_proof", f"{file} proves nothing: {error}", remedy)
    click.get_current_context().exit(1)


def _told(opened: Witnessed) -> dict[str, object]:
    head = opened.checkpoint
    return {
        "origin": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "witnesses": [{"key": one.key.encode(), "time": one.time_s} for one in opened.cosignatures],
    }


def _words(opened: Witnessed) -> str:
    head = opened.checkpoint
    by = ", ".join(printable(one.key.name) for one in opened.cosignatures) or "no witness that you named"
    return f"{head.origin}, size {head.size}, cosigned by {by}"
