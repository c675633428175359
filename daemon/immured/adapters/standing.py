"""Where a command stands that is run at once: beneath a /tmp which the sandbox has for itself, it would not be there.
Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

from immured.adapters.draft import beneath
from immured.adapters.imported import Finding, Imported, Surroundings

__all__ = ["with_cwd"]

_PRIVATE: Final = ("/tmp", "/var/tmp")  # noqa: S108 - names, not files


def with_cwd(imported: Imported, host: Surroundings) -> Imported:
    """`imported` with its `cwd` to be read, where the tool shows the whole host and a private /tmp would cover it."""
    filesystem = cast("Mapping[str, object]", imported.manifest["filesystem"])
    cwd = host.real(imported.cwd or "/")
    if filesystem["root"] != "/" or not any(beneath(cwd, one) and cwd != one for one in _PRIVATE):
        return imported
    placed = [place for kind in ("read", "write", "tmpfs") for place in _places(filesystem, kind)]
    there = [one for one in placed if one not in _PRIVATE]
    if any(beneath(cwd, one) for one in (*there, *_denied(filesystem))) or host.kind(cwd) != "directory":
        return imported
    read = [*cast("Sequence[object]", filesystem.get("read", ())), cwd]
    said = Finding("the current directory", "maps", f"{cwd} is read; nothing else of the host's /tmp is there")
    return replace(
        imported,
        manifest={**imported.manifest, "filesystem": {**filesystem, "read": read}},
        findings=(*imported.findings, said),
    )


def _denied(filesystem: Mapping[str, object]) -> list[str]:
    """What the policy shows empty, /tmp itself too: hidden, or a directory of which nothing else than is named is let
    through, which nobody writes."""
    tmpfs = cast("Sequence[object]", filesystem.get("tmpfs", ()))
    shut = [one for one in tmpfs if isinstance(one, Mapping) and one.get("mode") == "0555"]
    return [*_places(filesystem, "hide"), *(str(one["path"]) for one in shut)]


def _places(filesystem: Mapping[str, object], kind: str) -> list[str]:
    found = []
    for one in cast("Sequence[object]", filesystem.get(kind, ())):
        entry = {"path": one} if isinstance(one, str) else cast("Mapping[str, object]", one)
        found.append(str(entry.get("target", entry["path"])))
    return found
