"""The server's own count of what it decided, kept beside the ledger: by it shows what the ledger lacks."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from immured.ledger.tally import UNKNOWN

__all__ = ["READS", "Decided", "Seen", "only_looked"]

READS: Final = frozenset(
    {
        *("status", "whoami", "metrics", "plan", "image.list", "template.list"),
        *("policy.show", "policy.explain", "key.list", "key.show", "manifest.list", "manifest.show"),
        *("consent.show", "consent.status", "grant.list", "proposal.list", "proposal.show"),
        *("session.list", "session.show", "volume.list", "snapshot.list"),
        *("sandbox.list", "sandbox.show", "sandbox.stats", "sandbox.execs"),
        *("ledger.prove", "ledger.checkpoint", "ledger.query"),
    }
)
"""Commands that only look at what is the daemon's own: granted, they have no entry. Everything else has."""
_REMEMBERED: Final = 4096


def only_looked(cmd: str, result: Mapping[str, object]) -> bool:
    """Whether a command that was granted has nothing to be entered: it reads; or is one that was only to say what would
    become of a manifest, or found that very one loaded."""
    return cmd in READS or (cmd == "manifest.load" and result.get("stored") is False)


@dataclass(frozen=True, slots=True)
class Seen:
    """The count at one moment. `decided`: by command, what must have an entry; `under_way`: payloads (hex) of what may
    have one, and is not counted yet; `recent`: the last ones that were counted, with their payloads."""

    decided: Mapping[str, int]
    under_way: Collection[str]
    recent: Collection[tuple[str, str]]
    reads: int
    undecided: int
    bounded: int


class Decided:
    """Counts, by what is answered. Once begun, everything is ended."""

    def __init__(self) -> None:
        self._decided: Counter[str] = Counter()
        self._under_way: Counter[bytes] = Counter()
        self._recent: deque[tuple[str, bytes]] = deque(maxlen=_REMEMBERED)
        self._known: Collection[str] = ()
        self.reads = 0
        """Answered, of READS."""
        self.undecided = 0
        """Turned away for now, or failed by a mistake of ours before anything was done."""
        self.bounded = 0
        """Refusals beyond what one user gets entries of his own for: they are counted in peer.misbehaved."""

    def of(self, commands: Collection[str]) -> None:
        """Whatever else comes is counted as one."""
        self._known = commands

    def begin(self, payload: bytes) -> None:
        """Its signature was good: it will be answered."""
        self._under_way[payload] += 1

    def end(self, payload: bytes) -> None:
        """It was: count it as what it came to, in the same turn of the loop."""
        left = self._under_way[payload] - 1
        if left > 0:
            self._under_way[payload] = left
        else:
            del self._under_way[payload]

    def decided(self, cmd: str, payload: bytes) -> None:
        """Something was decided, and there must be an entry."""
        name = cmd if cmd in self._known else UNKNOWN
        self._decided[name] += 1
        self._recent.append((name, payload))

    def seen(self) -> Seen:
        """How it stands now."""
        return Seen(
            dict(self._decided),
            [payload.hex() for payload in self._under_way],
            [(cmd, payload.hex()) for cmd, payload in self._recent],
            self.reads,
            self.undecided,
            self.bounded,
        )
