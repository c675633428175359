"""Entries as JSON lines: those of one tenant, time, type, actor. The lines are the ledger's own bytes.

Only what is under a signed head is given away, and beside it, where that is wanted, the proof of each line: so whoever
gets some of the ledger can check it as well as one who has all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from immured.ledger.belonging import HOST, Belonging
from immured.ledger.checkpoint import NoteError, unverified
from immured.ledger.entry import MAX_LINE, Entry, LineError, parse_line
from immured.ledger.exports.files import forget, open_at, read_at
from immured.ledger.exports.head import ExportError, differs, no_source
from immured.ledger.proof import Proof, ProofError
from immured.ledger.proving import Prover
from immured.ledger.reader import read_lines

if TYPE_CHECKING:
    from immured.ledger.checkpoint import CosignKey
    from immured.ledger.key_rotation import KeyHistory
    from immured.ledger.segments import Files
    from immured.ledger.show import Selection

__all__ = ["Checked", "Written", "check_lines", "proofs_beside", "selected", "write_lines"]

_CHUNK: Final = 1 << 20
_MAX_PROOF: Final = 1 << 19


@dataclass(frozen=True, slots=True)
class Written:
    """What was exported: `size` is the signed head that covers it."""

    entries: int
    bytes: int
    sha256: str
    origin: str
    size: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What was proven: how many lines, all of one ledger."""

    entries: int
    origin: str


def proofs_beside(path: Path) -> Path:
    """The file of proofs that belongs to one of lines."""
    return path.with_name(path.name + ".proofs")


def selected(files: Files, size: int, selection: Selection, tenant: str | None) -> Iterator[Entry]:
    """Entries below `size` that match, in order. `tenant`: its own alone. Raises ExportError, OSError."""
    belonging = Belonging(whole=files.start == 0) if tenant is not None else None
    for offset, line in read_lines(files, files.start, files.size()):
        try:
            entry = parse_line(line[:-1] if line.endswith(b"\n") else line)
        except LineError as error:
            raise no_source(f"the line at byte {offset}: {error}") from error
        if entry.seq >= size:
            return
        mine = belonging is None or (belonging.of(entry) == tenant and tenant != HOST)
        if mine and selection.matches(entry):
            yield entry


def write_lines(
    prover: Prover, files: Files, out: Path, selection: Selection, tenant: str | None, *, proofs: bool = False
) -> Written:
    """Write the file, and `proofs_beside` it; both new, durable, and read again. Raises ExportError `export_exists`,
    NoProof, OSError."""
    try:
        head = unverified(prover.heads.signed())
    except NoteError as error:
        raise no_source(f"its newest checkpoint: {error}") from error
    digest, entries, length = hashlib.sha256(), 0, 0
    with contextlib.ExitStack() as held:
        lines = held.enter_context(_New(out))
        beside = held.enter_context(_New(proofs_beside(out))) if proofs else None
        for entry in selected(files, head.size, selection, tenant):
            lines.add(entry.line + b"\n")
            digest.update(entry.line + b"\n")
            entries, length = entries + 1, length + len(entry.line) + 1
            if beside is not None:
                said = {"seq": entry.seq, "proof": prover.prove(entry.seq).encode().decode()}
                beside.add(json.dumps(said, separators=(",", ":")).encode() + b"\n")
        if lines.finish() != digest.digest():
            raise differs(f"{out}, just written, reads otherwise")
        if beside is not None:
            beside.finish()
        for one in (beside, lines):
            if one is not None:
                one.name_it()
    return Written(entries, length, digest.hexdigest(), head.origin, head.size)


def check_lines(path: Path, history: KeyHistory, witnesses: tuple[CosignKey, ...], require: int) -> Checked:
    """Every line of an export, by the proofs beside it. Raises ProofError, naming the line; OSError."""
    origin, before, number = "", -1, 0
    with path.open("rb") as lines, proofs_beside(path).open("rb") as proofs:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE + 2), b""), 1):
            raw = proofs.readline(_MAX_PROOF)
            try:
                proof = Proof.parse(_proof_in(raw))
                if proof.line + b"\n" != line:
                    raise ProofError("the proof beside it is of another line")
                if proof.seq <= before:
                    raise ProofError(f"its entry is {proof.seq}, after {before}")
                proven = proof.check(history, witnesses, require)
                if origin and proven.witnessed.checkpoint.origin != origin:
                    raise ProofError(f"it is of {proven.witnessed.checkpoint.origin}, those before it of {origin}")
            except ProofError as error:
                raise ProofError(f"line {number}: {error}") from None
            origin, before = proven.witnessed.checkpoint.origin, proof.seq
        if proofs.readline(1):
            raise ProofError(f"there are proofs of more than its {number} lines")
    return Checked(number, origin)


def _proof_in(raw: bytes) -> bytes:
    try:
        said: Any = json.loads(raw)
        if isinstance(said, dict) and isinstance(proof := said.get("proof"), str):
            return proof.encode()
    except (ValueError, RecursionError):  # one is half of a surrogate pair, the other what is nested too deeply
        pass
    raise ProofError("there is no proof beside it")


class _New:
    """A file that is there whole, or not at all; and never in another's place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._fd = -1
        self._held = bytearray()

    def __enter__(self) -> _New:
        if os.path.lexists(self._path):
            raise ExportError("export_exists", f"{self._path} is there already", "name another; nothing is replaced")
        self._fd = open_at(os.fspath(self._temporary), os.O_RDWR | os.O_CREAT | os.O_TRUNC, None)
        os.fchmod(self._fd, 0o600)
        return self

    def __exit__(self, *failed: object) -> None:
        os.close(self._fd)
        self._temporary.unlink(missing_ok=True)

    def add(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= _CHUNK:
            self._flush()

    def finish(self) -> bytes:
        """Durable; the SHA-256 of what can be read of it now."""
        self._flush()
        os.fsync(self._fd)
        forget(self._fd)
        digest, at = hashlib.sha256(), 0
        while data := read_at(self._fd, at, _CHUNK):
            digest.update(data)
            at += len(data)
        return digest.digest()

    def name_it(self) -> None:
        try:
            os.link(self._temporary, self._path)  # unlike a rename it takes nobody's place
        except FileExistsError:
            raise ExportError("export_exists", f"{self._path} is there already", "name another") from None
        above = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)

    def _flush(self) -> None:
        view = memoryview(bytes(self._held))
        while view:
            view = view[os.write(self._fd, view) :]
        self._held.clear()
