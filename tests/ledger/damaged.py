"""A small ledger of three files, with its signed heads, to damage: every line as a daemon writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured.ledger.checkpoint import Checkpoint, file_name
from immured.ledger.creation import first_line
from immured.ledger.entry import build_line, encode_body, leaf_hash
from immured.ledger.rotation import rotated
from immured.ledger.segments import LOG, segment_name
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import Frontier
from tests.ledger.sample import START_NS, head, signer, text

COUNTS: Final = (5, 4, 3)
"""Lines of each file."""
SIZES: Final = (1, 5, 7, 9, 12)
"""Those of its checkpoints: when it began, before each rotation, between, and when it was closed."""


def _small(seq: int, prev: bytes, type_: str, data: dict[str, object]) -> bytes:
    body = encode_body(type_, {"uid": 7}, data)
    return build_line(seq, timestamp(START_NS + seq), body, leaf_hash(prev).hex())


def small() -> list[list[bytes]]:
    """The lines of each file."""
    made = [first_line("ed25519:" + "d" * 32, signer("x").verifier.public, bytes(range(16)), START_NS)]
    files: list[list[bytes]] = []
    began = 0
    for count in COUNTS:
        if files:
            tree = Frontier([leaf_hash(line) for line in made])
            origin = head(made, 1).origin
            first, began = began, len(made)
            data = rotated(origin, tree, first, len(text(made)), "0" * 64)
            made.append(_small(len(made), made[-1], "ledger.rotated", data))
        while len(made) < began + count:
            made.append(_small(len(made), made[-1], "run.lost" if len(made) % 2 else "run.accepted", {"n": len(made)}))
        files.append(made[began:])
    return files


@dataclass(frozen=True)
class Small:
    """The same on a disk: `names` and `files` (their lines), in order, and where each line is."""

    directory: Path
    names: tuple[str, ...]
    files: tuple[list[bytes], ...]

    @classmethod
    def write(cls, directory: Path, *, keep: int = 0) -> Small:
        """Into `directory`; without its oldest `keep` files, which a `ledger.retired` explains where there are any."""
        files = small()
        made = [line for lines in files for line in lines]
        if keep:
            retired = {"first": sum(COUNTS[:keep]), "segments": [segment_name(0)], "bytes": 1}
            made[-1] = _small(len(made) - 1, made[-2], "ledger.retired", retired)
            files[-1][-1] = made[-1]
        starts = [sum(COUNTS[:number]) for number in range(len(COUNTS))]
        names = (*(segment_name(start) for start in starts[:-1]), LOG)
        folder = directory / "checkpoints"
        folder.mkdir(parents=True)
        for size in SIZES:
            note = signer(head(made, size).origin).sign(head(made, size))
            (folder / file_name(size)).write_bytes(note)
        found = cls(directory, names[keep:], tuple(files[keep:]))
        found.restore()
        return found

    def restore(self) -> None:
        """As it was, but for files that are no longer its own."""
        for name, lines in zip(self.names, self.files, strict=True):
            (self.directory / name).write_bytes(text(lines))

    @property
    def first(self) -> int:
        return sum(COUNTS) - sum(len(lines) for lines in self.files)

    @property
    def lines(self) -> list[bytes]:
        """All that is kept."""
        return [line for lines in self.files for line in lines]

    def place(self, seq: int) -> tuple[str, int]:
        """The file of an entry, and its line there from 1."""
        at = self.first
        for name, lines in zip(self.names, self.files, strict=True):
            if seq < at + len(lines):
                return name, seq - at + 1
            at += len(lines)
        return self.names[-1], len(self.files[-1]) + 1

    def heads(self) -> dict[int, Checkpoint]:
        """What was signed, by size; of what is not kept only that of where it begins."""
        made = [line for lines in small() for line in lines]
        made[self.first :] = self.lines
        return {size: head(made, size) for size in SIZES if size >= self.first}
