"""One live daemon under the shipped policy, two tenants, and a key of every kind for every role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from immured.client.throwaway import ThrowawayDaemon
from immured.service.policies import shipped_policy
from immured.wire.keys import PrivateKey
from tests.matrix.raw import Order, Raw, result
from tests.matrix.table import MINE, OTHERS, letters

__all__ = ["KINDS", "ROLES", "Stage", "staged"]

ROLES: Final = tuple(dict.fromkeys(role for _, role in letters()))
KINDS: Final = ("right", "wrong", "expired", "not-yet-valid", "revoked", "suspended", "unknown", "unbound")
FAR_MS: Final = 2**52
_BOUND: Final[Mapping[str, Mapping[str, Any]]] = {
    "expired": {"expires_ms": 1},
    "not-yet-valid": {"not_before_ms": FAR_MS},
    "unbound": {"uids": [54_321]},
}
POLICY: Final = shipped_policy().text + f'\n[tenants.{MINE}]\nprojects = ["web"]\n[tenants.{OTHERS}]\n'.encode()


@dataclass
class Stage:
    """`raw` is a connection of uid 0. `keys` are by role and kind, all of them bound to the tenant acme."""

    daemon: ThrowawayDaemon
    raw: Raw
    admin: PrivateKey
    keys: dict[tuple[str, str], PrivateKey] = field(default_factory=dict)
    forger: PrivateKey = field(default_factory=PrivateKey.generate)
    made: int = 0

    def must(self, key: PrivateKey, cmd: str, args: Mapping[str, object], **names: Any) -> Mapping[str, Any]:
        """The result of a command that is done."""
        return result(self.raw.one(key, cmd, args, **names))

    def all_done(self, orders: list[Order]) -> list[Mapping[str, Any]]:
        """The results of commands that are all done."""
        return [result(reply) for reply in self.raw.ask(orders)]

    def addition(self, role: str, tenant: str = MINE, **bound: Any) -> tuple[PrivateKey, Order]:
        """A new key, and the admin's command that lets it in."""
        key, name = PrivateKey.generate(), f"{role}-{self.made}"
        self.made += 1
        args = {"name": name, "public": key.public.raw, "role": role, "tenants": [tenant], **bound}
        return key, self.raw.order(self.admin, "key.add", args)

    def let_in(self, role: str, tenant: str = MINE, **bound: Any) -> PrivateKey:
        """A new key."""
        key, order = self.addition(role, tenant, **bound)
        self.all_done([order])
        return key

    def order(self, kind: str, role: str, cmd: str, args: Mapping[str, object], **names: Any) -> Order:
        """A command of that role's key of that kind."""
        forger = self.forger if kind == "wrong" else None
        return self.raw.order(self.keys[role, kind], cmd, args, forger=forger, **names)

    def populate(self) -> None:
        """Let everybody in, and put away whom it is to be."""
        orders = []
        for role in ROLES:
            for kind in KINDS:
                key, order = self.addition(role, **_BOUND.get(kind, {}))
                self.keys[role, kind] = key
                if kind not in ("wrong", "unknown"):
                    orders.append(order)
            self.keys[role, "wrong"] = self.keys[role, "right"]
        self.all_done(orders)
        self.all_done(
            [
                self.raw.order(self.admin, cmd, {"key": self.keys[role, kind].id})
                for role in ROLES
                for kind, cmd in (("revoked", "key.revoke"), ("suspended", "key.suspend"))
            ]
        )


@contextmanager
def staged() -> Iterator[Stage]:
    """A daemon that takes as many bad frames at a time as the matrix has: they are what a flood is made of."""
    daemon = ThrowawayDaemon()
    _allow_bad_frames(daemon.state / "config.toml")
    with daemon, Raw(daemon.socket) as raw:
        stage = Stage(daemon, raw, PrivateKey.from_pem(daemon.admin_key.read_bytes()))
        stage.must(stage.admin, "policy.set", {"policy": POLICY})
        stage.populate()
        yield stage


def _allow_bad_frames(config: Path) -> None:
    text = config.read_text()
    changed = text.replace("# bad_frames_per_uid = 32", "bad_frames_per_uid = 65536")
    assert changed != text
    config.write_text(changed)
