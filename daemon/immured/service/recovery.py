"""What a starting daemon learns from the ledger: nonces that acted, runs without an outcome, who may do what.

One pass, entry by entry, over those that are still needed (`needed`); memory grows with what could still be replayed
and with what was running, not with the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from immured.errors import ConfigurationError, Refused
from immured.identity import folded
from immured.identity.authority import Authority
from immured.identity.replay import Claim, ReplayRecord
from immured.ledger import Entry, entry_types
from immured.ledger.keeping import Keep, Need
from immured.ledger.timestamps import parse_timestamp
from immured.service import needed
from immured.service.audit_health import AuditHistory
from immured.service.batches.recovery import LostBatches
from immured.service.daemon_keys import Rotation
from immured.service.exports import ExportHistory
from immured.service.manifest_register import Register
from immured.service.sandboxes.recovery import OpenEntries
from immured.service.shares import monotonic_ms
from immured.service.witnesses import WitnessHistory
from immured.wire.messages import Receipt

__all__ = ["LostRun", "Recovery"]

_DONE = frozenset(
    {
        *(entry_types.COMMAND_DONE, entry_types.COMMAND_DENIED),
        *(entry_types.KEY_ADDED, entry_types.KEY_CHANGED, entry_types.KEY_ROTATED, entry_types.KEY_BARRED),
        *(entry_types.POLICY_CHANGED, entry_types.GRANT_ISSUED, entry_types.GRANT_REVOKED),
        *(entry_types.PROPOSAL_CREATED, entry_types.PROPOSAL_APPROVED, entry_types.PROPOSAL_WITHDRAWN),
        *(entry_types.MANIFEST_LOADED, entry_types.MANIFEST_REFUSED, entry_types.MANIFEST_REVOKED),
        *(entry_types.SESSION_OPENED, entry_types.SESSION_CLOSED, entry_types.DAEMON_KEY_ROTATED),
        *(entry_types.PREFLIGHT_DONE, entry_types.LEDGER_KEY_ROTATED),
        *(entry_types.CONSENT_ACCEPTED, entry_types.CONSENT_DECLINED),
    }
)
"""Entries that are a command's intent and outcome at once."""
_REFUSED = frozenset({entry_types.COMMAND_DENIED, entry_types.MANIFEST_REFUSED})
"""What used nothing up that its command would have taken."""
_ENDING = frozenset({entry_types.GRANT_ISSUED, entry_types.PROPOSAL_CREATED, entry_types.SESSION_OPENED})
"""Of what ends by itself. A session is remembered for a day after that."""


@dataclass(frozen=True, slots=True)
class LostRun:
    """A run whose intent is in the ledger and whose outcome is not."""

    sandbox: str
    intent: int


