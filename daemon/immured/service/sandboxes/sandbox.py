"""One sandbox as the broker knows it: whose it is, what it was made of, how far it has come. No I/O."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from immured.errors import Refused
from immured.identity.actor import DEFAULT
from immured.identity.policy.warrant import Target
from immured.service.sandboxes.state import LIVE, MOVES, OVER, State

if TYPE_CHECKING:
    from immured.identity.quotas import Lease
    from immured.manifest.schema import Manifest
    from immured.service.sandboxes.exec import Exec
    from immured.service.sandboxes.record import Record
    from immured.wire.messages import Receipt

__all__ = ["Restart", "Sandbox", "new_id"]


def new_id() -> str:
    """`s` and 20 hex digits, as a run's: both name a directory of cgroups."""
    return "s" + secrets.token_hex(10)


class Restart(StrEnum):
    """What becomes of a sandbox whose daemon died."""

    ADOPT = "adopt"
    END = "end"


@dataclass(slots=True, eq=False)
class Sandbox:
    """A sandbox. `number` is the launcher's name for it, `id` the ledger's, `name` its owner's (unique in the project).
    `owners` are the keys whose own it is (`Actor.owners`), `key_id` the first of them.

    `manifest` is the effective one, with the limits it was created with. Times are milliseconds since the epoch;
    `expires_ms` is when its time to live is over. `intent` is the index of its sandbox.created entry.
    """

    number: int
    id: str
    tenant: str
    key_id: str
    uid: int
    manifest: Manifest
    plan: str
    enforcement: Mapping[str, str]
    created_ms: int
    expires_ms: int
    name: str | None = None
    project: str = DEFAULT
    owners: tuple[str, ...] = ()
    persona: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    cwd: bytes | None = None
    snapshot: str | None = None
    """What it began with."""
    manifest_entry: int | None = None
    """The index of the entry that has its manifest; None: it is built in."""
    restart: Restart = Restart.ADOPT
    adopted: bool = False
    ordinal: int = 0
    """Its place in listings."""
    intent: int | None = None
    state: State = State.CREATING
    frozen: bool = False
    """Its processes stand still, whatever its state: a template's that waits is ready."""
    ended_ms: int | None = None
    ending: Mapping[str, object] = field(default_factory=dict)
    """How it ended: `cause`, `usage`, or `failure`; empty while it lives."""
    execs: dict[str, Exec] = field(default_factory=dict)
    """Those that live, and the last that do not, by id."""
    record: Record | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """It is ended or failed, and the ledger has been told."""
    reason: str | None = None
    """Why it was told to end."""
    outcome: Receipt | None = None
    """The entry of its end, once that is durable."""
    lease: Lease | None = None
    """What it takes of its tenant's quota."""
    on_over: list[Callable[[], None]] = field(default_factory=list)
    """What is given back when it is over."""
    stilled: str | None = None
    """By what its processes are being stopped, or started again, just now."""

    @property
    def live(self) -> bool:
        """Whether it has, or may have, a cell."""
        return self.state in LIVE

    @property
    def target(self) -> Target:
        """What a warrant is asked about."""
        return Target(self.tenant, self.project, self.owners, self.manifest.class_, self.labels)

    def require(self, *states: State) -> None:
        """Raises Refused `wrong_state` where it is in none of them."""
        if self.state not in states:
            wanted = " or ".join(states)
            remedy = {
                State.CREATING: "wait until it is ready",
                State.PAUSED: "resume it first (`sandbox.resume`)",
            }.get(self.state, "create another")
            raise Refused(
                "wrong_state",
                f"the sandbox {self.id} is {self.state}, not {wanted}",
                remedy,
                details={"sandbox": self.id, "state": self.state.value},
            )

    @contextlib.contextmanager
    def still(self, deed: str) -> Iterator[None]:
        """Whoever stops its processes, or starts them, does it alone: nothing may begin, go on or stop in between.

        `deed` as in "is being saved". Raises Refused `busy` where somebody does.
        """
        self.require_free()
        self.stilled = deed
        try:
            yield
        finally:
            self.stilled = None

    def require_free(self) -> None:
        """Raises Refused `busy` within `still`."""
        if self.stilled is not None:
            raise Refused(
                "busy",
                f"the sandbox {self.id} is being {self.stilled}",
                "try again in a moment",
                details={"sandbox": self.id},
            )

    def ended_meanwhile(self) -> Refused:
        """The launcher knows it no more: its end is on the way here, or was just told."""
        return Refused(
            "wrong_state", f"the sandbox {self.id} has ended", "create another", details={"sandbox": self.id}
        )

    def move(self, to: State) -> None:
        """Raises ValueError for a move that there is not: a mistake in this package."""
        if to not in MOVES[self.state]:
            raise ValueError(f"a sandbox does not go from {self.state} to {to}")
        self.state = to

    def to_map(self, *, brief: bool = False) -> dict[str, object]:
        """What its owner is shown; `brief`: in a list of many."""
        shown: dict[str, object] = {
            "sandbox": self.id,
            "state": self.state.value,
            "tenant": self.tenant,
            "key": self.key_id,
            "uid": self.uid,
            "manifest": self.manifest.digest,
            "created_ms": self.created_ms,
            "expires_ms": self.expires_ms,
            "restart": self.restart.value,
            "execs": sum(one.live for one in self.execs.values()),
        }
        if self.project != DEFAULT:
            shown["project"] = self.project
        if self.manifest.given and not brief:
            shown["parameters"] = dict(self.manifest.given)
        if not brief:
            shown["enforcement"] = dict(self.enforcement)
        if self.name is not None:
            shown["name"] = self.name
        if self.labels:
            shown["labels"] = dict(self.labels)
        if self.adopted:
            shown["adopted"] = True
        if self.state in OVER:
            shown |= {"ended_ms": self.ended_ms or 0, **self.ending}
        return shown
