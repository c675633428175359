"""The payload's environment: what the manifest sets, what a run may add, what the kernel takes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.wire.strict import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from immured.manifest.schema import Manifest

__all__ = ["environment", "environment_problem"]

_MAX_VARIABLES: Final = 512
_MAX_TOTAL: Final = 128 * 1024
_MAX_VALUE: Final = 128 * 1024 - 1  # the kernel's bound on one string, MAX_ARG_STRLEN, less its NUL


def environment(manifest: Manifest, given: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The manifest's variables, and the run's own over them.

    Raises Refused `denied` for one that a run may not set (where commands are restricted, PATH too, since names are
    found by it), and `bad_argument` for what no process can have.
    """
    command = manifest.command
    for name in given:
        if not command.may_set(name) or (command.allow and name == b"PATH"):
            raise Refused(
                "denied",
                f"the manifest {manifest.name!r} lets no run set {_show(name)}",
                "leave it out, or name it in the manifest's command.pass_env",
                details={"field": "env", "manifest": manifest.digest},
            )
    whole = {**dict(command.env), **given}
    if problem := environment_problem(whole):
        raise Refused("bad_argument", f"env {problem}", "make it smaller or mend it", details={"field": "env"})
    return whole


def environment_problem(variables: Mapping[bytes, bytes]) -> str:
    """Why no process can have this environment, in words; empty where one can."""
    if len(variables) > _MAX_VARIABLES:
        return f"holds {len(variables)} variables; at most {_MAX_VARIABLES}"
    total = 0
    for name, value in variables.items():
        size = len(name) + 1 + len(value)
        total += size + 1
        if not name or b"=" in name or b"\0" in name:
            return f"holds the name {_show(name)}; a name is not empty and has no `=` or NUL"
        if b"\0" in value:
            return f"holds a NUL in {_show(name)}"
        if size > _MAX_VALUE:
            return f"holds {len(value)} bytes in {_show(name)}; name and value have at most {_MAX_VALUE - 1}"
    return f"holds {total} bytes; at most {_MAX_TOTAL}" if total > _MAX_TOTAL else ""


def _show(raw: bytes) -> str:
    return shown(raw.decode("utf-8", "backslashreplace"))
