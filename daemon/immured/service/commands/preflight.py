"""`preflight`: whether a run would be let in, and held by what its manifest asks for. Nothing runs."""

from __future__ import annotations

from typing import Final

from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.preflight.rows import worst
from immured.service.preflight.subject import find_subject
from immured.service.preflight.whole import look
from immured.service.request import Answer, Request

__all__ = ["COMMANDS"]


async def preflight(service: Service, request: Request) -> Answer:
    """args: `manifest` (a digest, a map; default the default's), or `raw` and `signatures` of a file; `argv`,
    `parameters`. result: `manifest` (digest), `name`, `class`, `entry` (that loaded it), `verdict`, `rows`."""
    subject = await find_subject(service, request)
    rows, receipt = await look(service, request, subject)
    said: dict[str, object] = {
        "manifest": subject.digest,
        "verdict": worst(rows),
        "rows": [row.to_map() for row in rows],
    }
    if subject.manifest is not None:
        said |= {"name": subject.manifest.name, "class": subject.manifest.class_}
    if subject.loaded is not None and subject.loaded.seq is not None:
        said["entry"] = subject.loaded.seq
    return Answer(said, receipt)


COMMANDS: Final = (CommandSpec("preflight", "preflight", preflight),)
