"""Who may use a manifest, and to order which command. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.words import REST, fits
from immured.wire.strict import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from immured.manifest.schema import Command, Manifest, Program

__all__ = ["check_manifest", "check_use", "permits", "permits_program", "programs"]


_MAX_LISTED: Final = 8
_MAX_SHOWN: Final = 80


def check_use(manifest: Manifest, argv: Sequence[bytes], persona: str | None, tenant: str) -> None:
    """Raises Refused `denied` where the manifest is for other personas, other tenants or other commands."""
    check_manifest(manifest, persona, tenant)
    permits(manifest, argv)


def permits(manifest: Manifest, argv: Sequence[bytes]) -> None:
    """Raises Refused `denied` where the manifest is for other commands."""
    allow = manifest.command.allow
    if not allow or any(one.name == argv[0] and _fit(one, argv[1:]) for one in allow):
        return
    words = argv[:1]
    if any(one.name == argv[0] for one in allow):
        words = argv[:16]  # what is wrong is among the arguments
    raise Refused(
        "denied",
        f"the manifest {manifest.name!r} is not for the command {shown(_line(words), 200)}",
        f"it is for {_listed(sorted(allow, key=lambda one: one.name != argv[0]))}; or name another manifest",
        details={"field": "command.allow", "manifest": manifest.digest},
    )


def programs(
    command: Command, path: bytes, argv0: bytes = b"", arguments: Sequence[bytes] | None = None
) -> tuple[Program, ...]:
    """The entries of `allow` that permit the file at `path`, as it was found inside.

    `argv0`: what the order called it; empty for an interpreter, which the order did not name. An entry permits it that
    is what the order wrote, or that is this path, or that has no slash and is its base name, where its directory is one
    of the manifest's own PATH. `arguments`: the words after it, which must fit as well; None: they have been looked at.
    """
    directory, _, base = path.rpartition(b"/")
    found = []
    for one in command.allow:
        if b"/" in one.name:
            named = one.name in (path, argv0)
        else:
            named = one.name == argv0 or (one.name == base and (directory or b"/") in _searched(command))
        if named and (arguments is None or _fit(one, arguments)):
            found.append(one)
    return tuple(found)


def permits_program(
    command: Command, path: bytes, argv0: bytes = b"", arguments: Sequence[bytes] | None = None
) -> Program | None:
    """The first of `programs`."""
    return next(iter(programs(command, path, argv0, arguments)), None)


def check_manifest(manifest: Manifest, persona: str | None, tenant: str) -> None:
    """Raises Refused `denied` where the manifest is for other personas or other tenants, whatever the command."""
    if manifest.personas and persona not in manifest.personas:
        who = "a command without a persona" if persona is None else f"the persona {shown(persona)}"
        raise _denied(manifest, "personas", who)
    if manifest.tenants and tenant not in manifest.tenants:
        raise _denied(manifest, "tenants", f"the tenant {shown(tenant)}")


def _fit(program: Program, words: Sequence[bytes]) -> bool:
    return not program.arguments or any(fits(words, pattern) for pattern in program.arguments)


def _searched(command: Command) -> list[bytes]:
    return [one.rstrip(b"/") or b"/" for one in dict(command.env).get(b"PATH", b"").split(b":") if one]


def _line(words: Sequence[bytes]) -> str:
    return b" ".join(words).decode("utf-8", "backslashreplace")


def _listed(allow: Sequence[Program]) -> str:
    """What may be ordered, in the words of docs/manifest.md: the first few, each bounded and escaped."""
    each = [
        shown(_line((one.name, *words)), _MAX_SHOWN)
        for one in allow
        for words in (one.arguments or ((REST,),))[: _MAX_LISTED + 1]
    ]
    return ", ".join(each[:_MAX_LISTED]) + (", and more" if len(each) > _MAX_LISTED else "")


def _denied(manifest: Manifest, field: str, what: str) -> Refused:
    return Refused(
        "denied",
        f"the manifest {manifest.name!r} is not for {what}",
        f"its {field} names who and what it is for; name another manifest",
        details={"field": field, "manifest": manifest.digest},
    )
