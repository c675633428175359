"""The one place that decides who may do what, and the state that decides: a fold over ledger entries. Sans-I/O.

Every command passes `admit`, and handlers ask the warrant that it returns about what only they know. What changes the
state is in force once its entry is durable (`apply`); a daemon that starts applies all that the ledger holds, so that
there is no second truth beside it but the keyring's file and the policy's bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from immured.errors import Refused
from immured.identity import certificates, fold
from immured.identity.actor import Actor
from immured.identity.certificates import Chain, Uses
from immured.identity.consents import Consents
from immured.identity.grants import Grants
from immured.identity.keyring import MAX_KEYS, KeyRecord, Keyring, KeyStatus
from immured.identity.policy.decide import Decider
from immured.identity.policy.rights import belongs_to_host
from immured.identity.policy.schema import Control, Policy
from immured.identity.policy.warrant import Warrant
from immured.identity.proposals import Proposal, Proposals
from immured.identity.sessions import Sessions
from immured.identity.way import Way
from immured.wire.keys import PublicKey
from immured.wire.messages import Command

__all__ = ["Authority"]


class Authority:
    """Keyring, policy, grants, proposals, sessions, barred keys and counted certificates of one daemon."""

    def __init__(self, keyring: Keyring, policy: Policy) -> None:
        self.keyring = keyring
        self.grants = Grants()
        self.proposals = Proposals()
        self.sessions = Sessions()
        self.consents = Consents()
        self.uses = Uses()
        self.barred: set[str] = set()
        """Ids of certified keys that were revoked; they never stood in the keyring."""
        self.barred_under: dict[str, set[str]] = {}
        """Those that were revoked in the chains of one key alone, by that key's id."""
        self._flying: dict[Warrant, tuple[Chain, bytes]] = {}
        self.set_policy(policy)

    def set_policy(self, policy: Policy) -> None:
        """That policy is in force from now on."""
        self.policy = policy
        self.decider = Decider(policy)
        self._named = frozenset(name for rule in policy.rules for name in rule.keys)
        self._hosts: dict[tuple[object, ...], bool] = {}

    @property
    def names(self) -> Decider:
        """What the policy says of the names that a command carries."""
        return self.decider

    def find(self, key_id: str) -> KeyRecord | None:
        """The keyring's record of that id."""
        return self.keyring.find(key_id)

    def public_key(self, key_id: str) -> PublicKey | None:
        """The one candidate that a key id selects."""
        return self.keyring.public_key(key_id)

    def is_hosts(self, record: KeyRecord) -> bool:
        """Whether that key reaches beyond its tenants: then it is the host's, and no tenant's to change."""
        # Keys are many, and what tells them apart here is little.
        alike = (record.role, record.personas, *(self._named.intersection(record.called)))
        found = self._hosts.get(alike)
        if found is None:
            found = self._hosts[alike] = belongs_to_host(self.decider, record)
            if len(self._hosts) > MAX_KEYS:
                self._hosts.clear()
        return found

    # -- a command's way

    def admit(self, actor: Actor, command: Command, now_ms: int) -> Warrant:
        """Whether that actor may give that command, as far as can be told before its target is known.

        Raises Refused `denied`, `session_unknown`, `session_expired`; of a chain `key_*`, `certificate_*`. What the
        command takes (a grant, a proposal, a certificate's use) is settled by `conclude`.
        """
        chain = self._check_chain(actor, now_ms) if actor.chain else None
        if actor.session is not None:
            self.sessions.use(actor.session, (*actor.owners, *actor.identities), actor.tenant, now_ms)
        grantable = chain is None and self.grants.any_for(actor.key_id, command.cmd)
        denial: Refused | None = None
        try:
            warrant = self.decider.warrant(actor, command.cmd, now_ms)
        except Refused as error:
            if not grantable or "rule" in error.details:
                raise
            warrant, denial = self.decider.granted(actor, command.cmd, now_ms), error
        if grantable or self.policy.controls:
            way = Way(self, warrant, command)
            warrant.on_control = way.require
            if grantable:
                warrant.on_denied = way.elevate
            if denial is not None and not way.granted_at_all():
                raise denial
        if chain is not None:
            self.uses.take(chain, command.nonce, now_ms)
            self._flying[warrant] = chain, command.nonce
        return warrant

    def conclude(self, warrant: Warrant, acted: bool) -> None:
        """The command is over. `acted`: the ledger holds it, and not as a denial; then what it took is used up."""
        if warrant.grant is not None:
            (self.grants.remove if acted else self.grants.release)(warrant.grant)
        if warrant.proposal is not None:
            (self.proposals.remove if acted else self.proposals.release)(warrant.proposal)
        if (flying := self._flying.pop(warrant, None)) is not None:
            chain, nonce = flying
            if acted:
                self.uses.note(chain.root, chain.public.id, nonce, chain.counted)
            self.uses.settle(chain, nonce)

    def _check_chain(self, actor: Actor, now_ms: int) -> Chain:
        chain = Chain(cast("tuple[certificates.Link, ...]", actor.chain))
        chain.check(now_ms, self.barred)
        if (under := self.barred_under.get(chain.root)) is not None:
            chain.check(now_ms, under)
        root = self.keyring.find(chain.root)
        if root is None:
            raise Refused("unknown_key", f"no key {chain.root} is known", "have a key certified by one that is")
        root.check_usable(now_ms)
        return chain

    def stopped(self, actor: Actor) -> bool:
        """Whether its key, or one that it hangs on, was suspended, revoked or barred since: not merely expired, which
        ends what is begun and nothing that was."""
        root = self.keyring.find(actor.root.id)
        if root is None or root.status is not KeyStatus.ACTIVE:
            return True
        under = self.barred_under.get(root.id, set[str]())
        certified = (actor.key_id, *(link.issuer for link in actor.chain[1:])) if actor.chain else ()
        return any(one in self.barred or one in under for one in certified)

    # -- dual control

    def fulfils(self, proposal: Proposal, control: Control, now_ms: int, givers: Collection[str]) -> bool:
        """Whether enough of those who may have approved it, by the keys and the policy of now. `givers`: as below."""
        if now_ms >= proposal.created_ms + control.window_ms:
            return False
        return len(self.approvers(proposal, control, now_ms, givers)) >= control.approvals

    def approvers(self, proposal: Proposal, control: Control, now_ms: int, givers: Collection[str]) -> frozenset[str]:
        """Whose approvals count for that control: one of each line of keys, the proposer's not among them, nor those of
        `givers`, the keys by whose right the command is given; with none of these: whose count as long as others do."""
        found = {
            self.line(one.key) for one in proposal.approvals if self._may_approve(one.key, one.role, control, now_ms)
        }
        return frozenset(found - {self.line(key) for key in (proposal.proposer, *givers)})

    def _may_approve(self, key_id: str, role: str, control: Control, now_ms: int) -> bool:
        record = self.keyring.find(key_id)
        if record is None or (record.standing(now_ms) != "active" and record.successor is None):
            return False
        if record.successor is not None:
            # What a key approved before another took its place, its owner approved; unless it was taken back since.
            last = self.last_of(record)
            if record.status != "active" or last.standing(now_ms) != "active":
                return False
            record = last
        if role not in self.decider.roles(record.role) and role not in record.personas:
            return False
        return bool(self.decider.roles(role) & control.approvers)

    def line(self, key_id: str) -> str:
        """The first key of its line: keys that took one another's place are one voice."""
        record = self.keyring.find(key_id)
        return record.predecessors[-1] if record is not None and record.predecessors else key_id

    def last_of(self, record: KeyRecord) -> KeyRecord:
        """The key at the end of its line."""
        while record.successor is not None and (after := self.keyring.find(record.successor)) is not None:
            record = after
        return record

    # -- the fold

    def apply(self, kind: str, data: Mapping[str, object], seq: int) -> None:
        """That entry is durable: what it says is so from now on. Raises ValueError for what this daemon never wrote."""
        fold.apply(self, kind, data, seq)

    def forget(self, now_ms: int) -> list[str]:
        """Drop what expired; the ids of proposals that did."""
        self.grants.forget(now_ms)
        self.sessions.forget(now_ms)
        return self.proposals.forget(now_ms)
