"""Every permission that there is, and what it is a permission to act on.

A permission is a command's exact name. Beside the commands stand a few *rights*, which no command is called: what a
command may carry. A command that is not in this table does not load, and a policy that names anything else is invalid.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["ADDING", "ALSO_ADD", "CONDITIONS", "LOADING", "PERMISSIONS", "RIGHTS", "SIGNING", "TargetKind"]


class TargetKind(StrEnum):
    """What a command acts on: what its handler has to ask its warrant about."""

    NOTHING = "nothing"
    """Nothing that belongs to anybody: the dispatcher asks for the tenant that the command is given under."""
    HOST = "host"
    """The whole daemon: the dispatcher asks, and only a rule of scope `host` can allow it."""
    SANDBOX = "sandbox"
    RUN = "run"
    MANIFEST = "manifest"
    STORAGE = "storage"
    KEY = "key"
    GRANT = "grant"
    PROPOSAL = "proposal"
    SESSION = "session"
    ENTRY = "entry"


CONDITIONS: Final[dict[TargetKind, frozenset[str]]] = {
    TargetKind.NOTHING: frozenset({"tenants", "projects"}),
    TargetKind.HOST: frozenset(),
    TargetKind.SANDBOX: frozenset({"tenants", "projects", "classes", "labels"}),
    TargetKind.RUN: frozenset({"tenants", "projects", "classes"}),
    TargetKind.MANIFEST: frozenset({"tenants", "projects", "classes"}),
    TargetKind.STORAGE: frozenset({"tenants", "projects"}),
    TargetKind.KEY: frozenset({"tenants"}),
    TargetKind.GRANT: frozenset({"tenants", "projects"}),
    TargetKind.PROPOSAL: frozenset({"tenants", "projects"}),
    TargetKind.SESSION: frozenset({"tenants", "projects"}),
    TargetKind.ENTRY: frozenset({"tenants", "projects"}),
}
"""The conditions of a rule that can hold of a target of that kind. Others would never hold: a deny that fails open."""


def _named(kind: TargetKind, names: str) -> dict[str, TargetKind]:
    return dict.fromkeys(names.split(), kind)


RIGHTS: Final[dict[str, TargetKind]] = {
    "manifest.inline": TargetKind.MANIFEST,  # a manifest of one's own in the command; and learning runs
    "manifest.sign": TargetKind.MANIFEST,  # one's signature counts for a manifest that is loaded
    "speak": TargetKind.NOTHING,  # any `sub`: whom the key's record does not name
}

PERMISSIONS: Final[dict[str, TargetKind]] = {
    **_named(TargetKind.NOTHING, "status whoami image.list template.list ledger.checkpoint"),
    **_named(TargetKind.HOST, "policy.set policy.show daemon.rotate ledger.rotate_key metrics"),
    **_named(TargetKind.RUN, "run run.batch plan preflight"),
    **_named(
        TargetKind.SANDBOX,
        """
        kill sandbox.create sandbox.list sandbox.show sandbox.pause sandbox.resume sandbox.extend sandbox.kill
        sandbox.remove sandbox.prune sandbox.stats sandbox.exec sandbox.execs sandbox.signal sandbox.resize
        sandbox.logs sandbox.attach
        file.put file.get file.list file.stat file.mkdir file.move file.remove file.chmod file.glob file.archive
        file.extract
        changes.list changes.diff changes.accept changes.discard snapshot.save
        """,
    ),
    **_named(TargetKind.MANIFEST, "manifest.load manifest.list manifest.show manifest.revoke"),
    **_named(TargetKind.MANIFEST, "consent.show consent.accept consent.decline consent.status"),
    **_named(TargetKind.STORAGE, "snapshot.list snapshot.remove volume.create volume.list volume.remove"),
    **_named(
        TargetKind.KEY,
        """
        key.add key.list key.show key.label key.bind key.suspend key.resume key.revoke key.rotate policy.explain
        """,
    ),
    **_named(TargetKind.GRANT, "grant.issue grant.list grant.revoke"),
    **_named(TargetKind.PROPOSAL, "proposal.create proposal.approve proposal.withdraw proposal.list proposal.show"),
    **_named(TargetKind.SESSION, "session.open session.close session.list session.show"),
    **_named(TargetKind.ENTRY, "ledger.prove ledger.query"),
    **RIGHTS,
}

ADDING: Final = "key.add"
ALSO_ADD: Final = frozenset({"key.bind", "key.rotate"})
"""Done to another's key, these too make one that may approve, and whose private half its maker has: whatever controls
ADDING controls them."""

LOADING: Final = "manifest.load"
"""What alone adds capabilities: a control that names a severity (`added`) can hold of nothing else."""
SIGNING: Final = "manifest.sign"
"""A right that is asked about keys which signed offline: no command carries it, so that nothing could be approved."""
