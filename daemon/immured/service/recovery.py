"""What a starting daemon learns from the ledger: nonces that acted, runs without an outcome, keys that were added.

One pass, entry by entry; memory grows with what could still be replayed and with what was running, not with the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from immured.errors import ConfigurationError
from immured.identity.keyring import KeyRecord, Keyring
from immured.identity.replay import Claim, ReplayRecord
from immured.ledger import Entry, entry_types
from immured.wire.messages import Receipt

__all__ = ["LostRun", "Recovery"]


@dataclass(frozen=True, slots=True)
class LostRun:
    """A run whose intent is in the ledger and whose outcome is not."""

    sandbox: str
    intent: int


class Recovery:
    """Feed it every entry in order (`Ledger.open(visit=...)`), then take what it found."""

    def __init__(self, replay: ReplayRecord, keyring: Keyring, now: Callable[[], int]) -> None:
        self.keyring = keyring
        self._replay = replay
        self._now = now()
        self._open: dict[int, tuple[str, Claim | None]] = {}

    @property
    def lost(self) -> Sequence[LostRun]:
        """Runs that the last daemon did not see to their end, oldest first."""
        return [LostRun(sandbox, seq) for seq, (sandbox, _) in self._open.items()]

    def settle(self, lost: LostRun, receipt: Receipt) -> None:
        """That run's run.lost is durable: whoever asks for the command again gets its receipt."""
        _, claim = self._open[lost.intent]
        if claim is not None:
            claim.outcome = receipt

    def visit(self, entry: Entry) -> None:
        """Take one entry. What other versions wrote and this one does not know is passed over."""
        if entry.type == entry_types.RUN_ACCEPTED:
            sandbox = entry.data.get("sandbox")
            self._open[entry.seq] = (sandbox if isinstance(sandbox, str) else "", self._restore(entry))
        elif entry.type in (entry_types.RUN_FINISHED, entry_types.RUN_LOST):
            intent = entry.data.get("intent")
            if isinstance(intent, int):
                _, claim = self._open.pop(intent, ("", None))
                if claim is not None:
                    claim.outcome = Receipt(entry.seq, entry.leaf)
        elif entry.type == entry_types.KEY_ADDED:
            self._restore_done(entry)
            if entry.seq > self.keyring.as_of:
                self._add_key(entry)
        elif entry.type in (entry_types.COMMAND_DONE, entry_types.COMMAND_DENIED):
            self._restore_done(entry)

    def _restore_done(self, entry: Entry) -> None:
        claim = self._restore(entry)
        if claim is not None:
            claim.intent, claim.outcome = None, Receipt(entry.seq, entry.leaf)

    def _restore(self, entry: Entry) -> Claim | None:
        data = entry.data
        key, uid = entry.actor.get("key"), entry.actor.get("uid")
        nonce, payload, exp = data.get("nonce"), data.get("payload"), data.get("exp")
        if not (isinstance(key, str) and isinstance(uid, int) and isinstance(exp, int)):
            return None
        if not (isinstance(nonce, str) and isinstance(payload, str)):
            return None
        try:
            raw_nonce, digest = bytes.fromhex(nonce), bytes.fromhex(payload)
        except ValueError:
            return None
        return self._replay.restore(
            key,
            raw_nonce,
            digest,
            uid,
            exp,
            intent=Receipt(entry.seq, entry.leaf),
            now=self._now,
        )

    def _add_key(self, entry: Entry) -> None:
        """The ledger held it, and a crash came before the file did."""
        record = entry.data.get("record")
        if not isinstance(record, dict):
            raise ConfigurationError(
                "ledger_damaged", f"entry {entry.seq} adds a key without its record", "see `immure ledger show`"
            )
        key = KeyRecord.from_map(record)
        if self.keyring.find(key.id) is None:
            self.keyring = self.keyring.with_key(key, as_of=entry.seq)
        else:
            self.keyring = self.keyring.at(entry.seq)
