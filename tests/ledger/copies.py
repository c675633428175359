"""A ledger in a directory, and copies of it: on a real file system, and in memory, where everything can fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from immured.ledger import Ledger, create
from immured.ledger.exports.copy import Copy
from immured.ledger.exports.directory import Directory
from immured.ledger.exports.head import Head, folder_of
from immured.ledger.exports.source import LedgerFiles

ACTOR = {"key": "ed25519:" + "1" * 32}
VKEYS = b"immured/0+00000000+AAAA\n"


class Original:
    """A real ledger that entries are added to, and checkpoints."""

    def __init__(self, place: Path) -> None:
        self.place = place
        create(place, "ed25519:" + "0" * 32)
        self.head = self.grow(3)

    def grow(self, entries: int, *, size: int = 50) -> Head:
        """So many more entries, and a checkpoint over all."""
        with Ledger.open(self.place) as ledger:
            for number in range(entries):
                ledger.entry("command.denied", ACTOR, {"number": number, "message": "x" * size})
        head = ledger.head
        assert head is not None
        self.head = head
        return head

    @property
    def log(self) -> bytes:
        return (self.place / "ledger/current.jsonl").read_bytes()

    @property
    def origin(self) -> str:
        with Ledger.open(self.place) as ledger:
            return ledger.origin

    @contextmanager
    def files(self) -> Iterator[LedgerFiles]:
        fd = os.open(self.place / "ledger", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield LedgerFiles(fd)
        finally:
            os.close(fd)

    @contextmanager
    def copy_to(self, directory: Path) -> Iterator[Copy]:
        """A copier that has seen nothing yet, as after a start."""
        with self.files() as files:
            yield Copy(files, Directory(directory, folder_of(self.origin)))

    def folder(self, directory: Path) -> Path:
        return directory / folder_of(self.origin)


class Memory:
    """`Destination` in memory. `before` is called with the name of every operation that changes something; `cut`, how
    many bytes of a write arrive."""

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        self.before = before
        self.log: bytearray | None = None
        self.small: dict[str, bytes] = {}
        self.written = 0
        self.cut: int | None = None

    def attach(self, *, begun: bool) -> None:
        self.before("attach")

    def detach(self) -> None:
        pass

    def probe(self) -> None:
        self.before("probe")

    @property
    def piece(self) -> int:
        return 1 << 20

    def held(self) -> tuple[int, int] | None:
        return None if self.log is None else (0, len(self.log))

    def append(self, offset: int, data: bytes) -> None:
        self.before("append")
        self.log = self.log if self.log is not None else bytearray()
        taken = data if self.cut is None else data[: self.cut]
        self.log[offset : offset + len(taken)] = taken
        self.written += len(taken)
        if self.cut is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.before("append done")

    def read(self, offset: int, length: int) -> bytes:
        return bytes((self.log or b"")[offset : offset + length])

    def checkpoints(self) -> Sequence[str]:
        return sorted(name.rpartition("/")[2] for name in self.small if name.startswith("checkpoints/"))

    def put(self, name: str, data: bytes) -> None:
        self.before("put")
        self.small[name] = data

    def get(self, name: str) -> bytes | None:
        return self.small.get(name)
