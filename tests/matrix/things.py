"""Real things of every kind for every role: its own, one that another key of its tenant made, another tenant's, and of
keys the host's. Each role has its own, so that who may end one ends nobody else's.

Most are over before they are asked for (a sandbox has ended, a key was revoked): a command that the policy lets through
to one is refused for that, or does what harms nobody. Runs live, and are ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from immured.manifest.signature import show_signatures, sign
from immured.wire.keys import PrivateKey
from tests.matrix.raw import Order, Raw
from tests.matrix.stage import ROLES, Stage
from tests.matrix.table import MINE, OTHERS
from tests.patience import UNHURRIED, until

__all__ = ["ABSENT", "MANIFEST", "Cast", "cast"]

MAKER: Final = "tenant-admin"
"""The role under which things are made; whose they are has the role in question afterwards."""
MANIFEST: Final = {"schema": 1, "filesystem": {"tmpfs": ["/work"]}}
ABSENT: Final[Mapping[str, str]] = {
    "sandbox": "s" + "0" * 19 + "1",
    "run": "s" + "0" * 19 + "1",
    "volume": "no-such-volume",
    "snapshot": "no-such-snapshot",
    "key": "ed25519:" + "0" * 32,
    "grant": "grant-" + "0" * 16,
    "proposal": "proposal-" + "0" * 16,
    "session": "session-" + "0" * 16,
    "manifest": "sha256:" + "0" * 64,
}
"""Ids and names that nothing has."""

Made = Mapping[str, Any]


@dataclass
class Cast:
    """`keys` are by role; `things` by kind, role and whose they are; `execs` by their sandbox."""

    stage: Stage
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    things: dict[tuple[str, str, str], str] = field(default_factory=dict)
    execs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mate, self.stranger = self.stage.let_in(MAKER), self.stage.let_in(MAKER, OTHERS)
        self.keys = {role: self.stage.let_in(MAKER) for role in ROLES}
        self._revoke_keys()
        self._end_sandboxes()
        self._place(
            "volume", "volume.create", lambda name, _: {"name": name, "bytes": 1 << 24}, lambda one: one["name"]
        )
        self._place("session", "session.open", lambda name, _: {"note": name}, lambda one: one["session"])
        self._place(
            "proposal",
            "proposal.create",
            lambda name, _: {"cmd": "plan", "args": {}, "reason": name},
            lambda one: one["proposal"],
        )
        self._place("grant", "grant.issue", self._grant, lambda one: one["grant"])
        self._load_manifests()

    def owner(self, role: str, whose: str) -> PrivateKey:
        """Whose thing it is."""
        return {"own": self.keys[role], "mate": self.mate, "stranger": self.stranger}[whose]

    def assign_roles(self) -> None:
        """From here on each key has the role that it is called by."""
        raw, admin = self.stage.raw, self.stage.admin
        bound = [raw.order(admin, "key.bind", {"key": key.id, "role": role}) for role, key in self.keys.items()]
        self.stage.all_done(bound)

    def start_runs(self, connection: Raw) -> None:
        """They end with that connection. Each is known by how long it would sleep."""
        sleeps: dict[str, tuple[str, str]] = {}
        for at, (role, whose) in enumerate((role, whose) for role in ROLES for whose in ("own", "mate", "stranger")):
            sleeps[f"{600 + at}"] = role, whose
            args = {"argv": ["/bin/sleep", f"{600 + at}"], "manifest": UNHURRIED}
            connection.send(connection.order(self.owner(role, whose), "run", args))
        until(lambda: len(self._live()) == len(sleeps))
        for row in self._live():
            role, whose = sleeps[row["command"].split()[-1]]
            self.things["run", role, whose] = row["sandbox"]

    def _live(self) -> list[dict[str, Any]]:
        found = self.stage.must(self.stage.admin, "status", {})["runs"]
        return [row for row in found if row["command"].startswith("/bin/sleep ") and row["state"] == "running"]

    def _place(
        self, kind: str, cmd: str, args: Callable[[str, str], Made], name: Callable[[Made], str]
    ) -> list[tuple[str, PrivateKey]]:
        """One of a kind for each role and of each owner; `name` is what the answer calls it."""
        places = [(role, whose) for role in ROLES for whose in ("own", "mate", "stranger")]
        owners = [self.owner(role, whose) for role, whose in places]
        givers = [self.stage.admin] * len(places) if kind == "grant" else owners
        orders: list[Order] = []
        for (role, whose), owner, giver in zip(places, owners, givers, strict=True):
            orders.append(self.stage.raw.order(giver, cmd, args(f"{role}-{whose}", owner.id)))
        names = [name(one) for one in self.stage.all_done(orders)]
        self.things |= {(kind, *place): one for place, one in zip(places, names, strict=True)}
        return list(zip(names, owners, strict=True))

    def _grant(self, name: str, key: str) -> Made:
        tenant = OTHERS if name.endswith("stranger") else MINE
        return {"key": key, "cmd": "plan", "tenant": tenant, "ttl_ms": 600_000, "reason": name}

    def _load_manifests(self) -> None:
        """One of each owner's, for his tenant and signed by himself."""
        orders, places, now = [], [], time.time_ns() // 1_000_000
        for role in ROLES:
            for whose in ("own", "mate", "stranger"):
                owner, tenant = self.owner(role, whose), OTHERS if whose == "stranger" else MINE
                text = f'schema = 1\nname = "{role}-{whose}"\ntenants = ["{tenant}"]\n'.encode()
                signed = show_signatures([sign(owner, text, now, now + 3_600_000)])
                orders.append(
                    self.stage.raw.order(owner, "manifest.load", {"manifest": text, "signatures": signed.encode()})
                )
                places.append(("manifest", role, whose))
        digests = [one["digest"] for one in self.stage.all_done(orders)]
        self.things |= dict(zip(places, digests, strict=True))

    def _revoke_keys(self) -> None:
        """Revoked ones. One's own is the key that one took the place of."""
        stage = self.stage
        gone = {
            "mate": stage.let_in("worker").id,
            "stranger": stage.let_in("worker", OTHERS).id,
            "host": stage.let_in("admin").id,
        }
        for role in ROLES:
            before, self.keys[role] = self.keys[role], PrivateKey.generate()
            rotation = {"key": before.id, "public": self.keys[role].public.raw, "overlap_ms": 0}
            stage.must(before, "key.rotate", rotation)
            self.things |= {("key", role, whose): key for whose, key in gone.items()}
            self.things["key", role, "own"] = before.id
        over = [*gone.values(), *(self.things["key", role, "own"] for role in ROLES)]
        stage.all_done([stage.raw.order(stage.admin, "key.revoke", {"key": key}) for key in over])

    def _end_sandboxes(self) -> None:
        """Each has an exec that is over, with a log, and a snapshot; then they are ended."""
        stage, raw = self.stage, self.stage.raw
        made = self._place(
            "sandbox", "sandbox.create", lambda *_: {"manifest": MANIFEST}, lambda one: one["sandboxes"][0]["sandbox"]
        )
        execs = stage.all_done(
            [
                raw.order(owner, "sandbox.exec", {"sandbox": name, "argv": ["/bin/true"], "detach": True})
                for name, owner in made
            ]
        )
        self.execs = {name: one["exec"] for (name, _), one in zip(made, execs, strict=True)}
        for (kind, role, whose), name in list(self.things.items()):
            if kind == "sandbox":
                saved = {"sandbox": name, "name": f"{role}-{whose}"}
                stage.must(self.owner(role, whose), "snapshot.save", saved)
                self.things["snapshot", role, whose] = saved["name"]
        stage.all_done([raw.order(owner, "sandbox.kill", {"sandbox": name}) for name, owner in made])


@contextmanager
def cast(stage: Stage) -> Iterator[Cast]:
    """All of it made, everybody in his role."""
    made = Cast(stage)
    with Raw(stage.daemon.socket) as connection:
        made.start_runs(connection)
        made.assign_roles()
        yield made
