"""Histories of a daemon, entry by entry, as a chance has them: whatever a start learns from the ledger is in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from immured.identity.grants import Grant
from immured.identity.keyring import KeyRecord, Role
from immured.identity.proposals import Approval, Proposal
from immured.identity.sessions import Session
from immured.service.daemon_keys import Rotation
from immured.wire.keys import PrivateKey

Written = tuple[str, Mapping[str, object], Mapping[str, object]]

START_MS = 1_800_000_000_000
DAY = 24 * 3600 * 1000
_DAEMON = {"daemon": "ed25519:" + "d" * 32}
_KEYS = [PrivateKey(bytes([number]) * 32) for number in range(1, 9)]
_WHO = [key.id for key in _KEYS[:3]]


class History:
    """The next entry, over and over; `now_ms` is its clock. What is begun may end, or not."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now_ms = START_MS
        self._number = 0
        self._open: dict[str, list[int]] = {}
        self._grants: list[str] = []
        self._proposals: list[str] = []
        self._sessions: list[str] = []
        self._records: dict[str, KeyRecord] = {}
        self._manifests: list[str] = []
        self._kinds: list[Callable[[int], Written | None]] = [
            *(self._run, self._run, self._run_over, self._run_over, self._exec, self._exec_over),
            *(self._command, self._command_over, self._at_once, self._denied),
            *(self._batch, self._batch_more, self._batch_progress, self._batch_over),
            *(self._sandbox, self._sandbox_ready, self._sandbox_over),
            *(self._key_added, self._key_changed, self._key_rotated, self._barred),
            *(self._grant, self._grant_revoked, self._proposal, self._approved, self._withdrawn),
            *(self._session, self._session_closed, self._consent, self._wording),
            *(self._manifest, self._manifest_revoked, self._manifest_refused),
            *(self._policy, self._daemon_key, self._export, self._witness, self._audit, self._beside),
        ]

    def next(self, seq: int) -> Written:
        """The entry that is to stand at `seq`. Sometimes a while goes by before."""
        short, long = [1, 20, 3_000, 20_000], [61_000, 301_000, 3_600_000, DAY // 2, 2 * DAY]
        self.now_ms += self.chance.choice(short if self.chance.random() < 0.85 else long)
        while (made := self.chance.choice(self._kinds)(seq)) is None:
            pass
        return made

    # --- who, and by what

    def _new(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}{self._number}"

    def _actor(self) -> dict[str, object]:
        actor: dict[str, object] = {"key": self.chance.choice(_WHO), "name": "ci", "uid": 1000}
        if self._sessions and self.chance.random() < 0.4:
            actor["session"] = self.chance.choice(self._sessions)
        if self.chance.random() < 0.2:
            actor["root"] = self.chance.choice(_WHO)
        return actor

    def _order(self, cmd: str = "run") -> dict[str, object]:
        self._number += 1
        order: dict[str, object] = {
            "cmd": cmd,
            "nonce": f"{self._number:032x}",
            "payload": f"{self._number:064x}",
            "iat": self.now_ms,
            "exp": self.now_ms + self.chance.choice([1_000, 30_000, 300_000]),
        }
        if self._grants and self.chance.random() < 0.2:
            order["grant"] = self._grants.pop(self.chance.randrange(len(self._grants)))
        if self._proposals and self.chance.random() < 0.2:
            order["proposal"] = self._proposals.pop(self.chance.randrange(len(self._proposals)))
        if self.chance.random() < 0.2:
            ends = self.now_ms + self.chance.choice([1_000, 600_000, 5 * DAY])
            order["counted"] = {f"sha256:{self.chance.randrange(3):064x}": ends}
        return order

    def _begun(self, kind: str, seq: int) -> None:
        self._open.setdefault(kind, []).append(seq)

    def _ended(self, kind: str) -> int | None:
        begun = self._open.get(kind)
        return begun.pop(self.chance.randrange(len(begun))) if begun else None

    def _some(self, kind: str) -> int | None:
        begun = self._open.get(kind)
        return self.chance.choice(begun) if begun else None

    # --- intents and outcomes

    def _intent(self, type_: str, seq: int, **more: object) -> Written:
        kind = type_.partition(".")[0]
        self._begun(kind, seq)
        return type_, self._actor(), {**self._order(), kind: self._new("x"), **more}

    def _over(self, kind: str, *types: str) -> Written | None:
        intent = self._ended(kind)
        return None if intent is None else (self.chance.choice(types), _DAEMON, {"intent": intent})

    def _run(self, seq: int) -> Written:
        return self._intent("run.accepted", seq, sandbox=self._new("s"))

    def _run_over(self, _: int) -> Written | None:
        return self._over("run", "run.finished", "run.finished", "run.lost")

    def _exec(self, seq: int) -> Written:
        return self._intent("exec.accepted", seq, sandbox="s1", number="7")

    def _exec_over(self, _: int) -> Written | None:
        return self._over("exec", "exec.finished", "exec.lost")

    def _command(self, seq: int) -> Written:
        return self._intent("command.accepted", seq, path="/x")

    def _command_over(self, _: int) -> Written | None:
        return self._over("command", "command.done", "command.lost", "sandbox.changed")

    def _at_once(self, _: int) -> Written:
        type_ = self.chance.choice(["command.done", "preflight.done", "ledger.key_rotated"])
        return type_, self._actor(), self._order("kill")

    def _denied(self, _: int) -> Written:
        order = self._order()
        for name in ("grant", "proposal"):  # it used none of them up: they are there for the next
            if name in order:
                (self._grants if name == "grant" else self._proposals).append(str(order[name]))
        if self.chance.random() < 0.3:
            order.pop("exp")
        return "command.denied", self._actor(), {**order, "code": "denied", "message": "no"}

    def _batch(self, seq: int) -> Written:
        return self._intent("batch.accepted", seq, batch=self._new("b"), runs=5)

    def _batch_more(self, _: int) -> Written | None:
        intent = self._some("batch")
        return None if intent is None else ("batch.accepted", self._actor(), {"intent": intent, "from": 2})

    def _batch_progress(self, _: int) -> Written | None:
        intent = self._some("batch")
        outcomes = [{"run": self.chance.randrange(5)}]
        return None if intent is None else ("batch.progress", _DAEMON, {"intent": intent, "outcomes": outcomes})

    def _batch_over(self, _: int) -> Written | None:
        return self._over("batch", "batch.finished", "batch.lost")

    def _sandbox(self, seq: int) -> Written:
        return self._intent("sandbox.created", seq, number="9", ttl_ms=1)

    def _sandbox_ready(self, _: int) -> Written | None:
        intent = self._some("sandbox")
        return None if intent is None else ("sandbox.ready", _DAEMON, {"intent": intent})

    def _sandbox_over(self, _: int) -> Written | None:
        return self._over("sandbox", "sandbox.ended", "sandbox.lost")

    # --- who may do what

    def _key_added(self, _: int) -> Written | None:
        free = [key for key in _KEYS[3:] if key.id not in self._records]
        if not free:
            return None
        record = KeyRecord(free[0].public, self._new("k"), Role.RUNNER, "2026-01-02T03:04:05Z")
        self._records[record.id] = record
        return "key.added", self._actor(), {**self._order(), "record": record.to_map()}

    def _key_changed(self, _: int) -> Written | None:
        if not self._records:
            return None
        record = replace(self.chance.choice(list(self._records.values())), note=self._new("l"))
        self._records[record.id] = record
        return "key.changed", self._actor(), {**self._order(), "key": record.id, "record": record.to_map()}

    def _key_rotated(self, _: int) -> Written | None:
        free = [key for key in _KEYS[3:] if key.id not in self._records]
        held = [one for one in self._records.values() if one.successor is None]
        if not free or not held:
            return None
        old = self.chance.choice(held)
        new = replace(old, public=free[0].public, predecessors=(old.id, *old.predecessors))
        self._records |= {new.id: new, old.id: replace(old, successor=new.id)}
        record, former = new.to_map(), self._records[old.id].to_map()
        return "key.rotated", self._actor(), {**self._order(), "key": old.id, "record": record, "old": former}

    def _barred(self, _: int) -> Written:
        issuer = {"issuer": self.chance.choice(_WHO)} if self.chance.random() < 0.5 else {}
        return "key.barred", self._actor(), {**self._order(), "key": self._new("barred"), **issuer}

    def _grant(self, _: int) -> Written:
        name, ends = self._new("g"), self.now_ms + self.chance.choice([1_000, 3_600_000, 3 * DAY])
        grant = Grant(name, _WHO[0], "run", "default", None, None, ends, (_WHO[1],), "r")
        self._grants.append(name)
        return "grant.issued", self._actor(), {**self._order(), "record": grant.to_map()}

    def _grant_revoked(self, _: int) -> Written | None:
        if not self._grants:
            return None
        revoked = self._grants.pop()
        return "grant.revoked", self._actor(), {**self._order(), "revoked": revoked}

    def _proposal(self, _: int) -> Written:
        name, ends = self._new("p"), self.now_ms + self.chance.choice([1_000, 3_600_000, 3 * DAY])
        digest = bytes([self._number % 251]) * 32
        proposal = Proposal(name, "run", "default", "default", digest, _WHO[0], (_WHO[0],), "r", self.now_ms, ends)
        self._proposals.append(name)
        return "proposal.created", self._actor(), {**self._order(), "record": proposal.to_map()}

    def _approved(self, _: int) -> Written | None:
        if not self._proposals:
            return None
        record, name = Approval(self.chance.choice(_WHO), "admin", self.now_ms).to_map(), self._proposals[-1]
        approved = {"approved": name, "digest": "", "record": record}
        return "proposal.approved", self._actor(), {**self._order("proposal.approve"), **approved}

    def _withdrawn(self, _: int) -> Written | None:
        if not self._proposals:
            return None
        withdrawn = self._proposals.pop(0)
        return "proposal.withdrawn", self._actor(), {**self._order(), "withdrawn": withdrawn}

    def _session(self, _: int) -> Written:
        name, ends = self._new("i"), self.now_ms + self.chance.choice([60_000, 3_600_000, 10 * DAY])
        session = Session(name, (_WHO[0],), "default", "default", self.now_ms, ends, 9 * DAY, self.now_ms)
        actor = self._actor()
        self._sessions.append(name)
        return "session.opened", actor, {**self._order(), "record": session.to_map()}

    def _session_closed(self, _: int) -> Written | None:
        if not self._sessions:
            return None
        closed = self._sessions.pop(self.chance.randrange(len(self._sessions)))
        return "session.closed", self._actor(), {**self._order(), "closed": closed, "at_ms": self.now_ms}

    def _consent(self, _: int) -> Written:
        type_ = self.chance.choice(["consent.accepted", "consent.accepted", "consent.declined"])
        data = {
            "manifest": f"sha256:{self.chance.randrange(2):064x}",
            "name": "m",
            "text_id": "t",
            "language": "en",
            "text": "d",
            "at_ms": self.now_ms,
            "expires_ms": self.now_ms + self.chance.choice([60_000, DAY]),
        }
        return type_, self._actor(), {**self._order(), **data}

    def _wording(self, _: int) -> Written:
        return "consent.text", _DAEMON, {"text": self._new("text"), "text_id": "t", "language": "en", "words": {}}

    # --- what is so

    def _manifest(self, _: int) -> Written:
        if self._manifests and self.chance.random() < 0.4:
            digest = self.chance.choice(self._manifests)
        else:
            digest = f"sha256:{self._number:064x}"
            self._manifests.append(digest)
        data = {
            "digest": digest,
            "name": self._new("m"),
            "class": "c",
            "tenants": ["default"],
            "personas": [],
            "bytes": 10,
            "signatures": "s",
            "signers": [{"key": _WHO[0], "name": "ci", "signed_ms": 1, "expires_ms": 2}],
            "at_ms": self.now_ms,
        }
        return "manifest.loaded", self._actor(), {**self._order(), **data}

    def _manifest_revoked(self, _: int) -> Written | None:
        if not self._manifests:
            return None
        digest = self._manifests.pop()
        data = {"digest": digest, "reason": self._new("r"), "at_ms": self.now_ms}
        return "manifest.revoked", self._actor(), {**self._order(), **data}

    def _manifest_refused(self, _: int) -> Written:
        data = {"digest": f"sha256:{self._number:064x}", "stage": "parse", "code": "c", "message": "m"}
        order = self._order()
        for name in ("grant", "proposal"):
            if name in order:
                (self._grants if name == "grant" else self._proposals).append(str(order[name]))
        return "manifest.refused", self._actor(), {**order, **data}

    def _policy(self, _: int) -> Written:
        return "policy.changed", self._actor(), {**self._order(), "digest": self._new("policy"), "bytes": 1}

    def _daemon_key(self, _: int) -> Written:
        old, new = self.chance.sample(_KEYS, 2)
        turned = Rotation(new.public, old.public, self.now_ms + DAY)
        return "daemon.key_rotated", self._actor(), {**self._order(), **turned.to_map(new, old)}

    def _export(self, _: int) -> Written:
        type_ = self.chance.choice(["export.began", "export.failed", "export.recovered"])
        return type_, _DAEMON, {"destination": self.chance.choice(["/a", "/b"])}

    def _witness(self, _: int) -> Written:
        type_ = self.chance.choice(["witness.failed", "witness.refused", "witness.recovered"])
        return type_, _DAEMON, {"witness": self.chance.choice(["w1", "w2"]), "code": self._new("code")}

    def _audit(self, _: int) -> Written:
        type_ = self.chance.choice(["audit.unhealthy", "audit.recovered"])
        return type_, _DAEMON, {"part": self.chance.choice(["export", "clock"])}

    def _beside(self, _: int) -> Written:
        """What nobody learns anything from; but somebody was there."""
        return self.chance.choice(["daemon.started", "lease.granted"]), self._actor(), {"version": "1"}
