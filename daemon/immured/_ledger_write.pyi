"""How a line of the ledger is written, and the tree that grows with it, at the speed of C."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Generic, TypeVar

from immured.errors import Refused
from immured.ledger.keeping import Keep, Keyed
from immured.ledger.pending import Receipt as PlacedReceipt

Receipt = TypeVar("Receipt", bound=tuple[int, bytes])

def encode_members(actor: Mapping[str, object], data: Mapping[str, object], budget: int) -> bytes | None:
    """What `entry.encode_body` makes of them, byte for byte, at most `budget` bytes; None for what is left to that:
    values that are not exactly of Python's own types, what has no place in an entry, and what does not fit.
    """

def seal_line(seq: int, ns: int, type_: str, members: bytes, prev: bytes) -> tuple[bytes, bytes] | None:
    """The line at `seq` with its newline, and its 32-byte leaf hash; `prev` is the 32-byte leaf of the line before.

    None for a time before 1970 or after 2262, and for what does not fit a line.
    """

class Places(Generic[Receipt]):
    """Where the next line goes, and what is kept beside it for outcomes. One caller at a time."""

    last_ns: int
    """The time of the line before, nanoseconds since the epoch."""
    kept: int
    """Bytes that are kept, all together."""
    room: int
    """As far as the stream can grow, what is kept included, without anybody being asked."""

    def __init__(
        self,
        seq: int,
        prev: bytes,
        last_ns: int,
        end: int,
        *,
        budgets: dict[str, int],
        receipt: type[Receipt],
        outcome_bytes: int,
        closing_bytes: int,
    ) -> None: ...
    @property
    def seq(self) -> int:
        """The next line's index."""

    @property
    def end(self) -> int:
        """Where in the ledger's stream of bytes it begins."""

    @property
    def prev(self) -> bytes:
        """The leaf hash of the line before, 32 bytes."""

    @property
    def outstanding(self) -> dict[int, int]:
        """An intent's index, and the bytes that are kept for its outcome."""

    def enter(self, line: bytes, leaf: bytes, ns: int, queue: Queue | None = None, rouse: bool = False) -> None:
        """This is the next line, with its newline; it is queued as well, where there is a `queue`: if that fails,
        nothing is changed."""

    def place(
        self,
        type_: str,
        actor: Mapping[str, object],
        data: Mapping[str, object],
        ns: int,
        wanted: bool | int,
        outcome_of: int | None,
        part_of: int | None,
        closing: bool,
    ) -> tuple[bytes, Receipt] | None:
        """Encode an entry, give it its place, and keep what it wants: the line with its newline, index and leaf hash.

        None, and nothing is changed, where that takes somebody who knows more: values and times that are not plain, a
        type that is not among `budgets`, a clock that went back, a line that does not fit, room that must be asked for.
        """

class KeptLines:
    """What is kept of lines by their own kind, and those that have their place and are not durable yet."""

    open: Final[dict[int, tuple[int, bytes, bytes]]]
    """By an intent's index: until when it is needed, what stays with it, what is needed until its outcome."""
    acts: Final[dict[int, bytearray]]
    counts: Final[dict[int, bytearray]]
    """By the minute until when they are needed, packed records: index, offset, leaf hash."""
    forever: Final[bytearray]

    def placed(self, seq: int, offset: int, leaf: bytes, at_ns: int, keep: Keep) -> None:
        """That entry has its place, after all before it. It counts once `advance` has come so far."""

    def withdrawn(self, seq: int) -> None:
        """What has that place, or a later one, does not have it after all."""

    def advance(self, size: int) -> None:
        """Entries below `size` are durable."""

    def add(self, packed: bytes, seq: int, at_ms: int, keep: Keep) -> None:
        """This line, whose record is `packed`, counts."""

    def under_keys(self, keyed: tuple[Keyed, ...], packed: bytes, at_ms: int) -> None:
        """What `add` leaves to who knows of keys."""

class Entrance:
    """Where entries come in: each is given its place, and queued, in one step."""

    keeping: KeptLines | None
    """Who is told of what is kept for a later start."""
    shut: bool
    """Nothing comes in any more."""

    def __init__(
        self,
        places: Places[PlacedReceipt],
        queue: Queue,
        lock: AbstractContextManager[object],
        clock: Callable[[], int],
        check: Callable[[], None],
        otherwise: Callable[..., PlacedReceipt],
    ) -> None:
        """`check` refuses where `shut`, or where nothing is durable any more; `otherwise` does what `Places.place`
        declines, with what `enter` is given and, before `wanted`, the time. Both are called under `lock`."""

    def enter(
        self,
        type_: str,
        actor: Mapping[str, object],
        data: Mapping[str, object],
        keep: Keep | None,
        wanted: bool | int,
        outcome_of: int | None,
        part_of: int | None,
        closing: bool,
        rouse: bool,
    ) -> Pending:
        """As `Places.place`, and queued. `keep`: what a later start needs it for, None for nothing."""

