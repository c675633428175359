"""Who may use a manifest, and to order which command. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.errors import Refused
from immured.wire.strict import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from immured.manifest.schema import Manifest

__all__ = ["check_use"]


def check_use(manifest: Manifest, argv: Sequence[bytes], persona: str | None, tenant: str) -> None:
    """Raises Refused `denied` where the manifest is for other personas, other tenants or other commands."""
    if manifest.personas and persona not in manifest.personas:
        who = "a command without a persona" if persona is None else f"the persona {shown(persona)}"
        raise _denied(manifest, "personas", who)
    if manifest.tenants and tenant not in manifest.tenants:
        raise _denied(manifest, "tenants", f"the tenant {shown(tenant)}")
    if manifest.command.allow and argv[0] not in manifest.command.allow:
        raise _denied(manifest, "command.allow", f"the command {shown(argv[0].decode('utf-8', 'backslashreplace'))}")


def _denied(manifest: Manifest, field: str, what: str) -> Refused:
    return Refused(
        "denied",
        f"the manifest {manifest.name!r} is not for {what}",
        f"its {field} names who and what it is for; name another manifest",
        details={"field": field, "manifest": manifest.digest},
    )
