"""Keeps the tree's hashes beside a ledger that is open: it follows what is durable, and catches up with what is not
stored: a little before the ledger is open, much in a thread.

A new ledger, one of an earlier version, one whose tree/ was lost, or one that crashed has lines whose hashes are not
stored yet. Entries go on meanwhile; proofs of what is there already can be had, of the rest once it is caught up with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from immured.ledger.checkpoint import NoteError, file_name, unverified
from immured.ledger.durable import Durable
from immured.ledger.entry import MAX_LINE, LineError, parse_line
from immured.ledger.entry_types import LEDGER_ROTATED
from immured.ledger.exports.head import Head
from immured.ledger.recovery import CHECKPOINTS
from immured.ledger.segments import Files
from immured.ledger.tree import EMPTY_ROOT
from immured.ledger.tree_store import TREE, First, TreeDirectory, TreeStore, Until

__all__ = ["TreeKeeper", "first_kept"]

_RETRY_S: Final = 60.0
_SELDOM_S: Final = 3600.0
_LITTLE: Final = 1 << 16  # bytes of lines that cost less to read than a thread to begin


def first_kept(files: Files) -> First:
    """Where the stream that is kept begins, as its first line says. Raises OSError, ValueError."""
    if not files.first:
        return First()
    line = files.read(files.start, MAX_LINE + 1).partition(b"\n")[0]
    try:
        entry = parse_line(line)
    except LineError as error:
        raise ValueError(f"the first line that is kept is none: {error}") from None
    frontier = entry.data.get("frontier")
    if entry.type != LEDGER_ROTATED or not isinstance(frontier, list) or len(frontier) != entry.seq.bit_count():
        raise ValueError(f"the first line that is kept is {entry.type}, without a frontier of the tree before it")
    return First(entry.seq, files.start, tuple(bytes.fromhex(str(one)) for one in frontier))


def stored_until(store: TreeStore) -> int:
    """Where in the stream the lines end of which hashes are stored; at most 64 lines before that."""
    try:
        return store.place(store.size)[1]
    except OSError:
        return 0


class TreeKeeper:
    """A `Follower` of `durable`; made before the first entry is appended. `stream` opens the ledger's files."""

    @classmethod
    def of(cls, directory: Path, durable: Durable) -> TreeKeeper:
        """Of a ledger's directory. Raises nothing of the file system: a tree that cannot be kept says so itself."""
        root = durable.tree.root()
        if durable.signed != durable.tree.size:
            try:
                note = (directory / CHECKPOINTS / file_name(durable.signed)).read_bytes() if durable.signed else b""
                root = unverified(note).root if note else EMPTY_ROOT
            except (OSError, NoteError):
                root = b""  # no tree has this: all is made anew
        files = TreeDirectory(directory / TREE, writable=True)
        return cls(TreeStore(files), durable, root, lambda: Files.open(directory), files.close)

    def __init__(
        self,
        store: TreeStore,
        durable: Durable,
        signed_root: bytes,
        stream: Callable[[], Files],
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self._durable, self._stream, self._closed = durable, stream, closed
        self._thread: threading.Thread | None = None
        self._halted = False
        self._amiss = False
        self._retry, self._pause = 0.0, _RETRY_S
        if not store.begin(durable.signed, signed_root, durable.tree.size):
            self._catch_up(in_thread=durable.end - stored_until(store) > _LITTLE)

    def amiss(self) -> None:
        """A proof made of the store was wrong: it is made anew, from the next checkpoint on."""
        self._amiss = True

    # --- on the writer's turn ---

    def extend(self, leaves: bytes) -> None:
        """These are durable."""
        self.store.extend(leaves, self._durable.end)

    def signed(self, _head: Head, _note: bytes) -> None:
        """Have what is signed stored, before anybody is told of it."""
        self.store.flush()
        idle = self._thread is None or not self._thread.is_alive()
        wrong = self._amiss or self.store.overrun or self.store.behind
        if idle and wrong and time.monotonic() >= self._retry:
            self._retry = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _SELDOM_S)
            self._amiss = False
            self.store.restart(self._durable.tree.size)
            self._catch_up(in_thread=True)  # whoever has the turn has others wait

    def close(self) -> None:
        """Write the last."""
        self._halted = True
        if self._thread is not None:
            self._thread.join()
        self.store.flush()
        self._closed()

    def _catch_up(self, *, in_thread: bool) -> None:
        until = Until(self._durable.tree.size, self._durable.end, self._durable.tree.root())
        if not in_thread:
            self._run(until)
            return
        thread = threading.Thread(target=self._run, args=(until,), name="immured-tree", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self.store.failure = str(error)
            self._amiss = True
        else:
            self._thread = thread

    def _run(self, until: Until) -> None:
        try:
            with self._stream() as files:
                self.store.catch_up(files, first_kept(files), until, lambda: self._halted)
        except (OSError, ValueError) as error:
            self.store.failure = str(error)
