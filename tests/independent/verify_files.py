#!/usr/bin/env python3
"""A verifier of a ledger's directory, sealed segments and all, written from docs/ledger.md alone: it imports nothing of
immured. What one line, one proof and one signature are, it takes from the two checkers beside it, which were so too.

    verify_files.py DIR --key VKEY... [--rotation LINE]... [--witness VKEY]... [--require N] [--anchor CHECKPOINT]...

DIR is a state directory's ledger/, or a copy of it. It may begin with any segment; --rotation are then the changes of
keys before.
Exits 0 when it is whole; 1 saying what is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROOFS = runpy.run_path(str(Path(__file__).with_name("check_proof.py")), run_name="check_proof")
LINES = runpy.run_path(str(Path(__file__).with_name("verify_ledger.py")), run_name="verify_ledger")
Bad: type[Exception] = PROOFS["Bad"]
sha, unbase64 = PROOFS["sha"], PROOFS["unbase64"]


class Tree:
    """Roots of perfect subtrees, largest first, with the number of leaves of each."""

    def __init__(self, size: int = 0, frontier: list[bytes] | None = None) -> None:
        powers = [1 << bit for bit in range(size.bit_length() - 1, -1, -1) if size >> bit & 1]
        if frontier is not None and len(frontier) != len(powers):
            raise Bad("frontier: not so many")
        self.peaks = list(zip(powers, frontier or [], strict=True))
        self.size = size

    def add(self, leaf: bytes) -> None:
        width = 1
        while self.peaks and self.peaks[-1][0] == width:
            leaf, width = sha(b"\x01", self.peaks.pop()[1], leaf), width * 2
        self.peaks.append((width, leaf))
        self.size += 1

    def root(self) -> bytes:
        node: bytes
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        *rest, (_, node) = self.peaks
        for _, one in reversed(rest):
            node = sha(b"\x01", one, node)
        return node


def files_of(folder: Path) -> list[Path]:
    """The stream's files, oldest first."""
    found = sorted(path for path in folder.iterdir() if re.fullmatch(r"[0-9]{20}\.jsonl", path.name))
    current = folder / "current.jsonl"
    if not current.exists():
        current = folder / "next.jsonl"
    if not current.exists():
        raise Bad("current.jsonl is missing")
    if found and first_line(found[-1]) == first_line(current):  # copied before and after it was sealed
        longer = max(found[-1], current, key=lambda path: path.stat().st_size)
        return [*found[:-1], longer]
    return [*found, current]


def first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline().rstrip(b"\n")


def lines_of(path: Path, last: bool) -> Iterator[bytes]:
    with path.open("rb") as file:
        for row in file:
            if row.endswith(b"\n"):
                yield row[:-1]
            elif not last:
                raise Bad(f"{path.name}: no newline at the end")
            # What is being written may end within a line: it counts up to its last newline.