class Completion:
    """How many entries are durable: a count that only grows, until it fails for good."""

    def __init__(self, count: int, again: Callable[[Refused], Refused]) -> None:
        """`again` makes a failure a refusal of its own for everyone who hears of it."""

    @property
    def count(self) -> int:
        """Entries that are durable."""

    @property
    def failure(self) -> Refused | None:
        """Why there will be no more."""

    def reached(self, seq: int) -> bool:
        """Whether the entry `seq` is durable. Raises Refused when it will never be."""

    def until(self, receipt: PlacedReceipt) -> asyncio.Future[PlacedReceipt]:
        """On the running event loop: done once that entry is durable, with its receipt; it raises Refused when it will
        never be."""

    def wait(self, seq: int, timeout: float | None = None) -> None:
        """The same for a thread. Raises TimeoutError too, when `timeout` seconds have passed."""

    def advance(self, count: int) -> None:
        """From the writer: entries below `count` are durable."""

    def fail(self, failure: Refused) -> None:
        """From the writer: nothing more will be. The first reason stays."""

    def close(self) -> None:
        """Nothing comes any more: what event loops hold for this is given up, by each itself."""

class Pending:
    """An entry that has its place and is on its way to the disk."""

    def __init__(self, receipt: PlacedReceipt, completion: Completion) -> None: ...
    @property
    def receipt(self) -> PlacedReceipt:
        """Its index and leaf hash."""

    def is_durable(self) -> bool:
        """Whether it is, now. Raises Refused("ledger_unavailable") where it never will be."""

    def durable(self) -> asyncio.Future[PlacedReceipt]:
        """What to await on the running event loop until the entry is durable. Who awaits a later one may go on before:
        where the order matters, a lock or the entries' indices have to say it. Raises Refused("ledger_unavailable")."""

    def wait(self, timeout: float | None = None) -> PlacedReceipt:
        """Wait in this thread. Raises Refused("ledger_unavailable"), TimeoutError."""

class Queue:
    """Lines on their way to one file, and the turn: who has it may touch the file."""

    def __init__(self, completion: Completion, largest: int) -> None:
        """`largest`: bytes that are written together, at most."""

    def direct(self, fd: int, base: int, end: int, synced: bool, count: int) -> None:
        """With the turn: lines go to this file, which begins at byte `base` of the stream and ends at `end`; with
        `synced` they are synced. `count`: entries that are durable."""

    @property
    def is_empty(self) -> bool:
        """Whether no line is queued."""

    @property
    def took_s(self) -> float:
        """What the last sync took, seconds."""

    def submit(self, line: bytes, leaf: bytes, rouse: bool) -> None:
        """Queue a line, newline included, with its leaf hash; with `rouse` whoever attends is woken."""

    def rouse(self, asked: bool = False) -> None:
        """Have whoever attends write what is queued, and with `asked` whoever follows look."""

    def take_turn(self) -> None:
        """Wait for the turn."""

    def try_turn(self) -> bool:
        """Take it if it is free; whether it was."""

    def give_turn(self) -> None:
        """Let others have it."""

    def commit(self) -> int:
        """With the turn: write and sync what is next, and advance who awaits it. 0; an errno where a write failed, of
        which nothing was taken, so that it may be tried again; an errno, negated, where the sync did."""

    def take(self) -> tuple[bytes, bytes] | None:
        """With the turn, where `direct` was not called: lines and leaf hashes that are next; None for nothing."""

    def collect(self) -> tuple[bytes, int] | None:
        """Leaf hashes of what became durable since this was last asked, and its bytes; None for none. One caller at a
        time."""

    def attend(self) -> int:
        """Commit what comes, in turns with others, until there is trouble, as `commit` says it, and will say to the
        next who has the turn; or until `stop`: 0."""

    def stop(self, now: bool = False) -> None:
        """Have `attend` return once all is written; `now`: as soon as may be."""

    def follow(self, timeout: float | None, entries: int, seconds: float, end: int | None) -> None:
        """Wait until `timeout` seconds have passed, or somebody asked, or something is to be collected: so many
        entries, or one for so many seconds, or the stream is `end` bytes long. Without `direct`, until lines are
        queued."""

class Frontier:
    """The Merkle tree of RFC 6962 over leaf hashes, as the roots of the perfect subtrees that its size splits into."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None: ...
    @property
    def size(self) -> int:
        """How many leaves it has."""

    def append(self, leaf: bytes) -> None:
        """Add the next leaf hash, 32 bytes."""

    def extend(self, leaves: bytes) -> None:
        """Add the next leaf hashes, 32 bytes each, one after the other."""

    def root(self) -> bytes:
        """The tree's head at the present size, 32 bytes."""

    def roots(self) -> tuple[bytes, ...]:
        """The perfect subtrees' roots, 32 bytes each, of the largest first: one for each bit set in `size`."""

    @staticmethod
    def resumed(size: int, roots: Iterable[bytes]) -> Frontier:
        """The tree of `size` leaves whose `roots()` these are. Raises ValueError where they cannot be."""

    def copy(self) -> Frontier:
        """An independent one of the same tree."""
