"""`resume`: how far the ledger was read, written and signed, so that a start need not read all of it again. Sans-I/O.

Derived, and believed only as far as it goes: its signature is the ledger's own, its tree is what the checkpoint of just
that size signs, and each line that it names has the leaf hash that it gives. Anything amiss, and everything is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import Checkpoint, VerifierKey
from immured.ledger.keeping import Snapshot
from immured.ledger.tree import Frontier
from immured.wire.envelope import pae

__all__ = ["RESUME", "Resume", "UnusableError"]

RESUME: Final = "resume"
"""The file's name in the ledger's directory."""
_TYPE: Final = "application/vnd.immured.ledger-resume.v1"
_FIELDS: Final = frozenset(
    {"origin", "size", "end", "leaf", "roots", "rules", "closed", "recorded", "durability", "horizon_ms", "kept"}
)
_SECTIONS: Final = ("open", "acts", "says", "seen", "counts")


class UnusableError(ValueError):
    """It says nothing that may be believed, and why."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The ledger's state at a checkpoint of `size` entries, which end at byte `end` with the leaf hash `leaf`."""

    origin: str
    size: int
    end: int
    leaf: bytes
    tree: Frontier
    rules: str
    """By which `kept` was (`Keeper.rules`)."""
    closed: bool
    """Nothing came after: the ledger was closed."""
    recorded: tuple[str, ...]
    """Files in quarantine/ that entries speak of."""
    durability: str
    """As the last `ledger.durability` has it; empty for none."""
    kept: Snapshot

    def encode(self, private: Ed25519PrivateKey) -> bytes:
        """The file's content."""
        kept = msgpack.packb([getattr(self.kept, name) for name in _SECTIONS])
        told = msgpack.packb(
            {
                "origin": self.origin,
                "size": self.size,
                "end": self.end,
                "leaf": self.leaf,
                "roots": b"".join(self.tree.roots()),
                "rules": self.rules,
                "closed": self.closed,
                "recorded": list(self.recorded),
                "durability": self.durability,
                "horizon_ms": self.kept.horizon_ms,
                "kept": hashlib.sha256(kept).digest(),
            }
        )
        content: bytes = msgpack.packb([told, private.sign(pae(_TYPE, told)), kept])
        return content

    @classmethod
    def decode(cls, content: bytes, keys: Iterable[VerifierKey]) -> Resume:
        """The inverse. Raises UnusableError for what none of these keys signed, or no daemon wrote."""
        try:
            told, signature, kept = msgpack.unpackb(content)
            if not all(isinstance(one, bytes) for one in (told, signature, kept)):
                raise UnusableError("it is not of three byte strings")
            signed = pae(_TYPE, told)
            if not any(key.verify(signature, signed) for key in keys):
                raise UnusableError("no key of the ledger's signed it")
            said = msgpack.unpackb(told)
            if said.keys() != _FIELDS:
                raise UnusableError("it is of another version")
            if hashlib.sha256(kept).digest() != said["kept"]:
                raise UnusableError("what it keeps is not what was signed")
            return cls._from(said, msgpack.unpackb(kept, strict_map_key=False))
        except UnusableError:
            raise
        except (ValueError, TypeError, AttributeError, KeyError, msgpack.UnpackException) as error:
            raise UnusableError(f"it is not of this format ({error})") from None

    @classmethod
    def _from(cls, said: Mapping[str, Any], kept: list[Any]) -> Resume:
        roots = said["roots"]
        sections = dict(zip(_SECTIONS, kept, strict=True))
        return cls(
            str(said["origin"]),
            int(said["size"]),
            int(said["end"]),
            bytes(said["leaf"]),
            Frontier.resumed(said["size"], [roots[at : at + 32] for at in range(0, len(roots), 32)]),
            str(said["rules"]),
            bool(said["closed"]),
            tuple(said["recorded"]),
            str(said["durability"]),
            Snapshot(horizon_ms=said["horizon_ms"], **sections),
        )

    def check(self, head: Checkpoint) -> None:
        """Whether the checkpoint of its size signs its tree. Raises UnusableError."""
        if (head.origin, head.size, head.root) != (self.origin, self.size, self.tree.root()):
            raise UnusableError("its tree is not the one that the checkpoint of its size signs")
