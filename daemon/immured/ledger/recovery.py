"""What happens to a ledger's file before the first new entry: it is read whole, and what a crash tore is set aside.

Every step can itself be interrupted: the torn bytes are durable in the quarantine before they leave the file, and a
quarantined file that no entry speaks of is recorded at the next start.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from immured.errors import ConfigurationError
from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint, NoteError, VerifierKey, file_name, open_checkpoint
from immured.ledger.entry import Entry
from immured.ledger.entry_types import LEDGER_RECOVERED
from immured.ledger.reader import Problem, is_torn, scan
from immured.ledger.storage import LOG, LogFile, Storage
from immured.ledger.timestamps import compact

__all__ = ["CHECKPOINTS", "QUARANTINE", "Quarantined", "Recovered", "checkpoint_names", "recover"]

CHECKPOINTS: Final = "checkpoints"
QUARANTINE: Final = "quarantine"

_CHECKPOINT_NAME: Final = re.compile(r"[0-9]{20}")
_TORN_NAME: Final = re.compile(r"[0-9]{20}-[0-9T.]+Z\.torn")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that were set aside: the file's name, what it holds, and the index that they would have begun at."""

    file: str
    length: int
    sha256: str
    at: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """A ledger that is whole up to byte `end`, and what no entry of it speaks of yet."""

    chain: Chain
    end: int
    signed: int
    """Size of the newest checkpoint; 0 for none."""
    unrecorded: tuple[Quarantined, ...]


def checkpoint_names(names: Iterable[str]) -> list[str]:
    """Those that are names of checkpoints, smallest first."""
    return sorted(name for name in names if _CHECKPOINT_NAME.fullmatch(name))


def _damaged(where: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "ledger_damaged",
        f"{where}: {what}",
        "nothing was changed; compare with a copy (`immure ledger verify --file COPY`) and restore it, or keep this "
        "state directory as evidence and begin with a new one (`immure init`)",
    )


def _newest(storage: Storage, keys: Iterable[VerifierKey]) -> Checkpoint | None:
    names = checkpoint_names(storage.names(CHECKPOINTS))
    if not names:
        return None
    where = f"{storage.where()}/{CHECKPOINTS}/{names[-1]}"
    try:
        head = open_checkpoint(storage.read_whole(f"{CHECKPOINTS}/{names[-1]}"), keys)
    except NoteError as error:
        raise _damaged(where, str(error)) from None
    if file_name(head.size) != names[-1]:
        raise _damaged(where, f"the checkpoint is of size {head.size}; expected the size in the file's name")
    return head


def _describe(storage: Storage, name: str) -> Quarantined:
    content = storage.read_whole(f"{QUARANTINE}/{name}")
    return Quarantined(name, len(content), hashlib.sha256(content).hexdigest(), int(name[:20]))


def _set_aside(storage: Storage, log: LogFile, problem: Problem, size: int, now_ns: int) -> None:
    torn = b""
    while len(torn) < size - problem.offset:
        chunk = log.read(problem.offset + len(torn), size - problem.offset - len(torn))
        if not chunk:
            break
        torn += chunk
    storage.write_whole(f"{QUARANTINE}/{file_name(problem.seq)}-{compact(now_ns)}.torn", torn)
    log.truncate(problem.offset)
    log.sync()


def recover(
    storage: Storage,
    log: LogFile,
    keys: Iterable[VerifierKey],
    now_ns: int,
    visit: Callable[[Entry], None] | None = None,
) -> Recovered:
    """Make the ledger's file fit to be written on, or refuse. `visit` sees every entry once, in order.

    Raises ConfigurationError("ledger_damaged") naming the first bad line and what was expected, with nothing changed;
    OSError when the disk does not do as asked.
    """
    # A predecessor that was killed may have left lines that are not on the disk yet; one whose sync failed, lines that
    # never will be, though the cache shows them. What counts from here on is what the disk says.
    log.sync()
    log.drop_cache()
    head = _newest(storage, keys)
    recorded: set[object] = set()

    def see(entry: Entry) -> None:
        if entry.type == LEDGER_RECOVERED:
            recorded.add(entry.data.get("file"))
        if visit is not None:
            visit(entry)

    size = log.size()
    found = scan(log, size, {head.size: head} if head is not None else {}, see)
    signed = head.size if head is not None else 0
    if (problem := found.problem) is not None:
        if not (found.chain.size >= max(signed, 1) and is_torn(log, problem.offset, size, problem.seq)):
            raise _damaged(f"{storage.where()}/{LOG}", str(problem))
        _set_aside(storage, log, problem, size, now_ns)
    names = [name for name in storage.names(QUARANTINE) if _TORN_NAME.fullmatch(name) and name not in recorded]
    return Recovered(found.chain, found.end, signed, tuple(_describe(storage, name) for name in names))
