"""Volumes: named directories of a tenant's that outlive sandboxes, bounded in bytes and files, in one at a time.

DIR/volumes/TENANT/NAME/ is the broker's user's. In it `volume.json` says how large it may be; `data`, or `image`, is
made by the launcher when it is first mounted (native/launcher/storage.h): a directory with a project quota, or a file
with a file system in it. A name that begins with a dot is one that is being made or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from immured.errors import Refused
from immured.identity.actor import DEFAULT
from immured.identity.policy.warrant import Target
from immured.isolation.filesystem import Volume
from immured.service.files import read_bounded, sync_directory, write_new
from immured.service.trees import remove_from
from immured.wire.strict import shown

__all__ = ["LEAST_BYTES", "LEAST_FILES", "Stored", "Volumes", "unknown_volume"]

LEAST_BYTES: Final = 16 << 20
"""Below it a file system in a file is all bookkeeping."""
LEAST_FILES: Final = 256

_RECORD: Final = "volume.json"
_MAX_RECORD: Final = 4096
_GONE: Final = ".gone-"


@dataclass(frozen=True, slots=True)
class Stored:
    """One volume: its bounds, when it was made (ms), by what it is held to them (empty before it is first used), what
    lies in it (None: not known here), and who has it. `owners` are the keys that made it; of one that an older daemon
    made, none.
    """

    name: str
    bytes: int
    files: int
    created_ms: int
    tenant: str
    project: str = DEFAULT
    owners: tuple[str, ...] = ()
    means: str = ""
    used_bytes: int | None = None
    used_files: int | None = None
    sandbox: str | None = None

    @property
    def target(self) -> Target:
        """What a warrant is asked about."""
        return Target(self.tenant, self.project, self.owners)

    def to_map(self) -> dict[str, object]:
        """A row of `volume.list`."""
        row: dict[str, object] = {
            "name": self.name,
            "bytes": self.bytes,
            "files": self.files,
            "created_ms": self.created_ms,
        }
        if self.project != DEFAULT:
            row["project"] = self.project
        if self.means:
            row["means"] = self.means
        known = {"used_bytes": self.used_bytes, "used_files": self.used_files, "sandbox": self.sandbox}
        return row | {key: value for key, value in known.items() if value is not None}


class Volumes:
    """The volumes beneath a directory. `means`: how the launcher can bound a new one here; empty: not at all."""

    def __init__(self, directory: Path, means: str, most: int, most_bytes: int) -> None:
        self._directory = directory
        self._means = means
        self._most = most
        self._most_bytes = most_bytes
        self._held: dict[tuple[str, str], str] = {}

    # --- who has which -----------------------------------------------------------------------------------------------

    def hold(self, tenant: str, names: Iterable[str], sandbox: str) -> None:
        """All of them are the sandbox's until `release`, or none. Raises Refused `volume_in_use`."""
        wanted = [(tenant, name) for name in names]
        for one in wanted:
            owner = self._held.get(one)
            if owner is not None and owner != sandbox:
                raise Refused(
                    "volume_in_use",
                    f"the volume {one[1]!r} is in use by {owner}",
                    "wait until that has ended, or end it",
                    details={"volume": one[1], "sandbox": owner},
                )
        self._held |= dict.fromkeys(wanted, sandbox)

    def release(self, sandbox: str) -> None:
        """The sandbox has ended. Twice is once."""
        self._held = {one: owner for one, owner in self._held.items() if owner != sandbox}

    # --- what there is -----------------------------------------------------------------------------------------------

    def bounds(self, tenant: str, project: str, names: Iterable[str]) -> dict[str, Volume]:
        """What a plan needs to know of each. Raises Refused `unknown_volume`, for another project's as for none."""
        return {name: self._bound(tenant, project, name) for name in names}

    def _bound(self, tenant: str, project: str, name: str) -> Volume:
        stored = self._read(tenant, name)
        if stored.project != project:
            raise unknown_volume(name)
        return Volume(f"{tenant}/{name}".encode(), stored.bytes, stored.files)

    def find(self, tenant: str, name: str) -> Stored:
        """One of the tenant's. Raises Refused `unknown_volume`."""
        return self._read(tenant, name)

    def list(self, tenant: str) -> list[Stored]:
        """The tenant's, by name."""
        return [self._measured(tenant, self._read(tenant, name)) for name in sorted(self._names(tenant))]

    # --- made and removed --------------------------------------------------------------------------------------------

    def check_create(self, tenant: str, name: str, size: int) -> None:
        """Raises Refused `volume_exists`, `over_quota`, `no_quota`, `bad_argument`."""
        if size > self._most_bytes:
            raise Refused(
                "bad_argument",
                f"args.bytes is {size}; the operator allows a volume {self._most_bytes}",
                "ask for less, or have [storage] volume_bytes raised",
                details={"field": "args.bytes"},
            )
        if not self._means:
            raise Refused(
                "no_quota",
                "nothing here can bound a volume: its file system enforces no project quotas, and there are no loop "
                "devices or no mkfs.ext4",
                "mount the state directory's file system with prjquota, or install e2fsprogs",
            )
        names = set(self._names(tenant))
        if name in names:
            raise Refused("volume_exists", f"the volume {name!r} exists", "use it, or remove it first")
        if len(names) >= self._most:
            raise Refused("over_quota", f"the tenant has {len(names)} volumes, and may have {self._most}", "remove one")

    def create(self, place: Target, name: str, size: int, files: int, now_ms: int) -> Stored:
        """Make it, in that tenant and project, of these owners; durable when this returns. Raises Refused as
        `check_create`, OSError."""
        tenant = place.tenant
        self.check_create(tenant, name, size)
        parent = self._directory / tenant
        parent.mkdir(mode=0o700, exist_ok=True)
        staged = parent / f"{_GONE}{secrets.token_hex(8)}"
        staged.mkdir(mode=0o700)
        record: dict[str, object] = {"schema": 1, "bytes": size, "files": files, "created_ms": now_ms}
        record |= {"project": place.project, "owners": list(place.owners)}
        try:
            write_new(staged / _RECORD, json.dumps(record).encode(), 0o600)
            sync_directory(staged)
            staged.rename(parent / name)
        except OSError:
            with contextlib.suppress(OSError):  # the next start removes it
                remove_from(parent, staged.name)
            raise
        sync_directory(parent)
        sync_directory(self._directory)
        return Stored(name, size, files, now_ms, tenant, place.project, place.owners)

    def remove(self, tenant: str, name: str) -> Stored:
        """Remove it and all that lies in it; nobody has it. Raises Refused `unknown_volume`; OSError."""
        stored = self._measured(tenant, self._read(tenant, name))
        parent = self._directory / tenant
        gone = f"{_GONE}{secrets.token_hex(8)}"
        (parent / name).rename(parent / gone)
        sync_directory(parent)
        remove_from(parent, gone)
        return stored

    def everything(self) -> Iterator[tuple[str, str, int]]:
        """What every tenant has: tenant, name, bytes that it may hold. One that cannot be read is told of when it is
        asked for. Raises OSError."""
        for tenant in self._directory.iterdir():
            for name in self._names(tenant.name):
                with contextlib.suppress(Refused):
                    yield tenant.name, name, self._read(tenant.name, name).bytes

    def leftovers(self) -> Iterator[tuple[Path, str]]:
        """What a daemon that ended was making or removing, and where it lies. Raises OSError."""
        for tenant in self._directory.iterdir():
            if tenant.is_dir():
                yield from ((tenant, one.name) for one in tenant.iterdir() if one.name.startswith(_GONE))

    # --- files -------------------------------------------------------------------------------------------------------

    def _names(self, tenant: str) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            yield from (one.name for one in (self._directory / tenant).iterdir() if not one.name.startswith("."))

    def _read(self, tenant: str, name: str) -> Stored:
        try:
            record = json.loads(read_bounded(self._directory / tenant / name / _RECORD, _MAX_RECORD))
            return Stored(
                name,
                int(record["bytes"]),
                int(record["files"]),
                int(record["created_ms"]),
                tenant,
                str(record.get("project", DEFAULT)),
                tuple(map(str, record.get("owners", ()))),
            )
        except FileNotFoundError:
            raise unknown_volume(name) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(
                "storage_failed", f"the volume {name!r} cannot be read: {error}", "restore it from a backup"
            ) from error

    def _measured(self, tenant: str, stored: Stored) -> Stored:
        place = self._directory / tenant / stored.name
        means, used_bytes, used_files = "", None, None
        with contextlib.suppress(FileNotFoundError):
            facts = (place / "image").lstat()
            if stat.S_ISREG(facts.st_mode):
                means, used_bytes = "file system", facts.st_blocks * 512
        if not means:
            with contextlib.suppress(FileNotFoundError):
                # In a directory with a project of its own, ext4 and XFS answer with the project's own figures.
                figures = os.statvfs(place / "data")
                means = "project quota"
                used_bytes = (figures.f_blocks - figures.f_bfree) * figures.f_frsize
                used_files = figures.f_files - figures.f_ffree
        owner = self._held.get((tenant, stored.name))
        return replace(stored, means=means, used_bytes=used_bytes, used_files=used_files, sandbox=owner)


def unknown_volume(name: str) -> Refused:
    """There is none that the caller may know of."""
    return Refused(
        "unknown_volume",
        f"there is no volume {shown(name)}",
        "`volume.list` shows those that there are; `volume.create` makes one",
        details={"volume": name},
    )
