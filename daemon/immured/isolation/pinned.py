"""What is executed, and whether its manifest is for it: each file by its path as found and by its digest. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.abi import Op
from immured.manifest.schema import Program
from immured.manifest.use import programs
from immured.wire.strict import shown

if TYPE_CHECKING:
    from immured.isolation.compile import Compiled

__all__ = ["Executable", "check_executables"]

_REMEDY: Final = "add it to command.allow of a manifest, or order a program that does without it"


@dataclass(frozen=True, slots=True)
class Executable:
    """A file that is executed, or that interprets the one before. `path` as it was looked up, perhaps relative to the
    working directory; `argument`: what `#!` gives it; `sha256` in hex.

    `changeable`: not root's alone. Who owns it, or may write it, can change it while it runs, and before.
    """

    path: bytes
    argument: bytes
    sha256: str
    size: int
    changeable: bool

    def to_map(self) -> Mapping[str, object]:
        """As entries and results show it."""
        try:
            path: str | bytes = self.path.decode()
        except UnicodeDecodeError:
            path = self.path
        row: dict[str, object] = {"path": path, "sha256": self.sha256, "size": self.size}
        if self.changeable:
            row["changeable"] = True
        return row


def check_executables(compiled: Compiled, found: Sequence[Executable]) -> None:
    """Raises Refused `denied` where the manifest does not allow one of them, or means another file by its name.

    `found`: what the plan's argv[0] is, then its interpreters.
    """
    command = compiled.manifest.command
    if not command.allow:
        return
    step = compiled.plan.steps[-1]
    assert step.op is Op.EXEC  # noqa: S101 - every plan that executes ends with it
    cwd, argv = step.strings[0], step.strings[1 : 1 + step.numbers[0]]
    words: tuple[bytes, ...] = argv[1:]
    for index, one in enumerate(found):
        # A name without a slash was found by the manifest's own PATH: `environment` lets no run set another.
        called = argv[0] if index == 0 else b""
        if index > 0:
            words = (*((one.argument,) if one.argument else ()), found[index - 1].path, *words)
        path = _absolute(cwd, one.path)
        entries = programs(command, path, called, words)
        if not entries:
            raise _refused(compiled, one, _not_allowed(compiled, path, found, index), _REMEDY)
        _check_digest(compiled, one, entries)


def _check_digest(compiled: Compiled, one: Executable, entries: Sequence[Program]) -> None:
    wanted = [entry.sha256 for entry in entries]
    if None in wanted or one.sha256 in wanted:
        return
    raise _refused(
        compiled,
        one,
        f"the program {_show(one.path)} is not the one that the manifest {compiled.manifest.name!r} means: its digest "
        f"is sha256:{one.sha256}",
        f"put the file back whose digest command.allow names ({', '.join(sorted(filter(None, wanted)))[:140]}), or "
        "have a manifest with the new one loaded",
    )


def _not_allowed(compiled: Compiled, path: bytes, found: Sequence[Executable], index: int) -> str:
    said = f"the manifest {compiled.manifest.name!r} is not for the program {_show(found[index].path)}, which "
    if index == 0:
        return f"{said}was found at {_show(path)}: its command.allow means another"
    return f"{said}interprets {_show(found[index - 1].path)}: its command.allow does not name it with these arguments"


def _refused(compiled: Compiled, one: Executable, message: str, remedy: str) -> Refused:
    details = {"field": "command.allow", "manifest": compiled.manifest.digest, "path": _show(one.path)}
    return Refused("denied", message, remedy, details={**details, "sha256": one.sha256})


def _absolute(cwd: bytes, path: bytes) -> bytes:
    """A relative one beneath the working directory; `./` before it says nothing."""
    if path.startswith(b"/"):
        return path
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    return cwd.rstrip(b"/") + b"/" + path


def _show(path: bytes) -> str:
    return shown(path.decode("utf-8", "backslashreplace"), 200)
