"""Snapshots: what lay in a sandbox's writable places, saved once, and begun with by as many sandboxes as one likes.

DIR/snapshots/TENANT/NAME/ is the broker's user's. `0`, `1`, ... are trees, one a place, which the sandbox's clerk
writes (native/launcher/clerk_snapshot.c); `snapshot.json` says where each stood, and of which manifest. A name that
begins with a dot is one that is being made or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.actor import DEFAULT
from immured.identity.policy.warrant import Target
from immured.isolation.filesystem import Saved
from immured.service.files import read_bounded, sync_directory, write_new
from immured.service.trees import remove_from
from immured.wire.strict import shown

if TYPE_CHECKING:
    from immured.identity.policy.warrant import Warrant
    from immured.manifest.schema import Manifest

__all__ = ["Place", "Snapshot", "Snapshots"]

_RECORD: Final = "snapshot.json"
_MAX_RECORD: Final = 1 << 20
_NEW: Final = ".new-"
_GONE: Final = ".gone-"


@dataclass(frozen=True, slots=True)
class Place:
    """One saved tree. `target` as it stood inside; `layer`: it holds what was changed of what lies below it."""

    target: bytes
    layer: bool
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot holds. `manifest`: the digest of its sandbox's, `target`: whose that was, and what; `skipped`:
    sockets, which nobody would answer; `given`: what was filled into the manifest."""

    name: str
    sandbox: str
    target: Target
    manifest: str
    created_ms: int
    places: tuple[Place, ...]
    skipped: int = 0
    given: tuple[tuple[str, str | int], ...] = ()

    @property
    def bytes(self) -> int:
        """What its files hold."""
        return sum(one.bytes for one in self.places)

    @property
    def files(self) -> int:
        """Files, directories and links."""
        return sum(one.files for one in self.places)

    def to_map(self) -> dict[str, object]:
        """A row of `snapshot.list`."""
        return {
            "name": self.name,
            "sandbox": self.sandbox,
            "key": next(iter(self.target.owners), ""),
            "manifest": self.manifest,
            "created_ms": self.created_ms,
            "bytes": self.bytes,
            "files": self.files,
            "skipped": self.skipped,
            "places": [os.fsdecode(one.target).encode("utf-8", "replace").decode() for one in self.places],
            **({"project": self.target.project} if self.target.project != DEFAULT else {}),
            **({"parameters": dict(self.given)} if self.given else {}),
        }


