"""What a daemon keeps for its tenants beside the ledger: volumes, snapshots, the operator's images,
and what is being accepted."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from immured.service.accepting import Accepting
from immured.service.images import Images
from immured.service.snapshots import Snapshots
from immured.service.trees import remove_from
from immured.service.volumes import Volumes

if TYPE_CHECKING:
    from pathlib import Path

    from immured.identity.actor import Actor
    from immured.isolation.filesystem import Grants, Saved
    from immured.manifest.schema import Manifest
    from immured.service.config import Config
    from immured.service.context import Service
    from immured.service.state import Paths

__all__ = ["Storage", "grants", "volume_names"]

log = logging.getLogger("immured")


class Storage:
    """All of them. `means`: by what a new volume can be bounded here (`host.quota.volume_means`)."""

    def __init__(self, paths: Paths, config: Config, means: str) -> None:
        self.volumes = Volumes(paths.volumes, means, config.storage_volumes, config.storage_volume_bytes)
        self.images = Images(paths.images)
        self.accepting = Accepting(paths.accepting)
        self.snapshots = Snapshots(paths.snapshots, config.storage_snapshots, config.storage_snapshot_bytes)

    def leftovers(self) -> list[tuple[Path, str]]:
        """What a daemon that ended had half made or half removed: ask before anybody is served. Raises OSError."""
        return [*self.volumes.leftovers(), *self.snapshots.leftovers()]

    @staticmethod
    def clear(leftovers: list[tuple[Path, str]]) -> None:
        """Away with them; it may take a while. What cannot be removed is told."""
        for parent, name in leftovers:
            try:
                remove_from(parent, name)
            except OSError as error:
                log.error("%s of %s was not removed: %s", name, parent, error.strerror or error)  # noqa: TRY400


def volume_names(manifest: Manifest) -> tuple[str, ...]:
    """The volumes that a sandbox of this manifest has for as long as it lives."""
    return tuple(one.name for one in manifest.filesystem.volumes)


def grants(service: Service, actor: Actor, manifest: Manifest, saved: tuple[Saved, ...] = ()) -> Grants:
    """What a plan of this manifest may hold beyond the caller's own rights: what the operator granted everybody, the
    host paths that policy names to the tenant, and of the project's storage what the manifest names. `saved`: of a
    snapshot, what to begin with.

    Raises Refused `unknown_volume`, `unknown_image`.
    """
    storage, filesystem = service.storage, manifest.filesystem
    if filesystem.image is not None:
        storage.images.require(filesystem.image)
    found = with_named(service, actor.tenant, service.grants)
    if filesystem.volumes:
        bounds = storage.volumes.bounds(actor.tenant, actor.project, volume_names(manifest))
        found = replace(found, volumes=tuple(bounds.items()))
    return replace(found, saved=saved) if saved else found


def with_named(service: Service, tenant: str, found: Grants) -> Grants:
    """And the host paths that policy names to that tenant. A name that config.toml does not explain grants nothing."""
    known = service.authority.policy.tenants.get(tenant)
    named = service.state.config.named
    if known is None or not known.paths or not named:
        return found
    mine = [named[name] for name in sorted(known.paths) if name in named]
    read = tuple(os.fsencode(one.path) for one in mine if not one.write)
    write = tuple(os.fsencode(one.path) for one in mine if one.write)
    return replace(found, read=(*found.read, *read), write=(*found.write, *write))