class Ledger:
    """What is known of it on the way."""

    def __init__(self, keys: list[tuple[Any, int, int | None]]) -> None:
        self.keys = keys
        self.tree = Tree()
        self.bytes = self.first = 0
        self.prev = b""
        self.origin = ""
        self.given_up = -1  # what is before this entry was retired, as entry `said` says
        self.said = -1
        self.roots: dict[int, bytes] = {}

    def begin(self, row: bytes) -> None:
        entry = LINES["parse"](row)
        if entry["seq"] == 0:
            if entry["type"] != "ledger.created" or entry["prev"] != "0" * 64:
                raise Bad("not the beginning of a ledger")
            self.origin = f"immured/{sha(bytes(1), row).hex()[:32]}"
            return
        data = entry["data"]
        if entry["type"] != "ledger.rotated":
            raise Bad("a ledger's kept part begins with ledger.rotated")
        self.tree = Tree(data["size"], [bytes.fromhex(one) for one in data["frontier"]])
        self.first, self.bytes, self.origin = data["size"], data["bytes"], data["origin"]
        self.prev = bytes.fromhex(entry["prev"])
        self.roots[self.first] = self.tree.root()

    def take(self, row: bytes, wanted: set[int], sealed: tuple[Path, int] | None) -> None:
        entry = LINES["parse"](row)
        if entry["seq"] != self.tree.size:
            raise Bad(f"seq {entry['seq']}, expected {self.tree.size}")
        if entry["prev"] != (self.prev.hex() or "0" * 64):
            raise Bad("broken chain")
        if entry["type"] == "ledger.rotated":
            self.rotated(entry["data"], sealed)
        if entry["type"] == "ledger.key_rotated" and any(key.text == entry["data"]["old"] for key, *_ in self.keys):
            self.keys[:] = [one for one in self.keys if one[0].text != entry["data"]["new"]]
            PROOFS["rotate"](self.keys, row.decode())
        if entry["type"] == "ledger.retired":
            self.given_up, self.said = entry["data"]["first"], entry["seq"]
        self.prev = sha(b"\x00", row)
        self.tree.add(self.prev)
        self.bytes += len(row) + 1
        if self.tree.size in wanted:
            self.roots[self.tree.size] = self.tree.root()

    def rotated(self, data: dict[str, Any], sealed: tuple[Path, int] | None) -> None:
        expected = {
            "origin": self.origin,
            "size": self.tree.size,
            "bytes": self.bytes,
            "root": self.tree.root().hex(),
            "frontier": [node.hex() for _, node in self.tree.peaks],
        }
        if sealed is not None:
            path, first = sealed
            expected |= {"segment": f"{first:020d}.jsonl", "first": first, "entries": self.tree.size - first}
            with path.open("rb") as file:
                expected["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        for name, value in expected.items():
            if data.get(name) != value:
                raise Bad(f"rotation: {name}")


def verify(folder: Path, ledger: Ledger, witnesses: list[Any], require: int, anchors: list[Path]) -> str:
    notes = heads(folder / "checkpoints") + heads(folder / "witnessed")
    wanted = {int(path.name) for path in notes} | {int(path.read_text().split("\n")[1]) for path in anchors}
    files = files_of(folder)
    ledger.begin(first_line(files[0]))
    sealed: tuple[Path, int] | None = None
    for path in files:
        begun = ledger.tree.size
        if path.name[:1].isdigit() and int(path.name[:20]) != begun:
            raise Bad(f"{path.name}: begins with {begun}")
        for number, row in enumerate(lines_of(path, path == files[-1]), 1):
            try:
                ledger.take(row, wanted, sealed if number == 1 else None)
            except (Bad, LINES["Bad"], ValueError) as error:
                raise Bad(f"{path.name} line {number}: {error}") from None
        sealed = path, begun
    covered = seen = 0
    for path in [*notes, *anchors]:
        try:
            size, cosigned = agrees(path, ledger, witnesses)
        except Bad as error:
            raise Bad(f"checkpoint {path.parent.name}/{path.name}: {error}") from None
        if path not in anchors and int(path.name) != size:
            raise Bad(f"checkpoint {path.name}: its size is not its name")
        covered, seen = max(covered, size), max(seen, size if cosigned >= max(1, require) else 0)
    if ledger.first and not any(int(path.name) == ledger.first for path in notes):
        raise Bad(f"no checkpoint of size {ledger.first}")
    if ledger.first and not (ledger.given_up >= ledger.first and ledger.said < covered):
        raise Bad(f"what is before {ledger.first} was not retired")
    if require and not seen:
        raise Bad(f"no checkpoint is cosigned by {require}")
    return f"whole: {ledger.first} to {ledger.tree.size}, {covered} signed, {seen} cosigned, {len(files)} files"


def heads(folder: Path) -> list[Path]:
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if re.fullmatch("[0-9]{20}", path.name)]


def agrees(path: Path, ledger: Ledger, witnesses: list[Any]) -> tuple[int, int]:
    """Its size, and how many cosigned it, once it is signed as it should be, and signs this ledger."""
    note = path.read_bytes()
    origin, size, root = PROOFS["read_note"](note, ledger.keys, witnesses, 0)
    if origin != ledger.origin:
        raise Bad("another ledger's")
    if size > ledger.tree.size:
        raise Bad(f"{size} entries were signed, {ledger.tree.size} are there")
    if size >= ledger.first and ledger.roots[size] != root:
        raise Bad("not as signed")
    many = 0
    for one in {key.raw: key for key in witnesses}.values():
        try:
            PROOFS["read_note"](note, ledger.keys, [one], 1)
            many += 1
        except Bad:
            continue
    return size, many


def main() -> int:
    arguments = argparse.ArgumentParser(description="verify the files of an immured ledger")
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--key", action="append", required=True)
    arguments.add_argument("--rotation", action="append", default=[])
    arguments.add_argument("--witness", action="append", default=[])
    arguments.add_argument("--require", type=int, default=0)
    arguments.add_argument("--anchor", type=Path, action="append", default=[])
    given = arguments.parse_args()
    keys: list[tuple[Any, int, int | None]] = [(PROOFS["Key"](vkey, 1), 0, None) for vkey in given.key]
    for line in given.rotation:
        PROOFS["rotate"](keys, line)
    witnesses = [PROOFS["Key"](vkey, 4) for vkey in given.witness]
    print(verify(given.folder, Ledger(keys), witnesses, given.require, given.anchor))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Bad as bad:
        print(f"bad: {bad}")
        sys.exit(1)