class Snapshots:
    """The snapshots beneath a directory; a tenant may have `most`, of `most_bytes` together."""

    def __init__(self, directory: Path, most: int, most_bytes: int) -> None:
        self._directory = directory
        self._most = most
        self._most_bytes = most_bytes
        self._held: dict[str, tuple[str, str]] = {}
        self._going: set[tuple[str, str]] = set()

    # --- who began with which ----------------------------------------------------------------------------------------

    def hold(self, tenant: str, name: str, sandbox: str) -> None:
        """It lies below what the sandbox writes, until `release`."""
        self._held[sandbox] = (tenant, name)

    def release(self, sandbox: str) -> None:
        """The sandbox has ended. Twice is once."""
        self._held.pop(sandbox, None)

    def users(self, tenant: str, name: str) -> tuple[str, ...]:
        """The live sandboxes that began with it."""
        return tuple(sorted(sandbox for sandbox, held in self._held.items() if held == (tenant, name)))

    @contextlib.contextmanager
    def removing(self, tenant: str, name: str) -> Iterator[None]:
        """Within, nobody finds it any more."""
        self._going.add((tenant, name))
        try:
            yield
        finally:
            self._going.discard((tenant, name))

    # --- what there is -----------------------------------------------------------------------------------------------

    def list(self, tenant: str) -> list[Snapshot]:
        """The tenant's, by name."""
        return [self._read(tenant, name) for name in sorted(self._names(tenant))]

    def find(self, warrant: Warrant, name: str) -> Snapshot:
        """One of the actor's tenant that the warrant covers. Raises Refused `unknown_snapshot`, for another's as for
        none."""
        tenant = warrant.actor.tenant
        found = self._read(tenant, name)
        if not warrant.covers(found.target) or (tenant, name) in self._going:
            raise _unknown(name)
        return found

    def _read(self, tenant: str, name: str) -> Snapshot:
        """Raises Refused `unknown_snapshot`."""
        try:
            record = json.loads(read_bounded(self._directory / tenant / name / _RECORD, _MAX_RECORD))
            places = tuple(
                Place(os.fsencode(one["target"]), bool(one["layer"]), int(one["bytes"]), int(one["files"]))
                for one in record["places"]
            )
            target = Target(
                tenant,
                str(record.get("project", DEFAULT)),
                tuple(map(str, record.get("owners", (record["key"],)))),
                str(record.get("class", DEFAULT)),  # there was but one class before it was noted
                {str(label): str(value) for label, value in record.get("labels", {}).items()},
            )
            return Snapshot(
                name,
                record["sandbox"],
                target,
                record["manifest"],
                int(record["created_ms"]),
                places,
                int(record["skipped"]),
                tuple(sorted(record.get("parameters", {}).items())),
            )
        except FileNotFoundError:
            raise _unknown(name) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(
                "storage_failed", f"the snapshot {name!r} cannot be read: {error}", "remove its directory"
            ) from error

    def saved(self, warrant: Warrant, name: str, manifest: Manifest) -> tuple[Saved, ...]:
        """What a sandbox that begins with it restores. Raises Refused `unknown_snapshot`, `snapshot_mismatch`: another
        manifest, or the same one filled in otherwise, may have other places, or none of that name.
        """
        snapshot = self.find(warrant, name)
        if snapshot.manifest != manifest.digest:
            raise Refused(
                "snapshot_mismatch",
                f"the snapshot {name!r} is of a sandbox of another manifest, {snapshot.manifest}",
                "create the sandbox with that one, or with the options that the other was created with",
                details={"snapshot": name, "manifest": snapshot.manifest},
            )
        if snapshot.given != manifest.given:
            raise Refused(
                "snapshot_mismatch",
                f"the snapshot {name!r} is of a sandbox whose manifest had other parameters",
                "create the sandbox with those: `details.parameters`",
                details={"snapshot": name, "manifest": snapshot.manifest, "parameters": dict(snapshot.given)},
            )
        return tuple(
            Saved(f"{snapshot.target.tenant}/{name}/{index}".encode(), one.target)
            for index, one in enumerate(snapshot.places)
        )

    # --- made and removed --------------------------------------------------------------------------------------------

    def begin(self, tenant: str, name: str) -> tuple[str, int]:
        """A directory for the clerk to fill, as a name that it knows (`TENANT/.new-...`), and how many bytes may go in.

        Raises Refused `snapshot_exists`, `over_quota`; OSError.
        """
        names = list(self._names(tenant))
        if name in names:
            raise Refused("snapshot_exists", f"the snapshot {name!r} exists", "remove it first, or name another")
        used = sum(self._read(tenant, one).bytes for one in names)
        if len(names) >= self._most or used >= self._most_bytes:
            raise Refused(
                "over_quota",
                f"the tenant has {len(names)} snapshots of {used} bytes; it may have {self._most}, of "
                f"{self._most_bytes} bytes together",
                "remove one",
            )
        parent = self._directory / tenant
        parent.mkdir(mode=0o700, exist_ok=True)
        staged = f"{_NEW}{secrets.token_hex(8)}"
        (parent / staged).mkdir(mode=0o700)
        return f"{tenant}/{staged}", self._most_bytes - used

    def finish(
        self,
        target: Target,
        name: str,
        staged: str,
        *,
        sandbox: str,
        manifest: Manifest,
        now_ms: int,
        places: Sequence[Place],
        skipped: int,
    ) -> Snapshot:
        """Give it its name; durable when this returns. `target` is its sandbox's. Raises OSError."""
        parent, made = self._directory / target.tenant, self._directory / staged
        record: Mapping[str, object] = {
            "schema": 1,
            "sandbox": sandbox,
            "key": target.owners[0],
            "owners": list(target.owners),
            "project": target.project,
            "class": target.manifest_class,
            "labels": dict(target.labels),
            "manifest": manifest.digest,
            **({"parameters": dict(manifest.given)} if manifest.given else {}),
            "created_ms": now_ms,
            "skipped": skipped,
            "places": [
                {"target": os.fsdecode(one.target), "layer": one.layer, "bytes": one.bytes, "files": one.files}
                for one in places
            ],
        }
        write_new(made / _RECORD, json.dumps(record).encode(), 0o600)
        sync_directory(made)
        made.rename(parent / name)
        sync_directory(parent)
        sync_directory(self._directory)
        return Snapshot(name, sandbox, target, manifest.digest, now_ms, tuple(places), skipped, manifest.given)

    def discard(self, staged: str) -> None:
        """What was not finished goes. Raises OSError."""
        tenant, _, name = staged.partition("/")
        remove_from(self._directory / tenant, name)

    def remove(self, tenant: str, name: str) -> Snapshot:
        """Raises Refused `unknown_snapshot`; OSError. A sandbox that began with it keeps what it has read, no more: the
        caller sees to it that none lives.
        """
        snapshot = self._read(tenant, name)
        parent = self._directory / tenant
        gone = f"{_GONE}{secrets.token_hex(8)}"
        (parent / name).rename(parent / gone)
        sync_directory(parent)
        remove_from(parent, gone)
        return snapshot

    def everything(self) -> Iterator[tuple[str, str, int]]:
        """What every tenant has: tenant, name, bytes. One that cannot be read is told of when it is
        asked for. Raises OSError."""
        for tenant in self._directory.iterdir():
            for name in self._names(tenant.name):
                with contextlib.suppress(Refused):
                    yield tenant.name, name, self._read(tenant.name, name).bytes

    def leftovers(self) -> Iterator[tuple[Path, str]]:
        """What a daemon that ended was making or removing, and where it lies. Raises OSError."""
        for tenant in self._directory.iterdir():
            if tenant.is_dir():
                yield from ((tenant, one.name) for one in tenant.iterdir() if one.name.startswith((_NEW, _GONE)))

    def _names(self, tenant: str) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            yield from (one.name for one in (self._directory / tenant).iterdir() if not one.name.startswith("."))


def _unknown(name: str) -> Refused:
    return Refused(
        "unknown_snapshot",
        f"there is no snapshot {shown(name)} of yours",
        "`immure snapshot list` shows those that there are",
        details={"snapshot": name},
    )
