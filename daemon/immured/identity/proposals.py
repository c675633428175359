"""Dual control: a command is proposed, others approve it, and then it may be given once. Sans-I/O.

A proposal is of a digest (`canonical.command_digest`); whoever sends that very command later, and may by policy, does
so under it. Whether enough agreed is judged at that moment, by the policy and the keys of that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from immured.errors import Refused
from immured.identity import folded

__all__ = [
    "DEFAULT_TTL_MS",
    "MAX_ARGS",
    "MAX_OPEN",
    "MAX_OPEN_PER_KEY",
    "MAX_TTL_MS",
    "Approval",
    "Proposal",
    "Proposals",
]

DEFAULT_TTL_MS: Final = 24 * 3600 * 1000
MAX_TTL_MS: Final = 7 * 24 * 3600 * 1000
MAX_ARGS: Final = 512 * 1024
"""Bytes of the command that is proposed, in its canonical form."""
MAX_OPEN: Final = 256
MAX_OPEN_PER_KEY: Final = 32
MAX_APPROVALS: Final = 64


@dataclass(frozen=True, slots=True)
class Approval:
    """`key` is in the keyring (who approves by a certified key does so as the key that certified it), `role` the one
    that the approval was given under."""

    key: str
    role: str
    at_ms: int

    def to_map(self) -> dict[str, object]:
        """As replies and the ledger show it."""
        return {"key": self.key, "role": self.role, "at_ms": self.at_ms}

    @classmethod
    def from_map(cls, given: Mapping[str, object]) -> Approval:
        """The inverse. Raises ValueError for what was never written."""
        return cls(folded.text(given, "key"), folded.text(given, "role"), folded.whole(given, "at_ms"))


@dataclass(frozen=True, slots=True)
class Proposal:
    """`proposer` is the key in the keyring, as an approval's; `owners` also names a certified key that acted for it."""

    id: str
    cmd: str
    tenant: str
    project: str
    digest: bytes
    proposer: str
    owners: tuple[str, ...]
    reason: str
    created_ms: int
    expires_ms: int
    approvals: tuple[Approval, ...] = field(default=())

    def to_map(self) -> dict[str, object]:
        """As replies show it, and, before anybody approved it, the ledger."""
        return {
            "proposal": self.id,
            "cmd": self.cmd,
            "tenant": self.tenant,
            "project": self.project,
            "digest": "sha256:" + self.digest.hex(),
            "proposer": self.proposer,
            "owners": list(self.owners),
            "reason": self.reason,
            "created_ms": self.created_ms,
            "expires_ms": self.expires_ms,
            "approvals": [one.to_map() for one in self.approvals],
        }

    @classmethod
    def from_map(cls, given: Mapping[str, object]) -> Proposal:
        """A new one, which nobody approved yet. Raises ValueError for what was never written."""
        return cls(
            id=folded.text(given, "proposal"),
            cmd=folded.text(given, "cmd"),
            tenant=folded.text(given, "tenant"),
            project=folded.text(given, "project"),
            digest=folded.digest(given, "digest"),
            proposer=folded.text(given, "proposer"),
            owners=folded.texts(given, "owners"),
            reason=folded.text(given, "reason"),
            created_ms=folded.whole(given, "created_ms"),
            expires_ms=folded.whole(given, "expires_ms"),
        )


class Proposals:
    """The proposals that could still be carried out."""

    def __init__(self) -> None:
        self._by_id: dict[str, Proposal] = {}
        self._reserved: set[str] = set()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Proposal]:
        return iter(self._by_id.values())

    def get(self, proposal_id: str) -> Proposal | None:
        """The proposal of that id, if it is open."""
        return self._by_id.get(proposal_id)

    def check_room(self, proposer: str, now_ms: int) -> None:
        """Raises Refused `over_quota` where so many are open that no more are kept."""
        self.forget(now_ms)
        own = sum(one.proposer == proposer for one in self)
        for held, limit, whose in ((own, MAX_OPEN_PER_KEY, "of this key"), (len(self), MAX_OPEN, "of all keys")):
            if held >= limit:
                raise Refused(
                    "over_quota",
                    f"{held} proposals {whose} are open, which is the bound",
                    "withdraw what is not wanted any more",
                    details={"quota": "proposals", "limit": limit, "used": held, "asked": 1},
                )

    def add(self, proposal: Proposal) -> None:
        """It is in the ledger."""
        self._by_id[proposal.id] = proposal

    def check_approvable(self, proposal: Proposal) -> None:
        """Raises Refused `over_quota` where it has more approvals than anything asks for."""
        if len(proposal.approvals) >= MAX_APPROVALS:
            raise Refused(
                "over_quota",
                f"{proposal.id} has {MAX_APPROVALS} approvals",
                "send the command",
                details={"quota": "approvals", "limit": MAX_APPROVALS, "used": MAX_APPROVALS, "asked": 1},
            )

    def approve(self, proposal_id: str, approval: Approval) -> None:
        """It is in the ledger. A key's later approval takes the place of its earlier."""
        proposal = self._by_id.get(proposal_id)
        if proposal is not None:
            others = tuple(one for one in proposal.approvals if one.key != approval.key)
            self._by_id[proposal_id] = replace(proposal, approvals=(*others, approval))

    def reserve(self, digest: bytes, fulfils: Callable[[Proposal], bool], now_ms: int) -> Proposal | None:
        """A proposal of that digest that fulfils what is asked, taken until `release` or `remove`. None: none does."""
        for one in self.of(digest, now_ms):
            if one.id not in self._reserved and fulfils(one):
                self._reserved.add(one.id)
                return one
        return None

    def of(self, digest: bytes, now_ms: int) -> list[Proposal]:
        """The open ones of that digest, oldest first."""
        return [one for one in self if one.digest == digest and now_ms < one.expires_ms]

    def release(self, proposal_id: str) -> None:
        """Its command was refused before anything happened."""
        self._reserved.discard(proposal_id)

    def remove(self, proposal_id: str) -> None:
        """Its command's first entry is in the ledger; or it was withdrawn, or expired."""
        self._reserved.discard(proposal_id)
        self._by_id.pop(proposal_id, None)

    def forget(self, now_ms: int) -> list[str]:
        """Drop what expired; its ids."""
        gone = [one.id for one in self if one.expires_ms <= now_ms and one.id not in self._reserved]
        for proposal_id in gone:
            self.remove(proposal_id)
        return gone