class Recovery:
    """The ledger's `Keeper`: fed every entry that is needed in order (`Ledger.open`), then take what it found."""

    rules: Final = needed.RULES

    def __init__(self, replay: ReplayRecord, authority: Authority, now: Callable[[], int]) -> None:
        self.authority = authority
        self.manifests = Register()
        self.policies: list[str] = []
        """Digests of the policies that were in force, oldest first."""
        self.rotation: Rotation | None = None
        """The last one of the daemon's own key."""
        self._counted: set[tuple[str, str]] = set()
        self._replay = replay
        self._now = now()
        self._steady = monotonic_ms()
        self._open: dict[int, tuple[str, Claim | None]] = {}
        self.batches = LostBatches(self._restore)
        self.lived = OpenEntries(self._restore)
        self.exports = ExportHistory()
        self.witnesses = WitnessHistory()
        self.audit = AuditHistory()

    @property
    def lost(self) -> Sequence[LostRun]:
        """Runs that the last daemon did not see to their end, oldest first."""
        return [LostRun(sandbox, seq) for seq, (sandbox, _) in self._open.items()]

    def settle(self, lost: LostRun, receipt: Receipt) -> None:
        """That run's run.lost is durable: whoever asks for the command again gets its receipt."""
        _, claim = self._open[lost.intent]
        if claim is not None:
            claim.outcome = receipt

    def keep(self, type_: str, actor: Mapping[str, Any], data: Mapping[str, Any], /) -> Keep | None:
        """What a later start needs this entry for."""
        return needed.keep(type_, actor, data)

    def forgotten(self, until_ms: int) -> None:
        """Nonces that could be used until then may not be visited."""
        self._replay.forgotten(until_ms)

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:
        """Take one entry. What other versions wrote and this one does not know is passed over.

        Raises ConfigurationError `ledger_damaged` for what no daemon wrote.
        """
        if needs & Need.ACT:
            self._act(entry)
        try:
            if needs & Need.SAY:
                self._say(entry)
            if entry.type in _REFUSED:
                return
            if needs & Need.SEEN and "session" in entry.actor:
                at_ms = parse_timestamp(entry.ts) // 1_000_000
                self.authority.sessions.seen(folded.text(entry.actor, "session"), at_ms)
            if needs & Need.COUNT and "counted" in entry.data:
                self._count(entry)
        except (ValueError, Refused, ConfigurationError) as error:
            raise ConfigurationError(
                "ledger_damaged", f"entry {entry.seq} ({entry.type}): {error}", "see `immure ledger show`"
            ) from error

    def _act(self, entry: Entry) -> None:
        """What was begun, and what came of it."""
        if entry.type == entry_types.RUN_ACCEPTED:
            sandbox = entry.data.get("sandbox")
            self._open[entry.seq] = (sandbox if isinstance(sandbox, str) else "", self._restore(entry))
        elif entry.type in (entry_types.RUN_FINISHED, entry_types.RUN_LOST):
            intent = entry.data.get("intent")
            if isinstance(intent, int):
                _, claim = self._open.pop(intent, ("", None))
                if claim is not None:
                    claim.outcome = Receipt(entry.seq, entry.leaf)
        elif entry.type.startswith("batch."):
            self.batches.visit(entry)
        elif self.lived.visit(entry):
            pass
        elif entry.type in _DONE:
            self._restore_done(entry)

    def _say(self, entry: Entry) -> None:
        """What is so, and who may do what."""
        authority, data = self.authority, entry.data
        if entry.type.startswith("export."):
            self.exports.visit(entry)
        if entry.type.startswith("witness."):
            self.witnesses.visit(entry)
        if entry.type.startswith("audit."):
            self.audit.visit(entry)
        if not (entry.type in _ENDING and self._is_over(data.get("record"))):
            authority.apply(entry.type, data, entry.seq)
        if entry.type.startswith("consent.") and not self._is_over(data):
            authority.consents.visit(entry.type, entry.actor, data, entry.seq)
        if entry.type == entry_types.POLICY_CHANGED:
            self.policies.append(folded.text(data, "digest"))
        if entry.type == entry_types.DAEMON_KEY_ROTATED:
            self.rotation = Rotation.from_map(data)
        if entry.type in _REFUSED:
            return
        self.manifests.apply(entry.type, entry.actor, data, entry.seq)
        if "grant" in data:
            authority.grants.remove(folded.text(data, "grant"))
        if "proposal" in data:
            authority.proposals.remove(folded.text(data, "proposal"))

    def _is_over(self, record: object) -> bool:
        """Whether it can have no effect any more: an old ledger has many such, and they take no memory."""
        ends = record.get("expires_ms") if isinstance(record, dict) else None
        return type(ends) is int and ends + needed.DAY_MS <= self._now

    def _count(self, entry: Entry) -> None:
        """A command under certificates that count: once, however many entries it has."""
        key, nonce, counted = folded.text(entry.actor, "key"), folded.text(entry.data, "nonce"), entry.data["counted"]
        if (key, nonce) in self._counted or not isinstance(counted, dict):
            return
        whole = {digest: folded.whole(counted, digest) for digest in counted}
        if any(self._now < expiry for expiry in whole.values()):
            self._counted.add((key, nonce))
            root = folded.optional_text(entry.actor, "root") or key
            self.authority.uses.note(root, key, bytes.fromhex(nonce), whole)

    def _restore_done(self, entry: Entry) -> None:
        claim = self._restore(entry)
        if claim is not None:
            claim.intent, claim.outcome = None, Receipt(entry.seq, entry.leaf)

    def _restore(self, entry: Entry) -> Claim | None:
        data = entry.data
        key, uid = entry.actor.get("key"), entry.actor.get("uid")
        root = entry.actor.get("root")
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
            steady=self._steady,
            account=root if isinstance(root, str) else None,
        )
