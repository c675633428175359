"""The commands that are proposed, as files: DIR/proposals/<id>, the canonical bytes of one, 0600.

They are not in the ledger, which holds their digest: arguments may carry secrets, and may be large. Without its file a
proposal stands all the same, since it is the digest that is approved; nobody can be shown then what it is of.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from immured.errors import Refused
from immured.identity.proposals import MAX_ARGS, Proposal
from immured.service.context import log
from immured.service.files import read_bounded, write_whole
from immured.service.state import Paths
from immured.wire.strict_msgpack import unpack

__all__ = ["keep_only", "read_args", "remove", "write"]


def write(paths: Paths, proposal_id: str, command: bytes) -> None:
    """Durable when this returns. Raises Refused `storage_failed`."""
    try:
        write_whole(_path(paths, proposal_id), command, 0o600)
    except OSError as error:
        raise Refused(
            "storage_failed", f"the proposal could not be kept: {error.strerror}", "see the disk of the state directory"
        ) from error


def read_args(paths: Paths, proposal: Proposal) -> Mapping[str, object] | None:
    """The arguments that are proposed; None where the file is gone, or is not what was proposed."""
    try:
        command = read_bounded(_path(paths, proposal.id), MAX_ARGS)
    except (OSError, ValueError):
        return None
    if hashlib.sha256(command).digest() != proposal.digest:
        return None
    with contextlib.suppress(Refused):
        value = unpack(command)
        if isinstance(value, dict) and isinstance(value.get("args"), dict):
            args: Mapping[str, object] = value["args"]
            return args
    return None


def remove(paths: Paths, proposal_ids: Collection[str]) -> None:
    """It is done, withdrawn or expired."""
    for proposal_id in proposal_ids:
        try:
            _path(paths, proposal_id).unlink(missing_ok=True)
        except OSError as error:
            log.error("proposals/%s was not removed: %s", proposal_id, error)


def keep_only(paths: Paths, proposal_ids: Collection[str]) -> None:
    """At start: what a crash left of others goes."""
    with contextlib.suppress(OSError):
        remove(paths, {path.name for path in paths.proposals.iterdir()} - set(proposal_ids))


def _path(paths: Paths, proposal_id: str) -> Path:
    return paths.proposals / proposal_id
