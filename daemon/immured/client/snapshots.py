"""Snapshots, for the SDK.

sandbox.snapshot("ready")
with client.sandbox(manifest=..., snapshot="ready") as fork:
    ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from immured.client.question import Question, reading
from immured.errors import Refused
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient
    from immured.client.outcome import Answer
    from immured.client.sync import Client

__all__ = ["AsyncSnapshots", "Snapshot", "Snapshots", "snapshot_list", "snapshot_remove", "snapshot_save"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. `bytes` is what its files hold, `places` where they stood; a sandbox that begins with it has a
    manifest of the digest `manifest`. `skipped`: sockets, which are not saved."""

    name: str
    sandbox: str
    manifest: str
    created_ms: int
    bytes: int
    files: int
    skipped: int
    places: tuple[str, ...]


def snapshot_save(sandbox: str, name: str) -> Question[Snapshot]:
    """Save what lies in a sandbox's own places."""
    return Question("snapshot.save", {"sandbox": sandbox, "name": name}, lambda said: _snapshot(reading(said)))


def snapshot_list() -> Question[list[Snapshot]]:
    """The tenant's, by name."""
    return Question("snapshot.list", {}, _rows)


def snapshot_remove(name: str) -> Question[Snapshot]:
    """Remove one that no live sandbox began with."""
    return Question("snapshot.remove", {"name": name}, lambda said: _snapshot(reading(said)))


class Snapshots:
    """A client's snapshots. Every method raises Refusal as the daemon refuses."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def save(self, sandbox: str, name: str) -> Snapshot:
        """Save what lies in a sandbox's own places; its execs stand still meanwhile."""
        return self._client.ask(snapshot_save(sandbox, name))

    def list(self) -> list[Snapshot]:
        """The tenant's, by name."""
        return self._client.ask(snapshot_list())

    def remove(self, name: str) -> Snapshot:
        """Remove one that no live sandbox began with."""
        return self._client.ask(snapshot_remove(name))


class AsyncSnapshots:
    """The same, awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def save(self, sandbox: str, name: str) -> Awaitable[Snapshot]:
        """Save what lies in a sandbox's own places; its execs stand still meanwhile."""
        return self._client.ask(snapshot_save(sandbox, name))

    def list(self) -> Awaitable[list[Snapshot]]:
        """The tenant's, by name."""
        return self._client.ask(snapshot_list())

    def remove(self, name: str) -> Awaitable[Snapshot]:
        """Remove one that no live sandbox began with."""
        return self._client.ask(snapshot_remove(name))


def _rows(said: Answer) -> list[Snapshot]:
    rows = []
    for row in reading(said).required("snapshots", list):
        if not isinstance(row, Mapping):
            raise Refused("bad_reply", "result.snapshots holds what is no map")
        rows.append(_snapshot(Fields(row, "result.snapshots", "bad_reply")))
    return rows


def _snapshot(fields: Fields) -> Snapshot:
    return Snapshot(
        fields.required("name", str),
        fields.required("sandbox", str),
        fields.required("manifest", str),
        fields.required("created_ms", int),
        fields.required("bytes", int),
        fields.required("files", int),
        fields.required("skipped", int),
        tuple(str(one) for one in fields.required("places", list)),
    )
