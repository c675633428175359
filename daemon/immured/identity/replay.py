"""A nonce acts once per key and daemon: the record that sees to it. Sans-I/O; milliseconds since the epoch.

Nothing is forgotten before its envelope could no longer be accepted (`exp` + 60 s), by two clocks: the one that people
set (`now`), which windows are judged by, and one that is never set (`steady`). A step forward of the first makes nobody
forget; after a step back, what is as old as anything that was forgotten is refused as expired. A key whose record is
full is refused, and with it every key that acts by a certificate of its own; no other's suffers. Only held replies may
go early: what they answer is then `already_done`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
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

    __slots__ = ("account", "digest", "due", "exp", "intent", "key_id", "nonce", "outcome", "reply", "state", "uid")

    def __init__(self, key_id: str, nonce: bytes, digest: bytes, uid: int, exp: int, account: str) -> None:
        self.account = account
        self.due = 0
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
    """Every nonce that could still be replayed. `per_key` bounds a key's nonces, `total` those of all keys: nobody gets
    more than what stays free after him. `held_bytes` bounds the replies of all together.
    """

    def __init__(self, *, per_key: int = 131_072, total: int = 1_048_576, held_bytes: int = 16 << 20) -> None:
        self._per_key = per_key
        self._total = total
        self._held_limit = held_bytes
        self._held_bytes = 0
        self._count = 0
        self._refused = 0
        self._accounts: Counter[str] = Counter()
        self._keys: dict[str, dict[bytes, Claim]] = {}
        self._due: dict[int, set[Claim]] = {}
        self._held: OrderedDict[tuple[str, bytes], Claim] = OrderedDict()
        self._horizon = 0
        self._looked = 0

    def __len__(self) -> int:
        return self._count

    @property
    def held_bytes(self) -> int:
        """Bytes of replies held now."""
        return self._held_bytes

    def measure(self) -> dict[str, int]:
        """How full it is: `nonces` of at most `nonces_max`, the `fullest` key's of at most `per_key`; `held_bytes` of
        replies, of at most `held_bytes_max`; `refused`, how many commands found it full since the start."""
        return {
            "nonces": self._count,
            "nonces_max": self._total,
            "keys": len(self._accounts),
            "fullest": max(self._accounts.values(), default=0),
            "per_key": self._per_key,
            "held_bytes": self._held_bytes,
            "held_bytes_max": self._held_limit,
            "refused": self._refused,
        }

    def claim(
        self,
        key_id: str,
        nonce: bytes,
        digest: bytes,
        uid: int,
        exp: int,
        now: int,
        *,
        steady: int | None = None,
        account: str | None = None,
    ) -> Verdict:
        """Take a nonce. `digest` is the SHA-256 of the command's payload bytes, `uid` the peer's; `account`: the key by
        whose certificates this one acts (absent: itself); `steady` as above (absent: `now` is never set).

        A `Claim` is new and the caller's to `finish` or `release`. Raises Refused `replayed` (other bytes, another
        uid), `busy` (this key's record is full), `expired` (the record has forgotten that time).
        """
        steady = now if steady is None else steady
        self.forget(now, steady)
        nonces = self._keys.get(key_id)
        known = None if nonces is None else nonces.get(nonce)
        if known is not None:
            return self._again(known, digest, uid)
        if exp + SKEW_MS <= self._horizon:
            raise Refused("expired", "the command expired", "sign a new one; check both clocks")
        account = account or key_id
        mine = self._accounts.get(account, 0)
        if mine >= min(self._per_key, self._total - self._count):
            self._refused += 1
            raise Refused(
                "busy",
                f"this key has {mine} commands that could still be replayed, which is the bound",
                "sign with an earlier `exp`, or wait until some expire",
            )
        claim = Claim(key_id, nonce, digest, uid, exp, account)
        self._enter(claim, now, steady)
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
            due = self._due.get(claim.due)
            if due is not None:
                due.discard(claim)
                if not due:
                    del self._due[claim.due]

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
        steady: int | None = None,
        account: str | None = None,
    ) -> Claim | None:
        """At start, from the ledger, in its order: a nonce that acted, done as far as a retry goes. None: its time is
        over, and stays over where the clock is set back later.

        Where a key's record is full its older half goes, and that time is over too: a host that starts with its clock
        years behind would else hold all that was ever done.
        """
        if exp + SKEW_MS <= now:
            self._horizon = max(self._horizon, exp + SKEW_MS)
            return None
        known = self._keys.get(key_id, {}).get(nonce)
        if known is not None:
            return known  # an earlier entry of the same command
        claim = Claim(key_id, nonce, digest, uid, exp, account or key_id)
        claim.state = _State.DONE
        claim.intent = intent
        if self._accounts[claim.account] >= self._per_key:
            mine = [one for nonces in self._keys.values() for one in nonces.values() if one.account == claim.account]
            mine.sort(key=lambda one: one.exp)
            for one in mine[: (len(mine) + 1) // 2]:
                self._forget_one(one)
                self._due[one.due].discard(one)
        self._enter(claim, now, now if steady is None else steady)
        return claim

    def forgotten(self, until: int) -> None:
        """At start: nonces whose time was over by then are in what was not read. It stays over."""
        self._horizon = max(self._horizon, until)

    def forget(self, now: int, steady: int | None = None) -> None:
        """Drop what no window could let in any more. Cheap when nothing is due."""
        steady = now if steady is None else steady
        if self._looked <= steady < self._looked + _BUCKET_MS:
            return
        self._looked = steady - steady % _BUCKET_MS
        for bucket in [bucket for bucket in self._due if bucket * _BUCKET_MS <= steady]:
            for claim in self._due.pop(bucket):
                if claim.exp + SKEW_MS <= now:
                    self._forget_one(claim)
                else:  # the clock was set back meanwhile
                    self._schedule(claim, now, steady)

    def _enter(self, claim: Claim, now: int, steady: int) -> None:
        self._keys.setdefault(claim.key_id, {})[claim.nonce] = claim
        self._accounts[claim.account] += 1
        self._count += 1
        self._schedule(claim, now, steady)

    def _schedule(self, claim: Claim, now: int, steady: int) -> None:
        """Looked at again in the first whole second at which its window is closed, unless somebody sets the clock."""
        claim.due = -(-(steady + max(0, claim.exp + SKEW_MS - now)) // _BUCKET_MS)
        self._due.setdefault(claim.due, set()).add(claim)

    def _forget_one(self, claim: Claim) -> None:
        self._horizon = max(self._horizon, claim.exp + SKEW_MS)
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
            self._count -= 1
            self._accounts[claim.account] -= 1
            if not self._accounts[claim.account]:
                del self._accounts[claim.account]
        self._let_go(claim)

    def _let_go(self, claim: Claim) -> None:
        if claim.reply is not None:
            self._held_bytes -= len(claim.reply)
            claim.reply = None
            self._held.pop((claim.key_id, claim.nonce), None)
