"""`image.list`: the roots that the operator unpacked."""

from __future__ import annotations

import asyncio
from typing import Final

from immured.errors import Refused
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.request import Answer, Request
from immured.wire.strict import take

__all__ = ["COMMANDS"]


async def list_images(service: Service, request: Request) -> Answer:
    """args: none. result: `images`, a row each by digest (docs/storage.md)."""
    take(request.command.args, "args", ())
    try:
        rows = await asyncio.to_thread(service.storage.images.list)
    except (OSError, ValueError) as error:
        raise Refused("storage_failed", f"the images: {error}", "import the image that it names again") from error
    return Answer({"images": rows})


COMMANDS: Final = (CommandSpec("image.list", "image.list", list_images),)
