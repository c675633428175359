"""What a copy is read from, and what it is written to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Destination", "Shelf", "Source"]


class Source(Protocol):
    """The ledger that is copied. Every method raises OSError; offsets are the stream's (`ledger.segments`)."""

    def start(self) -> int:
        """Where what is kept of it begins."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes of the entries; fewer at the end, none past it."""

    def names(self, folder: str) -> Sequence[str]:
        """The names of its signed heads, smallest first: of `checkpoints`, or of `witnessed`."""

    def note(self, folder: str, name: str) -> bytes:
        """One of them."""


class Shelf(Protocol):
    """Where one ledger's copy lies, as far as it is of small files. Every method raises OSError, ExportError, and may
    block for as long as what holds the copy does not answer: its caller has a process to lose."""

    def attach(self, *, begun: bool) -> None:
        """Reach it anew, for what follows: it may have gone and come since. `begun`: there was a copy, so that one that
        is not there is missing, and none is begun in its place. Raises ExportError `export_missing`."""

    def detach(self) -> None:
        """Let go of it."""

    def probe(self) -> None:
        """Write something, have it durable, read it, and remove it."""

    def put(self, name: str, data: bytes) -> None:
        """A small file, whole or not at all; durable when it returns."""

    def get(self, name: str) -> bytes | None:
        """A small file, from what holds it and not from a cache; None: it is not there."""


class Destination(Shelf, Protocol):
    """One that holds the entries as the stream that they are."""

    @property
    def piece(self) -> int:
        """How many bytes are put there at a time."""

    def held(self) -> tuple[int, int] | None:
        """Where in the stream what it holds begins and ends; None: there is nothing yet."""

    def append(self, offset: int, data: bytes) -> None:
        """Put it there, over what an attempt before left behind `offset`; durable when it returns."""

    def read(self, offset: int, length: int) -> bytes:
        """What is there, from what holds it and not from a cache, as far as that can be asked for."""

    def checkpoints(self) -> Sequence[str]:
        """The names of the checkpoints that are there, smallest first."""
