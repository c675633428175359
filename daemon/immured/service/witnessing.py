"""The process that asks one witness: forked while the daemon is root, a user without rights ever after.

The broker connects to nobody; whoever takes it over reaches no network. This one connects to its witness's port, reads
the ledger's directory, and writes nothing at all: a stranger's answer is read here, and what the broker is given is a
signature, which it verifies again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from immured.host.landlock import READ, Landlock
from immured.ledger.checkpoint import NoteError, file_name
from immured.ledger.note_keys import parse_vkeys
from immured.ledger.recovery import CHECKPOINTS
from immured.ledger.tree_store import TREE, TreeDirectory, TreeInMemory, TreeReader
from immured.ledger.witness_client import WitnessError, ask
from immured.ledger.witness_link import Link
from immured.service import offshoot, outward
from immured.service.broker_user import User
from immured.service.state import Paths
from immured.service.witness_places import WitnessPlace

__all__ = ["start_collector"]

_MAX_NOTE: Final = 1 << 16


def start_collector(place: WitnessPlace, paths: Paths, user: User) -> offshoot.Offshoot:
    """Fork the process that asks one witness. Called as root, with one thread. Raises OSError.

    It is sent `{op: "cosign", size, known, vkeys}` (`known`: the size that the witness is thought to have; `vkeys`: the
    text of ledger.vkey), and answers `{op, size, line, time_s}`, or `{op, size, code, message, remedy}` with, where a
    witness that saw another history shows it, `theirs`: `{size, root, note}`.
    """
    ledger = os.open(paths.ledger, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        link = Link(place.address)
        return offshoot.start(
            f"the process that asks the witness {place.name}",
            {ledger},
            lambda: _confine(place, ledger, user),
            lambda orders: _serve(place, ledger, link, orders),
        )
    finally:
        os.close(ledger)


def _confine(place: WitnessPlace, ledger: int, user: User) -> None:
    """Become the broker's user, who here reads the ledger's directory and connects to one port."""
    with Landlock() as domain:
        domain.allow(ledger, READ)
        outward.allow_outward(domain, [place.address.port])
        outward.enter(domain, user)


def _serve(place: WitnessPlace, ledger: int, link: Link, orders: offshoot.Orders) -> None:
    while (order := orders.next()) is not None:
        orders.say({"op": order["op"], "size": order["size"], **_answer(place, ledger, link, order)})


def _answer(place: WitnessPlace, ledger: int, link: Link, order: Mapping[str, Any]) -> dict[str, object]:
    try:
        keys = parse_vkeys(order["vkeys"])
        note = _note(ledger, order["size"])
        with _tree(ledger) as tree:
            found = ask(place.key, note, keys, tree, order["known"], link.send)
    except WitnessError as error:
        told: dict[str, object] = {"code": error.code, "message": error.message, "remedy": error.remedy}
        if error.theirs is not None:
            told["theirs"] = {"size": error.theirs.size, "root": error.theirs.root, "note": error.note}
        return told
    except (OSError, NoteError) as error:
        return {
            "code": "witness_no_proof",
            "message": f"the checkpoint {order['size']} cannot be read: {error}",
            "remedy": "see `immure ledger verify`",
        }
    return {"line": found.line, "time_s": found.time_s}


@contextlib.contextmanager
def _tree(ledger: int) -> Iterator[TreeReader]:
    """As it is now: a file may be there that was not."""
    try:
        fd = os.open(TREE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=ledger)
    except FileNotFoundError:
        yield TreeReader(TreeInMemory())
        return
    files = TreeDirectory(fd)
    try:
        yield TreeReader(files)
    finally:
        files.close()
        os.close(fd)


def _note(ledger: int, size: int) -> bytes:
    fd = os.open(f"{CHECKPOINTS}/{file_name(size)}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=ledger)
    try:
        return os.read(fd, _MAX_NOTE)
    finally:
        os.close(fd)
