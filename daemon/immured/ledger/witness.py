"""A witness: it keeps the last checkpoint that it cosigned of each log, and cosigns none that does not extend it.

    witness = Witness(WitnessState(Path("/var/lib/witness")), cosigner)
    answer = witness.add_checkpoint(body)             # c2sp.org/tlog-witness: add-checkpoint
    answer = witness.checkpoint("9f86d081...")        # its monitor's retrieval

What is answered follows from the request, the keys that are trusted for the log, and the checkpoint that is kept. A
cosignature leaves only once the checkpoint under it is durable: a crash in between has the log ask again, and never a
second history signed. Nothing is remembered that the disk does not hold.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from immured.ledger.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from immured.ledger.merkle import is_consistent
from immured.ledger.note_keys import Cosigner, NoteError, VerifierKey, strict_b64
from immured.ledger.tree import EMPTY_ROOT
from immured.ledger.witness_state import StateDamaged, WitnessState, origin_hash

__all__ = ["MAX_BODY", "Answer", "Malformed", "Submission", "Witness", "kept_lines", "parse_submission"]

MAX_BODY: Final = 72 * 1024
"""Bytes of a submission: the longest note, and as many hashes as a proof may have."""
_MAX_PROOF: Final = 63
_MAX_ORIGIN: Final = 256
_OLD: Final = re.compile(rb"old (0|[1-9][0-9]{0,15})")
_AGAIN_S: Final = 10
_SIZE_TYPE: Final = "text/x.tlog.size"
_TEXT: Final = "text/plain; charset=utf-8"
_GROWTHS: Final = 10.0  # checkpoints of one log that are written, a second
_BURST: Final = 30.0


class Malformed(ValueError):
    """A submission that is none."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is posted: that the tree of size `old`, by this proof, is the beginning of the one that `note` signs."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes
    origin: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, a body and its type; `said` is for the witness's own log: which log, and why. `grew`: something
    was cosigned that was not before."""

    status: int
    body: bytes
    said: str
    content_type: str = _TEXT
    grew: bool = False


def parse_submission(body: bytes) -> Submission:
    """Read what is posted to add-checkpoint. Raises Malformed."""
    if len(body) > MAX_BODY:
        raise Malformed(f"the submission is over {MAX_BODY} bytes")
    head, blank, note = body.partition(b"\n\n")
    if not blank:
        raise Malformed("no empty line stands before the checkpoint")
    first, *lines = head.split(b"\n")
    old = _OLD.fullmatch(first)
    if old is None:
        raise Malformed("the first line is not `old` and a size")
    if len(lines) > _MAX_PROOF:
        raise Malformed(f"the proof has over {_MAX_PROOF} hashes")
    return Submission(int(old[1]), tuple(map(_hash, lines)), note, _origin(note))


def _hash(line: bytes) -> bytes:
    try:
        raw = strict_b64(line.decode("ascii"), "a hash of the proof")
    except (UnicodeDecodeError, NoteError) as error:
        raise Malformed("a hash of the proof is not base64") from error
    if len(raw) != 32:
        raise Malformed("a hash of the proof is not of 32 bytes")
    return raw


def _origin(note: bytes) -> str:
    try:
        origin = note.partition(b"\n")[0].decode()
    except UnicodeDecodeError:
        raise Malformed("the checkpoint is not UTF-8") from None
    if not origin or len(origin) > _MAX_ORIGIN:
        raise Malformed(f"the checkpoint's origin is not of 1 to {_MAX_ORIGIN} characters")
    return origin


def kept_lines(note: bytes, keys: tuple[VerifierKey, ...]) -> bytes:
    """The signature lines of a note by these keys: of one that `open_checkpoint` took with them, those it verified."""
    known = {(key.name.encode(), key.key_id) for key in keys}
    kept = []
    for line in dict.fromkeys(note.rpartition(b"\n\n")[2].splitlines(keepends=True)):
        name, _, encoded = line.rstrip(b"\n").partition(b" ")[2].rpartition(b" ")
        if (name, strict_b64(encoded.decode(), "a signature")[:4]) in known:
            kept.append(line)
    return b"".join(kept)


class Witness:
    """Answers submissions, of any number of logs, on any number of threads."""

    def __init__(
        self,
        state: WitnessState,
        cosigner: Cosigner,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._cosigner, self._clock, self._steady = state, cosigner, clock, steady
        self._lock = threading.Lock()
        self._logs: dict[str, _Log] = {}

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosign what extends what is known of its log. Never raises for what a stranger may send; OSError from the
        disk is answered with a 500, and nothing was cosigned then."""
        try:
            asked = parse_submission(body)
        except Malformed as why:
            return Answer(400, f"{why}\n".encode(), f"malformed: {why}")
        try:
            keys = self._state.keys(asked.origin)
            if not keys:
                return Answer(404, b"this log is not known here\n", f"{asked.origin}: unknown log")
            return self._answer(asked, keys)
        except (OSError, StateDamaged) as error:
            return Answer(500, b"the witness cannot keep what it cosigns\n", f"{asked.origin}: {error}")

    def checkpoint(self, hashed: str) -> Answer:
        """The last checkpoint of the log whose origin has this SHA-256 (hexadecimal), as it was cosigned."""
        try:
            note = self._state.note(hashed)
        except (OSError, StateDamaged) as error:
            return Answer(500, b"the witness cannot read what it keeps\n", f"{hashed}: {error}")
        if note is None:
            return Answer(404, b"no checkpoint of this log was cosigned here\n", f"{hashed}: nothing cosigned")
        return Answer(200, note, f"{hashed}: shown")

    def _answer(self, asked: Submission, keys: tuple[VerifierKey, ...]) -> Answer:
        origin = asked.origin
        try:
            offered = open_checkpoint(asked.note, keys)
        except NoteError as why:
            return Answer(403, f"{why}\n".encode(), f"{origin}: {why}")
        if asked.old > offered.size:
            return Answer(400, b"the old size is above the checkpoint's\n", f"{origin}: old {asked.old} above its size")
        log = self._log(origin)
        with log.turn:
            return self._decide(asked, offered, keys, log)

    def _decide(self, asked: Submission, offered: Checkpoint, keys: tuple[VerifierKey, ...], log: _Log) -> Answer:
        """With the log's turn: nobody else reads or replaces what is kept of it."""
        origin, hashed = offered.origin, origin_hash(offered.origin)
        kept = self._kept(hashed)
        latest = kept.checkpoint.size if kept is not None else 0
        told = f"{origin}: {latest} -> {offered.size}"
        if kept is not None and offered.size == latest and offered.root != kept.checkpoint.root:
            # Two signed heads of one size: whoever holds both can show that the log has two histories.
            self._state.keep_conflict(hashed, offered, asked.note)
        if asked.old != latest:
            return Answer(409, f"{latest}\n".encode(), f"{told}: it began at {asked.old}", _SIZE_TYPE)
        if why := _inconsistent(asked, offered, kept.checkpoint if kept is not None else None):
            return Answer(422, f"{why}\n".encode(), f"{told}: REFUSED: {why}")
        now = int(self._clock())
        if kept is not None and offered.size == latest and 0 <= now - kept.time_s < _AGAIN_S and log.durable == offered:
            return Answer(200, kept.line, f"{told}: again")
        if not log.takes(self._steady()):
            return Answer(429, b"too many checkpoints of this log at a time\n", f"{told}: too often")
        line = self._cosigner.line(offered.text(), now)
        log.durable = None
        self._state.keep(hashed, offered.text() + b"\n" + kept_lines(asked.note, keys) + line)
        log.durable = offered
        return Answer(200, line, f"{told}: cosigned", grew=True)

    def _kept(self, hashed: str) -> _Kept | None:
        note = self._state.note(hashed)
        if note is None:
            return None
        text, _, lines = note.rpartition(b"\n\n")
        own = self._cosigner.verifier
        try:
            # By our own signature: a key that the log had then may be trusted no more.
            for line in lines.splitlines(keepends=True):
                name, _, encoded = line.decode().removeprefix("\u2014 ").rstrip("\n").partition(" ")
                raw = strict_b64(encoded, "a signature")
                if (name, raw[:4]) == (own.name, own.key_id):
                    time_s = own.time_of(raw[4:], text + b"\n")
                    if time_s is not None:
                        return _Kept(parse_checkpoint(text + b"\n"), time_s, line)
        except (NoteError, UnicodeDecodeError):
            pass
        raise StateDamaged(f"{self._state.where(hashed)}: the checkpoint that is kept is not as it was cosigned")

    def _log(self, origin: str) -> _Log:
        """Of a log that is trusted: a stranger makes none."""
        with self._lock:
            return self._logs.setdefault(origin, _Log(self._steady()))


