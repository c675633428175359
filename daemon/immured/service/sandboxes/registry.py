"""The sandboxes of this daemon: found by who may, listed, bounded. The launcher does what is to be done."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.abi import Clerk
from immured.service.sandboxes.clerks import Link
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.sandboxes.state import State
from immured.service.seen import seen
from immured.wire.strict import shown

if TYPE_CHECKING:
    from immured.identity.policy.warrant import Warrant
    from immured.service.sandboxes.port import SandboxPort

__all__ = ["KEPT_ENDED", "Sandboxes"]

_SEEING: Final = "sandbox.show"
KEPT_ENDED: Final = 1024
"""How many that are over stay listed; then the oldest goes."""


class Sandboxes:
    """By tenant and id, and by tenant, project and name. `most`: how many may live at a time."""

    def __init__(self, launcher: SandboxPort, most: int) -> None:
        self.most = most
        self._launcher = launcher
        self._by_id: dict[tuple[str, str], Sandbox] = {}
        self._by_name: dict[tuple[str, str, str], Sandbox] = {}
        self._over: deque[Sandbox] = deque()
        self._ordinal = 0
        self.live = 0
        """How many have a cell, or are about to."""

    def __iter__(self) -> Iterator[Sandbox]:
        """Every one, in the order in which they were created, over or not."""
        return iter(list(self._by_id.values()))

    def find(self, warrant: Warrant, word: str) -> Sandbox:
        """By id in the actor's tenant, or by name in its project; whose warrant reaches every tenant, by any id.

        Raises Refused `not_found`, for what the actor may not see as for none: whose it is is nobody else's business.
        `denied` and its like for what it may see, and not do this with.
        """
        actor = warrant.actor
        found = self._by_name.get((actor.tenant, actor.project, word)) or self._by_id.get((actor.tenant, word))
        if found is None and warrant.anywhere:
            found = next((one for one in self._by_id.values() if one.id == word), None)
        if found is not None and (warrant.covers(found.target) or warrant.holds(_SEEING, found.target)):
            warrant.check(found.target)
            return found
        raise Refused(
            "not_found",
            f"no sandbox of yours is called {shown(word)}",
            "`sandbox.list` shows those that there are",
            details={"sandbox": word[:64]},
        )

    def of(
        self,
        warrant: Warrant,
        *,
        tenant: str | None = None,
        project: str | None = None,
        labels: Mapping[str, str] | None = None,
        state: State | None = None,
    ) -> list[Sandbox]:
        """Those that the warrant covers, of that tenant, project and state and with all these labels, in the order in
        which they were created."""
        return [
            one
            for one in seen(warrant, self)
            if (tenant is None or one.tenant == tenant)
            and (project is None or one.project == project)
            and (state is None or one.state is state)
            and all(one.labels.get(name) == value for name, value in (labels or {}).items())
        ]

    def check_room(self, wanted: int) -> None:
        """Raises Refused `busy` where so many more may not live."""
        if self.live + wanted > self.most:
            raise Refused(
                "busy",
                f"{self.live} sandboxes are kept, and {self.most} is the bound",
                "remove some, or have the operator raise `[sandboxes] max`",
            )

    def check_name(self, tenant: str, project: str, name: str) -> None:
        """Raises Refused `name_taken` where one that is not over is called so in that project of the tenant's."""
        holder = self._by_name.get((tenant, project, name))
        if holder is not None and holder.live:
            raise Refused(
                "name_taken",
                f"a sandbox of this project is called {shown(name)}",
                "choose another name, or remove that one",
                details={"name": name},
            )

    def add(self, sandbox: Sandbox) -> None:
        """A new one, or one that is adopted."""
        self._ordinal += 1
        sandbox.ordinal = self._ordinal
        self._by_id[sandbox.tenant, sandbox.id] = sandbox
        if sandbox.name is not None:
            self._by_name[sandbox.tenant, sandbox.project, sandbox.name] = sandbox
        self.live += 1

    def give_name(self, sandbox: Sandbox, name: str) -> None:
        """One that had none. Raises Refused as `check_name`."""
        self.check_name(sandbox.tenant, sandbox.project, name)
        sandbox.name = name
        self._by_name[sandbox.tenant, sandbox.project, name] = sandbox

    def take_name(self, sandbox: Sandbox) -> None:
        """The inverse of `give_name`. Of one that has none, nothing."""
        self._unname(sandbox)
        sandbox.name = None

    def ended(self, sandbox: Sandbox) -> None:
        """It is over, and stays listed for a while. Its name stays its own until another takes it."""
        self.live -= 1
        self._over.append(sandbox)
        while len(self._over) > KEPT_ENDED:
            self.forget(self._over[0])

    def forget(self, sandbox: Sandbox) -> None:
        """One that is over is no longer listed. Twice is once."""
        if self._by_id.pop((sandbox.tenant, sandbox.id), None) is None:
            return
        self._unname(sandbox)
        self._over.remove(sandbox)
        for one in sandbox.execs.values():
            one.forget()

    def _unname(self, sandbox: Sandbox) -> None:
        place = (sandbox.tenant, sandbox.project, sandbox.name or "")
        if self._by_name.get(place) is sandbox:
            del self._by_name[place]

    async def clerk(self, sandbox: Sandbox, clerk: Clerk, connection: int) -> Link:
        """A clerk of that sandbox, for the caller behind `connection`. The receiver closes the link.

        Raises Refused `wrong_state` where the sandbox does not live, `busy`; LauncherLostError.
        """
        sandbox.require(State.READY, State.PAUSED)
        try:
            return Link(self._launcher.ask(sandbox.number, clerk, connection), sandbox.id)
        except LookupError:
            raise sandbox.ended_meanwhile() from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise Refused("busy", "the daemon is out of descriptors", "try again in a moment") from error
            raise
