"""Logs that a witness is asked about: leaves in memory, a key, and proofs by the recursion of RFC 6962 itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import Checkpoint, Signer
from immured.ledger.witness import Witness
from immured.ledger.witness_state import WitnessState, init_witness

__all__ = ["Log", "consistency", "made", "root", "submission"]


def root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return hashlib.sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:])).digest()


def consistency(old: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) of RFC 6962, 2.1.2."""
    return [] if old in (0, len(leaves)) else _subproof(old, leaves, True)


def _subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    n = len(leaves)
    if m == n:
        return [] if whole else [root(leaves)]
    k = _split(n)
    if m <= k:
        return [*_subproof(m, leaves[:k], whole), root(leaves[k:])]
    return [*_subproof(m - k, leaves[k:], False), root(leaves[:k])]


def _split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def submission(old: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """The body of add-checkpoint."""
    lines = "".join(base64.b64encode(one).decode() + "\n" for one in proof)
    return f"old {old}\n{lines}\n".encode() + note


class Log:
    """One log, with as many histories as a test likes: `fork` has the same key and another one from there on."""

    def __init__(self, origin: str = "log.example/one", private: Ed25519PrivateKey | None = None) -> None:
        self.origin = origin
        self.private = private or Ed25519PrivateKey.generate()
        self.signer = Signer(self.private, origin)
        self.leaves: list[bytes] = []

    def grow(self, count: int, seed: str = "") -> Log:
        for _ in range(count):
            self.leaves.append(hashlib.sha256(f"{seed} {len(self.leaves)}".encode()).digest())
        return self

    def fork(self, at: int, count: int, seed: str = "another") -> Log:
        """Another history, signed with the log's own key: the first `at` leaves, and `count` others."""
        other = Log(self.origin, self.private)
        other.leaves = self.leaves[:at]
        return other.grow(count, seed)

    def note(self, size: int | None = None) -> bytes:
        size = len(self.leaves) if size is None else size
        return self.signer.sign(Checkpoint(self.origin, size, root(self.leaves[:size])))

    def body(self, old: int, size: int | None = None) -> bytes:
        """An honest submission of this history."""
        size = len(self.leaves) if size is None else size
        return submission(old, consistency(old, self.leaves[:size]), self.note(size))

    @property
    def vkey(self) -> str:
        return self.signer.verifier.encode()


def made(place: Path, *logs: Log, name: str = "witness.example/w1") -> tuple[Witness, WitnessState]:
    """A witness in a directory, that trusts these logs."""
    if not (place / "witness.pem").exists():
        init_witness(place, name)
    state = WitnessState(place)
    state.trust(log.signer.verifier for log in logs)
    return Witness(state, state.cosigner()), state
