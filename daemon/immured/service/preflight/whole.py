"""All checks, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.identity.policy.warrant import HOST, Target
from immured.service.preflight import asked, audit
from immured.service.preflight.rows import CHECKS, Row, worst
from immured.service.preflight.witnesses import witnesses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from immured.service.context import Service
    from immured.service.preflight.subject import Subject
    from immured.service.request import Request
    from immured.wire.messages import Receipt

__all__ = ["look"]


async def look(service: Service, request: Request, subject: Subject) -> tuple[list[Row], Receipt | None]:
    """Every row, and the receipt of the entry that says so; None: the ledger does not take it, which is a row."""
    warrant = request.warrant
    everything = warrant.holds("preflight", Target(HOST, "", ()))
    rows = [
        *asked.persona(warrant, subject),
        *asked.signature(service, subject),
        *asked.schema(subject),
        *asked.capabilities(subject),
        *asked.command(subject),
        *asked.secrets(subject),
        *asked.consent(service, warrant, subject),
        *asked.host(service, warrant, subject),
        *audit.space(service),
    ]
    rows += await audit.exports(service, everything=everything)
    rows += await witnesses(service, everything=everything)
    data: dict[str, object] = {"manifest": subject.digest, "verdict": worst(rows), "verdicts": _verdicts(rows)}
    row, receipt = await audit.append(service, request, data)
    rows.append(row)
    return sorted(rows, key=lambda one: CHECKS.index(one.check)), receipt


def _verdicts(rows: Iterable[Row]) -> dict[str, str]:
    """The worst of each check."""
    by_check: dict[str, list[Row]] = {}
    for row in rows:
        by_check.setdefault(row.check, []).append(row)
    return {check: worst(found) for check, found in by_check.items()}
