"""What a manifest admits, field by field, in words: for whoever is to sign it, load it or run under it. Pure.

Which of two admits more is `difference`'s to say; both speak of the same fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.manifest.change import shown_word
from immured.manifest.limits import show_limit
from immured.manifest.schema import LIMITS, Manifest, ProtectGroup
from immured.manifest.units import show_duration

if TYPE_CHECKING:
    from immured.manifest.schema import Bind, Parameter, Program

__all__ = ["Capability", "capabilities"]


@dataclass(frozen=True, slots=True)
class Capability:
    """What one field admits: a sentence each, without its end."""

    field: str
    words: tuple[str, ...]


def capabilities(manifest: Manifest) -> Mapping[str, Capability]:
    """By field, in the order of a manifest; a field that admits nothing is not there."""
    found = {field: tuple(tell(manifest)) for field, tell in _TOLD.items()}
    return {field: Capability(field, words) for field, words in found.items() if words}


def _members(one: str, names: tuple[str, ...]) -> list[str]:
    return [f"is for the {one} {name}" for name in names] or [f"is for every {one}"]


def _allow(manifest: Manifest) -> Iterable[str]:
    if not manifest.command.allow:
        return ["allows any command"]
    return [_program(one) for one in manifest.command.allow]


def _program(program: Program) -> str:
    words = f"allows the program {shown_word(program.name)}"
    patterns = [" ".join(map(shown_word, pattern)) or "none" for pattern in program.arguments]
    words += f" with the arguments {' or '.join(patterns)}" if patterns else " with any arguments"
    return words + (f", of the SHA-256 {program.sha256}" if program.sha256 else "")


def _env(manifest: Manifest) -> Iterable[str]:
    return [f"sets {shown_word(name)}={shown_word(value)}" for name, value in manifest.command.env]


def _passed(manifest: Manifest) -> Iterable[str]:
    return [f"lets a run set {'any variable' if one == '*' else one}" for one in manifest.command.pass_env]


def _root(manifest: Manifest) -> Iterable[str]:
    filesystem = manifest.filesystem
    if filesystem.image is not None:
        layer = ", and writes to it in a layer of its own" if filesystem.root_layer else ""
        return [f"has the image sha256:{filesystem.image} as its root{layer}"]
    if filesystem.root is not None:
        return [f"has {shown_word(filesystem.root)} as its root"]
    return ["has the host's programs as its root"]


def _bind(verb: str, bind: Bind) -> str:
    words = f"{verb} {shown_word(bind.source)}"
    words += "" if bind.source == bind.target else f" at {shown_word(bind.target)}"
    words += ", executes nothing there" if bind.noexec else ""
    return words + (", where it is there" if bind.optional else "")


def _tmpfs(manifest: Manifest) -> Iterable[str]:
    for one in manifest.filesystem.tmpfs:
        size = "" if one.size is None else f" of {show_limit('disk', one.size)}"
        yield f"has a private directory{size} at {shown_word(one.target)}"


def _protect(manifest: Manifest) -> Iterable[str]:
    for one in manifest.filesystem.protect:
        if isinstance(one, ProtectGroup):
            yield f"leaves @{one.name} as it is"
        else:
            absent = "" if one.absent == "held" else f" ({one.absent} where it is not there)"
            yield f"leaves {shown_word(one.path)} as it is{absent}"


def _limits(manifest: Manifest) -> Iterable[str]:
    for name in LIMITS:
        yield f"{name} {show_limit(name, getattr(manifest.limits, name))}"
    if manifest.limits.strict:
        yield "refuses to run where a limit is held by a weaker means"


def _syscalls(manifest: Manifest) -> Iterable[str]:
    syscalls = manifest.syscalls
    yield f"makes the system calls of the profile {syscalls.profile}"
    if syscalls.allow:
        yield f"and beside them {', '.join(syscalls.allow)}"
    if syscalls.deny:
        yield f"but never {', '.join(syscalls.deny)}"


def _parameters(manifest: Manifest) -> Iterable[str]:
    for one in manifest.parameters:
        yield f"takes {one.name}: {_bound(one)}{'' if one.default is None else ', unless given ' + repr(one.default)}"


def _bound(parameter: Parameter) -> str:
    if parameter.type == "path":
        return f"a path beneath {' or '.join(map(shown_word, parameter.within))}"
    if parameter.type == "integer":
        return f"{parameter.least} to {parameter.most}"
    if parameter.type == "choice":
        return f"one of {', '.join(parameter.values)}"
    return f"up to {parameter.longest} characters of {parameter.pattern}"


def _consent(manifest: Manifest) -> Iterable[str]:
    consent = manifest.consent
    if consent.required:
        yield f"asks for consent by the text {consent.text}, which holds for {show_duration(consent.valid_ms * 10**6)}"


_TOLD: Final[Mapping[str, Callable[[Manifest], Iterable[str]]]] = {
    "personas": lambda one: _members("persona", one.personas),
    "tenants": lambda one: _members("tenant", one.tenants),
    "command.allow": _allow,
    "command.pin": lambda one: ["runs the very files that were opened and digested"] if one.command.pin else [],
    "command.cwd": lambda one: [f"starts in {shown_word(one.command.cwd)}"],
    "command.env": _env,
    "command.pass_env": _passed,
    "filesystem.root": _root,
    "filesystem.read": lambda one: [_bind("reads", bind) for bind in one.filesystem.read],
    "filesystem.write": lambda one: [_bind("writes to", bind) for bind in one.filesystem.write],
    "filesystem.capture": lambda one: [_bind("writes to a layer over", bind) for bind in one.filesystem.capture],
    "filesystem.volumes": lambda one: [
        f"writes to the volume {volume.name} at {shown_word(volume.target)}" for volume in one.filesystem.volumes
    ],
    "filesystem.tmpfs": _tmpfs,
    "filesystem.protect": _protect,
    "filesystem.hide": lambda one: [f"sees nothing at {shown_word(path)}" for path in one.filesystem.hide],
    "filesystem.noexec": lambda one: [f"executes nothing in {shown_word(path)}" for path in one.filesystem.noexec],
    "filesystem.on_violation": lambda one: (
        ["ends at its first refused write"] if one.filesystem.on_violation == "halt" else []
    ),
    "network.mode": lambda one: [
        "has an interface lo of its own, and no other" if one.network.mode == "loopback" else "has no network"
    ],
    "limits": _limits,
    "syscalls": _syscalls,
    "parameters": _parameters,
    "consent": _consent,
}
