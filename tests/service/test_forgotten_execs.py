"""An exec that is over, whose sandbox is forgotten sooner than its own end is told: who waits for a later entry may go
on before who waits for an earlier one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from immured.service.sandboxes.exec import Exec
from immured.service.sandboxes.execs import LiveExec
from immured.service.sandboxes.logs import Log


def test_its_log_stays_until_its_end_is_told() -> None:
    async def forgotten_too_soon() -> Log:
        one = Exec(1, "e1", "key", 0, "true", 0, kept=True)
        one.log = log = Log.make()
        sandbox: Any = SimpleNamespace(id="s1", execs={"e1": one})
        one.forget()
        assert log.totals == (0, 0)  # still to be read, for the entry of its end
        LiveExec(cast("Any", SimpleNamespace(clock=lambda: 1)), sandbox, one, detach=True).close(None)
        return log

    log = asyncio.run(forgotten_too_soon())
    assert (log.fd, log.event) == (-1, -1)
