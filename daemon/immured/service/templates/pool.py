"""So many sandboxes of every template held ready. Each is taken once, by one caller, and another is made in its place
while there is little else to do."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from immured.errors import ImmuredError, Refused
from immured.service.context import Service, log
from immured.service.sandboxes.lifecycle import kill
from immured.service.templates.making import Warm, make
from immured.service.templates.read import Template
from immured.wire.strict import shown

__all__ = ["Templates"]

_IDLE_S: Final = 0.02
_PATIENCE_S: Final = 2.0
"""The host is rarely idle where the pool is needed most: after so long one is made all the same."""
_AFTER_FAILURE_S: Final = 30.0


class Templates:
    """The pools of one daemon. Nothing is made before `start`."""

    def __init__(self, service: Service, templates: Iterable[Template]) -> None:
        self._service = service
        self._templates = {one.name: one for one in templates}
        self._ready: dict[tuple[str, str], deque[Warm]] = {}
        self._wanted = asyncio.Event()
        self._failures: dict[str, str] = {}

    def start(self) -> None:
        """Hold them ready from now on."""
        if self._templates:
            self._service.spawn(self._fill())

    def stop(self) -> None:
        """No more are made: whoever waits to make one looks up now, and sees that the daemon is stopping."""
        self._wanted.set()

    def find(self, tenant: str, name: str) -> Template:
        """Raises Refused `unknown_template`, for another tenant's as for none."""
        found = self._templates.get(name)
        if found is None or tenant not in found.tenants:
            raise Refused(
                "unknown_template",
                f"no template {shown(name)} is held for your tenant",
                "`template.list` shows those that are",
                details={"template": name[:64]},
            )
        return found

    def of(self, tenant: str) -> list[Mapping[str, object]]:
        """What `template.list` shows."""
        return [
            {
                "template": one.name,
                "manifest": one.manifest.digest,
                "modules": list(one.modules),
                "warm": one.warm,
                "ready": len(self._usable(one.name, tenant)),
                **({"failure": self._failures[one.name]} if one.name in self._failures else {}),
            }
            for one in self._templates.values()
            if tenant in one.tenants
        ]

    async def take(self, template: Template, tenant: str) -> Warm:
        """One that nobody had: held ready, or where none is, made now. Raises ImmuredError."""
        ready = self._usable(template.name, tenant)
        self._wanted.set()
        return ready.popleft() if ready else await make(self._service, template, tenant)

    def put_back(self, template: Template, tenant: str, warm: Warm) -> None:
        """It was not taken after all: nothing was done with it."""
        self._usable(template.name, tenant).append(warm)

    def _usable(self, name: str, tenant: str) -> deque[Warm]:
        """Those that wait still. The others end: they are nobody's, and nobody else would end them."""
        kept: deque[Warm] = deque()
        for one in self._ready.get((name, tenant), ()):
            if one.usable:
                kept.append(one)
            else:
                kill(self._service, one.sandbox, "its template's program waits no more")
        self._ready[name, tenant] = kept
        return kept

    async def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        again: dict[str, float] = {}
        while not self._service.stopping:
            self._wanted.clear()
            for template in self._templates.values():
                if again.get(template.name, 0.0) <= loop.time() and not await self._fill_one(template):
                    again[template.name] = loop.time() + _AFTER_FAILURE_S
            await self._rest(_AFTER_FAILURE_S if again else None)

    async def _rest(self, seconds: float | None) -> None:
        """Until one is wanted, so long at the most. Not at all where the daemon stopped meanwhile."""
        if not self._service.stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wanted.wait()

    async def _fill_one(self, template: Template) -> bool:
        """Whether there are as many as there should be."""
        service = self._service
        for tenant in template.tenants:
            while len(self._usable(template.name, tenant)) < template.warm:
                await self._lull()
                if service.stopping:
                    return True
                try:
                    warm = await make(service, template, tenant)
                except ImmuredError as error:
                    if self._failures.get(template.name) != error.message:
                        log.error("the template %s: %s", template.name, error.message)
                    self._failures[template.name] = error.message
                    return False
                self._failures.pop(template.name, None)
                self._ready[template.name, tenant].append(warm)
                service.spawn(self._watch(warm))
        return True

    async def _watch(self, warm: Warm) -> None:
        """One that ends while it waits is missed."""
        await warm.exec.over.wait()
        self._wanted.set()

    async def _lull(self) -> None:
        """Until nothing else is at work, or for a while."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while (len(self._service.registry) or self._service.at_work) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_IDLE_S)
