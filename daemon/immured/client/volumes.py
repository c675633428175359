"""The tenant's volumes and the operator's images, for the SDK.

with Client() as client:
    Volumes(client).create("cargo", bytes=4 << 30)
    client.run(["make"], manifest={..., "filesystem": {"volumes": [{"name": "cargo", "target": "/cache"}]}})
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from immured.client.question import Question, reading, rows
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient
    from immured.client.sync import Client

__all__ = ["AsyncVolumes", "Image", "Volume", "Volumes", "images", "volume_create", "volume_list", "volume_remove"]


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume. `bytes`, `files`: its bounds. `means`: by what they hold, empty before it is first used. `used_*`:
    None where the means does not tell. `sandbox`: who has it now.
    """

    name: str
    bytes: int
    files: int
    created_ms: int
    means: str = ""
    used_bytes: int | None = None
    used_files: int | None = None
    sandbox: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One image: `digest` is what a manifest names, as `image:<digest>`. `name` is for people; `more` is what the image
    says of itself."""

    digest: str
    name: str
    more: Mapping[str, object]


def volume_create(name: str, *, bytes: int | None = None, files: int | None = None) -> Question[Volume]:
    """Make one."""
    wanted = {"name": name, "bytes": bytes, "files": files}
    args = {key: value for key, value in wanted.items() if value is not None}
    return Question("volume.create", args, lambda said: _volume(reading(said)))


def volume_list() -> Question[list[Volume]]:
    """The tenant's, by name."""
    return Question("volume.list", {}, lambda said: rows(said, "volumes", _volume))


def volume_remove(name: str) -> Question[Volume]:
    """Remove one that nobody uses."""
    return Question("volume.remove", {"name": name}, lambda said: _volume(reading(said)))


def images() -> Question[list[Image]]:
    """Those that the operator imported."""
    return Question("image.list", {}, lambda said: rows(said, "images", _image))


class Volumes:
    """A client's volumes. Every method raises Refusal as the daemon refuses."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str, *, bytes: int | None = None, files: int | None = None) -> Volume:
        """Make one, of at most `bytes` (1 GiB) and `files` (one to 16 KiB)."""
        return self._client.ask(volume_create(name, bytes=bytes, files=files))

    def list(self) -> list[Volume]:
        """The tenant's, by name."""
        return self._client.ask(volume_list())

    def remove(self, name: str) -> Volume:
        """Remove one that nobody uses, with all that lies in it."""
        return self._client.ask(volume_remove(name))


class AsyncVolumes:
    """The same, awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def create(self, name: str, *, bytes: int | None = None, files: int | None = None) -> Awaitable[Volume]:
        """Make one, of at most `bytes` (1 GiB) and `files` (one to 16 KiB)."""
        return self._client.ask(volume_create(name, bytes=bytes, files=files))

    def list(self) -> Awaitable[list[Volume]]:
        """The tenant's, by name."""
        return self._client.ask(volume_list())

    def remove(self, name: str) -> Awaitable[Volume]:
        """Remove one that nobody uses, with all that lies in it."""
        return self._client.ask(volume_remove(name))


def _volume(fields: Fields) -> Volume:
    return Volume(
        fields.required("name", str),
        fields.required("bytes", int),
        fields.required("files", int),
        fields.required("created_ms", int),
        fields.optional("means", str) or "",
        fields.optional("used_bytes", int),
        fields.optional("used_files", int),
        fields.optional("sandbox", str),
    )


def _image(fields: Fields) -> Image:
    more = {key: value for key, value in fields.values.items() if key not in ("digest", "name")}
    return Image(fields.required("digest", str), fields.optional("name", str) or "", more)
