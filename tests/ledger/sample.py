"""Small ledgers to try things on. Keys, clock and randomness are fixed, so that every run sees the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import Checkpoint, Signer, VerifierKey
from immured.ledger.entry import build_line, encode_body, leaf_hash
from immured.ledger.entry_types import LEDGER_ROTATED
from immured.ledger.ledger import Ledger, create_in, first_line
from immured.ledger.rotation import rotated
from immured.ledger.segments import segment_name
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import Frontier
from tests.descriptors import descriptors
from tests.ledger.memory import MemoryStorage
from tests.patience import until

DAEMON = "ed25519:" + "d" * 32
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
START_NS = 1_790_000_000_000_000_000
ACTOR = {"key": "ed25519:" + "a" * 32, "uid": 1000}


def signer(name: str) -> Signer:
    return Signer(KEY, name)


def ticking(start_ns: int = START_NS, step_ns: int = 1_000_001) -> Callable[[], int]:
    """A clock that goes on a little at every look."""
    now = start_ns

    def look() -> int:
        nonlocal now
        now += step_ns
        return now

    return look


def created(before: Callable[[str], None] = lambda _: None) -> MemoryStorage:
    """A storage with a new ledger in it."""
    storage = MemoryStorage(before)
    create_in(storage, signer, first_line(DAEMON, signer("x").verifier.public, bytes(range(16)), START_NS))
    return storage


def bells() -> int:
    """How many descriptors this process has by which a ledger wakes event loops."""
    return sum("eventfd" in one for one in descriptors())


def until_short(state: Path, size: int) -> None:
    """Until the file that is written of a ledger in a directory has fewer bytes: who appends awaits no sealing."""
    written = state / "ledger" / "current.jsonl"

    def is_short() -> bool:
        try:
            return written.stat().st_size < size
        except FileNotFoundError:  # between two names
            return False

    until(is_short)


def vkeys(storage: MemoryStorage) -> tuple[VerifierKey, ...]:
    first = storage.content().partition(b"\n")[0]
    return (signer(f"immured/{leaf_hash(first).hex()[:32]}").verifier,)


def opened(storage: MemoryStorage, keys: tuple[VerifierKey, ...] = (), **options: object) -> Ledger:
    settings: dict[str, object] = {"clock": ticking(START_NS + 10**9), "checkpoint_seconds": 1e9, **options}
    ledger = Ledger.open_in(storage, KEY, keys or vkeys(storage), **settings)  # type: ignore[arg-type]
    ledger.durable.pause = 0.0
    return ledger


def lines(count: int, *, sizes: Iterator[int] | None = None) -> list[bytes]:
    """The lines of a good ledger, without newlines."""
    made = [first_line(DAEMON, signer("x").verifier.public, bytes(range(16)), START_NS)]
    for seq in range(1, count):
        data: dict[str, object] = {"sandbox": f"s{seq}", "argv": ["/bin/echo", "x" * (next(sizes) if sizes else 4)]}
        body = encode_body("run.accepted" if seq % 2 else "run.finished", ACTOR, data)
        made.append(build_line(seq, timestamp(START_NS + seq * 1_000_003), body, leaf_hash(made[-1]).hex()))
    return made


def head(made: list[bytes], size: int) -> Checkpoint:
    """The checkpoint of the first `size` of these lines."""
    leaves = [leaf_hash(line) for line in made[:size]]
    return Checkpoint(f"immured/{leaves[0].hex()[:32]}", size, Frontier(leaves).root())


def text(made: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in made)


def rotated_at(made: list[bytes], first: int, **wrong: object) -> bytes:
    """The line with which a file begins that goes on where these lines end; the one before began with `first`."""
    leaves = [leaf_hash(line) for line in made]
    tree = Frontier(leaves)
    sealed = hashlib.sha256(text(made[first:])).hexdigest()
    data = rotated(f"immured/{leaves[0].hex()[:32]}", tree, first, len(text(made)), sealed) | wrong
    body = encode_body(LEDGER_ROTATED, {"ledger": data["origin"]}, data)
    return build_line(len(made), timestamp(START_NS + len(made) * 1_000_003), body, leaves[-1].hex())


def rotated_lines(*counts: int) -> list[list[bytes]]:
    """The lines of a good ledger in so many files, each with so many lines; all but the first begin with one that says
    what is before."""
    made: list[bytes] = []
    files: list[list[bytes]] = []
    for count in counts:
        begun = len(made)
        if made:
            made.append(rotated_at(made, begun - len(files[-1])))
        else:
            made = lines(1)
        while len(made) < begun + count:
            seq = len(made)
            body = encode_body("run.accepted" if seq % 2 else "run.finished", ACTOR, {"sandbox": f"s{seq}"})
            made.append(build_line(seq, timestamp(START_NS + seq * 1_000_003), body, leaf_hash(made[-1]).hex()))
        files.append(made[begun:])
    return files


def laid_out(folder: Path, files: list[list[bytes]], first: int = 0) -> Path:
    """The same as a ledger's directory has it: all but the last are sealed. `first`: the first line's index."""
    folder.mkdir(parents=True)
    for made in files[:-1]:
        (folder / segment_name(first)).write_bytes(text(made))
        first += len(made)
    (folder / "current.jsonl").write_bytes(text(files[-1]))
    return folder