@dataclass(frozen=True, slots=True)
class _Kept:
    checkpoint: Checkpoint
    time_s: int
    line: bytes


class _Log:
    """`turn`: who decides about this log now. `durable`: what this process has seen written to the end."""

    __slots__ = ("_at", "_left", "durable", "turn")

    def __init__(self, now: float) -> None:
        self.turn = threading.Lock()
        self.durable: Checkpoint | None = None
        self._left, self._at = _BURST, now

    def takes(self, now: float) -> bool:
        """Whether one more may be written: each costs the disk a sync."""
        self._left = min(_BURST, self._left + (now - self._at) * _GROWTHS)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _inconsistent(asked: Submission, offered: Checkpoint, kept: Checkpoint | None) -> str:
    """Why the offered tree is not known to begin with the kept one; empty: it is."""
    if offered.size == 0 and offered.root != EMPTY_ROOT:
        return "a tree of size 0 has the root of no leaves"
    if kept is None or kept.size == 0:
        return "there is nothing to prove from size 0" if asked.proof else ""
    if offered.size == kept.size and offered.root != kept.root:
        return f"another tree of size {kept.size} was cosigned"
    if not is_consistent(kept.size, kept.root, offered.size, offered.root, asked.proof):
        return f"the proof does not show that the tree of size {kept.size}, which was cosigned, is its beginning"
    return ""
