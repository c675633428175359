"""What every command handler may use: the daemon's parts, made by `main` and shared by reference."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from immured.errors import Refused
from immured.host.facts import HostFacts
from immured.identity.authority import Authority
from immured.identity.quotas import Quota
from immured.identity.rates import RateLimits
from immured.identity.replay import ReplayRecord
from immured.isolation.abi import Cause
from immured.isolation.filesystem import Grants
from immured.isolation.launcher import Outcome
from immured.isolation.messages import Counts
from immured.ledger import Ledger
from immured.service.consents import Asked
from immured.service.daemon_keys import DaemonKeys, drop_former
from immured.service.decided import Decided
from immured.service.executables import Digests
from immured.service.manifest_register import Register
from immured.service.misbehaviour import DenialBound, Misbehaviour
from immured.service.proofs import Proofs
from immured.service.queries import Queries
from immured.service.registry import Registry
from immured.service.sandboxes.port import SandboxPort
from immured.service.sandboxes.registry import Sandboxes
from immured.service.shares import Shares
from immured.service.state import State
from immured.service.storage import Storage
from immured.service.streams import Feeds
from immured.wire.keys import PrivateKey

if TYPE_CHECKING:
    from immured.service.audit_health import AuditHealth
    from immured.service.exports import Exports
    from immured.service.manifest_store import ManifestStore
    from immured.service.metrics import Metrics
    from immured.service.retaining import Retaining
    from immured.service.templates.pool import Templates
    from immured.service.witnesses import Witnesses

__all__ = ["LauncherPort", "Service", "log", "now_ms"]

log = logging.getLogger("immured")
_DAY_S: Final = 86_400.0


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class LauncherPort(SandboxPort, Protocol):
    """What the service needs of `isolation.launcher.Launcher`."""

    @property
    def facts(self) -> HostFacts:
        """What the host gives."""

    def prepare(
        self,
        run: int,
        connection: int,
        plan: bytes,
        fds: Sequence[int],
        *,
        ours: Sequence[int] = (),
        log: int | None = None,
    ) -> Awaitable[Outcome]:
        """Send a plan, for a cell that waits for `go`; how the run ends. `ours`: which are the broker's own pipes;
        `log`: a learning run's."""

    def go(self, run: int) -> None:
        """The intent is durable."""

    def kill(self, run: int, cause: Cause = ...) -> None:
        """End a run."""

    def counts(self) -> Awaitable[Counts]:
        """How many payloads the launcher let go."""


@dataclass(slots=True)
class Service:
    """The daemon's parts. `audiences` are the names that a command may be addressed to."""

    state: State
    authority: Authority
    ledger: Ledger
    launcher: LauncherPort
    registry: Registry
    replay: ReplayRecord
    boot: bytes
    audiences: frozenset[str]
    keys: DaemonKeys
    register: Register = field(default_factory=Register)
    """What the ledger said of manifests at the start."""
    exports: Exports | None = None
    retaining: Retaining | None = None
    """The ledger's copies; None for a service that was put together without any."""
    witnesses: Witnesses | None = None
    """Who cosigns its checkpoints; None likewise."""
    health: AuditHealth | None = None
    """Whether its record is fit to be relied on; None likewise."""
    grants: Grants = field(default_factory=Grants)
    feeds: Feeds = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked)
    decided: Decided = field(default_factory=Decided)
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    digests: Digests = field(default_factory=Digests)
    denials: DenialBound = field(default_factory=DenialBound)
    clock: Callable[[], int] = now_ms
    sandboxes: Sandboxes = field(init=False)
    volume_means: str = ""
    """By what the launcher can bound a new volume: `host.quota.volume_means`."""
    storage: Storage = field(init=False)
    shares: Shares = field(init=False)
    rates: RateLimits = field(init=False)
    templates: Templates = field(init=False)
    manifests: ManifestStore = field(init=False)
    proofs: Proofs = field(init=False)
    queries: Queries = field(init=False)
    metrics: Metrics = field(init=False)
    started_ms: int = field(default_factory=now_ms)
    stopping: bool = False
    at_work: int = 0
    """Commands that are on their way to an entry."""
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Whose turn it is to change who may do what."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """What goes on without a command that waits for it."""

    def __post_init__(self) -> None:
        self.sandboxes = Sandboxes(self.launcher, self.state.config.sandboxes_max)
        from immured.service.manifest_store import ManifestStore
        from immured.service.metrics import Metrics
        from immured.service.templates.pool import Templates

        self.manifests = ManifestStore(self, self.register)
        self.metrics = Metrics(self)
        self.proofs = Proofs(self.ledger, self.state.paths.ledger)
        self.queries = Queries(self.state.paths.ledger)
        self.templates = Templates(self, self.state.config.templates)
        self.storage = Storage(self.state.paths, self.state.config, self.volume_means)
        self.shares = Shares(self._quota, processors=self.launcher.facts.cpus)
        self.rates = RateLimits(lambda: self.authority.policy.rates)

    def _quota(self, tenant: str) -> Quota | None:
        return self.authority.policy.quota(tenant)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something go on by itself; what fails in it is logged."""
        _ = self.task(work)

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """As `spawn`, for who wants to know when it is over."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task failed", exc_info=error)

    def rekey(self, new: PrivateKey, old: PrivateKey, until_ms: int) -> None:
        """The daemon signs with `new` from now on, and until then with `old` too."""
        self.keys.take(new, old, until_ms)
        self.audiences |= {new.id}
        self.end_overlap()

    def end_overlap(self) -> None:
        """The former key signs no more: now, if it is time, else then."""
        former = self.keys.former
        if former is None:
            return
        left_ms = self.keys.until_ms - self.clock()
        if left_ms > 0:
            # Looked at again at least once a day: the clock may be set meanwhile.
            asyncio.get_running_loop().call_later(min(left_ms / 1000, _DAY_S), self.end_overlap)
            return
        self.keys.take(self.keys.current)
        self.audiences -= {former.id}
        try:
            drop_former(self.state.paths)
        except OSError:
            log.exception("keys/daemon.former.pem was not removed")

    def check_cells(self, wanted: int) -> None:
        """Whether so many more cells can be: runs and sandboxes take a range of ids each. Raises Refused `busy`."""
        taken, there = len(self.registry) + self.sandboxes.live, self.launcher.facts.slot_count
        if taken + wanted > there:
            raise Refused(
                "busy",
                f"{taken} runs and sandboxes live, and there are host ids for {there}",
                "end some, or have the operator raise `[launcher] slot_count`",
            )

    @property
    def alone(self) -> bool:
        """Whether one command is at work and nobody beside it: then a sync may as well be waited for."""
        return self.at_work <= 1 and len(self.registry) <= 1

    @property
    def actor(self) -> Mapping[str, object]:
        """`actor` of the entries that the daemon writes of its own accord."""
        return {"daemon": self.keys.id}
