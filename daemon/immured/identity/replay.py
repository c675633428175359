"""A nonce acts once per key and daemon: the record that sees to it. Sans-I/O; milliseconds since the epoch.

Nothing is forgotten before its envelope could no longer be accepted (`exp` + 60 s), not even where the clock is set
back later: what lies before the point up to which the record forgot is refused as expired. A key whose record is full
is refused; no other key's suffers. Only held replies may go early: what they answer is then `already_done`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from immured.errors import Refused
from immured.wire.messages import SKEW_MS, Receipt

__all__ = ["AlreadyDone", "Claim", "Held", "InProgress", "ReplayRecord", "Verdict"]

_BUCKET_MS: Final = 1000


class _State(Enum):
    OPEN = auto()
    DONE = auto()
    FORGOTTEN = auto()


class Claim:
    """One accepted nonce. `intent` and `outcome` are set only once they are durable: a receipt is a promise."""

    __slots__ = ("digest", "exp", "intent", "key_id", "nonce", "outcome", "reply", "state", "uid")

    def __init__(self, key_id: str, nonce: bytes, digest: bytes, uid: int, exp: int) -> None:
        self.key_id = key_id
        self.nonce = nonce
        self.digest = digest
        self.uid = uid
        self.exp = exp
        self.state = _State.OPEN
        self.intent: Receipt | None = None
        self.outcome: Receipt | None = None
        self.reply: bytes | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The same command again, and its reply is still held: these bytes."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class InProgress:
    """The same command again, while it runs."""

    intent: Receipt | None


@dataclass(frozen=True, slots=True)
class AlreadyDone:
    """The same command again, after its reply was let go."""

    intent: Receipt | None
    outcome: Receipt | None


Verdict = Claim | Held | InProgress | AlreadyDone


class ReplayRecord:
    """Every nonce that could still be replayed. `per_key` bounds nonces, `held_bytes` the replies of all together."""

    def __init__(self, *, per_key: int = 131_072, held_bytes: int = 64 << 20) -> None:
        self._per_key = per_key
        self._held_limit = held_bytes
        self._held_bytes = 0
        self._keys: dict[str, dict[bytes, Claim]] = {}
        self._due: dict[int, set[Claim]] = {}
        self._held: OrderedDict[tuple[str, bytes], Claim] = OrderedDict()
        self._horizon = 0

    def __len__(self) -> int:
        return sum(len(nonces) for nonces in self._keys.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of replies held now."""
        return self._held_bytes

    def claim(self, key_id: str, nonce: bytes, digest: bytes, uid: int, exp: int, now: int) -> Verdict:
        """Take a nonce. `digest` is the SHA-256 of the command's payload bytes, `uid` the peer's.

        A `Claim` is new and the caller's to `finish` or `release`. Raises Refused `replayed` (other bytes, another
        uid), `busy` (this key's record is full), `expired` (the record has forgotten that time).
        """
        self.forget(now)
        nonces = self._keys.get(key_id)
        known = None if nonces is None else nonces.get(nonce)
        if known is not None:
            return self._again(known, digest, uid)
        if exp + SKEW_MS <= self._horizon:
            raise Refused("expired", "the command expired", "sign a new one; check both clocks")
        if nonces is None:
            nonces = self._keys[key_id] = {}
        elif len(nonces) >= self._per_key:
            raise Refused(
                "busy",
                f"this key has {len(nonces)} commands that could still be replayed, which is the bound",
                "sign with an earlier `exp`, or wait until some expire",
            )
        claim = Claim(key_id, nonce, digest, uid, exp)
        nonces[nonce] = claim
        self._due.setdefault(_bucket(exp), set()).add(claim)
        return claim

    def finish(self, claim: Claim, reply: bytes, outcome: Receipt | None = None) -> None:
        """The command is answered: hold the reply for whoever asks again."""
        if claim.state is not _State.OPEN:
            return
        claim.state = _State.DONE
        claim.outcome = outcome
        if len(reply) <= self._held_limit:
            claim.reply = reply
            self._held[claim.key_id, claim.nonce] = claim
            self._held_bytes += len(reply)
            while self._held_bytes > self._held_limit:
                self._let_go(next(iter(self._held.values())))

    def release(self, claim: Claim) -> None:
        """The command was refused for what a retry may cure: the nonce is as if it had never been seen."""
        if claim.state is _State.OPEN:
            self._remove(claim)
            due = self._due.get(_bucket(claim.exp))
            if due is not None:
                due.discard(claim)

    def restore(
        self,
        key_id: str,
        nonce: bytes,
        digest: bytes,
        uid: int,
        exp: int,
        *,
        intent: Receipt | None,
        now: int,
    ) -> Claim | None:
        """At start, from the ledger: a nonce that acted, done as far as a retry goes. None: its time is over, and stays
        over where the clock is set back later.
        """
        self.forget(now)
        if exp + SKEW_MS <= self._horizon:
            return None
        claim = Claim(key_id, nonce, digest, uid, exp)
        claim.state = _State.DONE
        claim.intent = intent
        self._keys.setdefault(key_id, {})[nonce] = claim
        self._due.setdefault(_bucket(exp), set()).add(claim)
        return claim

    def forget(self, now: int) -> None:
        """Drop what no window could let in any more. Cheap when nothing is due."""
        if now < self._horizon + _BUCKET_MS:
            return
        self._horizon = now - now % _BUCKET_MS
        due = [bucket for bucket in self._due if bucket * _BUCKET_MS <= self._horizon]
        for bucket in due:
            for claim in self._due.pop(bucket):
                self._remove(claim)

    def _again(self, known: Claim, digest: bytes, uid: int) -> Verdict:
        if known.digest != digest:
            raise Refused("replayed", "this nonce already belongs to another command", "16 new random bytes a command")
        if known.uid != uid:
            raise Refused("replayed", "this command already came from another user", "sign a command of your own")
        if known.state is _State.OPEN:
            return InProgress(known.intent)
        if known.reply is not None:
            return Held(known.reply)
        return AlreadyDone(known.intent, known.outcome)

    def _remove(self, claim: Claim) -> None:
        claim.state = _State.FORGOTTEN
        nonces = self._keys.get(claim.key_id)
        if nonces is not None and nonces.get(claim.nonce) is claim:
            del nonces[claim.nonce]
            if not nonces:
                del self._keys[claim.key_id]
        self._let_go(claim)

    def _let_go(self, claim: Claim) -> None:
        if claim.reply is not None:
            self._held_bytes -= len(claim.reply)
            claim.reply = None
            self._held.pop((claim.key_id, claim.nonce), None)


def _bucket(exp: int) -> int:
    # The first whole second at which `now < exp + SKEW_MS` can no longer hold.
    return -(-(exp + SKEW_MS) // _BUCKET_MS)
