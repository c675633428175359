"""One sandbox of a template, from nothing to an interpreter that waits. The daemon's own order, of nobody's key."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, cast

from immured.errors import Refused
from immured.identity.actor import Actor, Caller
from immured.identity.keyring import KeyRecord, Role
from immured.service import storage
from immured.service.arguments import RunArguments
from immured.service.context import Service
from immured.service.request import Request
from immured.service.sandboxes import execs
from immured.service.sandboxes.arguments import CreateArguments, ExecArguments
from immured.service.sandboxes.exec import Exec
from immured.service.sandboxes.lifecycle import failure_of, freeze, kill
from immured.service.sandboxes.sandbox import Restart, Sandbox
from immured.service.sandboxes.state import State
from immured.service.templates.read import READY, Template

__all__ = ["Warm", "make"]

_READY_S: Final = 60.0


class _Itself(Actor):
    """The daemon, as who gives an order."""

    __slots__ = ()

    def to_map(self) -> dict[str, object]:
        return {"daemon": self.record.id}


class _Order:
    """What a request is to whoever carries it out, of no connection and no nonce."""

    def __init__(self, service: Service, template: Template, tenant: str) -> None:
        record = KeyRecord(service.keys.current.public, "immured", Role.ADMIN, "1970-01-01T00:00:00Z")
        self.actor = _Itself(record, Caller(0), record.role, tenant=tenant)
        # The launcher opens no host path for connection 0.
        self.channel = SimpleNamespace(number=0)
        self.claim = SimpleNamespace(intent=None, outcome=None)
        self.acted = False
        self._template = template.name

    def to_map(self) -> dict[str, object]:
        """What entries say of it."""
        return {"template": self._template}


@dataclass(slots=True, eq=False)
class Warm:
    """One that waits, and stands still meanwhile: its wall time is whole for whoever takes it. `start`: where in its
    exec's log the output of whoever takes it begins."""

    sandbox: Sandbox
    exec: Exec
    start: int

    @property
    def usable(self) -> bool:
        """Whether it waits still."""
        return self.sandbox.state is State.READY and self.exec.live and sum(self._totals()) == self.start

    def _totals(self) -> tuple[int, int]:
        return (0, 0) if self.exec.log is None else self.exec.log.totals


async def make(service: Service, template: Template, tenant: str) -> Warm:
    """Raises ImmuredError where it cannot be; nothing of it is left then."""
    from immured.service.commands.sandbox import conceive

    order = cast("Request", _Order(service, template, tenant))
    arguments = CreateArguments(
        manifest=None,
        name=None,
        labels={},
        ttl_ms=service.state.config.sandboxes_max_ttl,
        limits=None,
        env={},
        cwd=None,
        files={},
        count=1,
        restart=Restart.END,
        snapshot=None,
    )
    granted = storage.grants(service, order.actor, template.manifest)
    service.manifests.inline.offer(template.manifest.digest, template.written)
    (birth,) = conceive(service, order, arguments, template.manifest, granted, kept_ready=True)
    sandbox = birth.sandbox
    birth.begin(alone=False)
    await birth.accepted()
    try:
        await birth.finish()
        if not sandbox.live:
            raise failure_of(sandbox)
        one = await _start(service, order, template, sandbox)
        start = await _until_ready(one)
        with sandbox.still("held ready"):
            await freeze(service, sandbox, on=True)
        return Warm(sandbox, one, start)
    except BaseException:
        kill(service, sandbox, "its template's program does not wait")
        raise


async def _start(service: Service, order: Request, template: Template, sandbox: Sandbox) -> Exec:
    run = RunArguments(
        argv=template.argv,
        manifest=None,
        env={},
        cwd=None,
        stdin=None,
        files={},
        collect=(),
        limits=None,
        stream=False,
        detach=True,
        fds=(),
    )
    order.descriptors = cast("Any", SimpleNamespace(fds=()))
    answer = await execs.begin(service, order, sandbox, ExecArguments(sandbox.id, run, None, b""))
    return sandbox.execs[str(answer.result["exec"])]


async def _until_ready(one: Exec) -> int:
    """The length of its log, once its last line says that it waits. Raises Refused `template_failed`."""
    log = one.log
    assert log is not None  # noqa: S101 - kept ones have a log
    with one.reading():
        said = asyncio.Event()
        who = object()
        log.listen(who, said.set)
        try:
            async with asyncio.timeout(_READY_S):
                while one.live:
                    said.clear()
                    out = b"".join(piece.data for piece in log.read(0, 1 << 20).pieces if piece.stream == "stdout")
                    if out.endswith(READY):
                        return sum(log.totals)
                    await said.wait()
        except TimeoutError:
            pass
        finally:
            log.forget(who)
        last = b"".join(piece.data for piece in log.read(0, 1 << 20).pieces)[-400:].decode(errors="replace").strip()
    raise Refused("template_failed", f"its program ended or does not wait: {last or 'it said nothing'}", "see its log")
