"""What in a manifest is allowed, and perhaps not meant. Pure.

Each piece of advice has a `kind` of its own; docs/manifest.md (Lint) lists them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from immured.manifest.builtin import class_manifest
from immured.manifest.change import is_sensitive, shown_word
from immured.manifest.finding import Level
from immured.manifest.items import text_bytes
from immured.manifest.limits import show_limit
from immured.manifest.paths import beneath
from immured.manifest.places import Places, Right
from immured.manifest.schema import Protected, ProtectGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from immured.manifest.difference import Calls
    from immured.manifest.lines import Path
    from immured.manifest.schema import Bind, Manifest

__all__ = ["FOR_ALL", "Advice", "advise", "advise_text"]

Advice = tuple["Path | int", Level, str, str, str]
"""Where (a path in the file, or a line), how grave, its kind, what is to be said, and what to do."""

FOR_ALL: Final = frozenset({"everybody", "any-command", "any-variable", "unprotected", "no-end", "no-disk"})
"""Kinds that are said of what comes from the class as well."""

_INTERPRETERS: Final = (
    *(b"sh", b"bash", b"dash", b"zsh", b"ksh", b"busybox", b"env", b"perl", b"ruby", b"node", b"awk", b"xargs"),
    *(b"find", b"sudo", b"timeout", b"nice", b"nohup", b"setsid", b"stdbuf", b"lua", b"php"),
)
_VERSIONED: Final = re.compile(rb"python[0-9.]*|node[0-9.]*|perl[0-9.]*|ruby[0-9.]*|php[0-9.]*|lua[0-9.]*")
_SECRET: Final = re.compile(rb"SECRET|TOKEN|PASSW|API_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)
_SHARP: Final = frozenset({"@debug", "@watching", "@legacy", "ptrace", "process_vm_writev", "inotify_add_watch"})
_LONG: Final = 24 * 3600 * 10**9


def advise_text(text: str) -> Iterator[Advice]:
    """Of the bytes alone: what may change by itself."""
    if "\r\n" in text:
        number = text[: text.index("\r\n")].count("\n") + 1
        remedy = "write LF alone: whatever converts them changes the digest, and no signature holds"
        yield number, Level.NOTE, "line-ends", "lines end with CR LF", remedy


def advise(manifest: Manifest, values: Mapping[str, object], calls: Calls | None = None) -> Iterator[Advice]:
    """Of a manifest that the validator takes. `values`: the file's; `calls`: as for `difference`."""
    yield from _use(manifest)
    yield from _command(manifest)
    yield from _paths(manifest)
    yield from _covers(manifest)
    yield from _dropped(manifest, values)
    yield from _limits(manifest)
    yield from _syscalls(manifest, calls)
    yield from _rest(manifest, values)


def _use(manifest: Manifest) -> Iterator[Advice]:
    if not manifest.personas and not manifest.tenants:
        remedy = "name who it is for: personas, tenants"
        yield (), Level.NOTE, "everybody", "it is for every persona and every tenant", remedy


def _command(manifest: Manifest) -> Iterator[Advice]:
    command = manifest.command
    if not command.allow:
        yield ("command", "allow"), Level.NOTE, "any-command", "any command may be ordered", "name them: allow"
        return
    if not command.pin:
        said = "what is allowed is not pinned: whoever can change the file decides what runs"
        yield ("command", "pin"), Level.WARNING, "unpinned", said, "leave `pin` out, or make it true"
    for index, program in enumerate(command.allow):
        base = program.name.rpartition(b"/")[2]
        if not program.arguments and (base in _INTERPRETERS or _VERSIONED.fullmatch(base)):
            said = f"{shown_word(program.name)} with any arguments runs whatever it is told to"
            remedy = 'say which: { program = "…", arguments = [["script.py", "..."]] }'
            yield ("command", "allow", index), Level.NOTE, "interpreter", said, remedy
    for index, pattern in enumerate(command.pass_env):
        if pattern == "*" or "LD_PRELOAD".startswith(pattern.removesuffix("*")):
            said = f"a run may set LD_PRELOAD by {pattern}, and with it what an allowed program does"
            yield ("command", "pass_env", index), Level.WARNING, "any-variable", said, "name the variables: pass_env"
            break


def _paths(manifest: Manifest) -> Iterator[Advice]:
    filesystem = manifest.filesystem
    for name in ("write", "capture"):
        for index, bind in enumerate(getattr(filesystem, name)):
            if is_sensitive(bind.source):
                said = f"{shown_word(bind.source)} is the system's, a home directory, or a hidden part of one"
                yield ("filesystem", name, index), Level.WARNING, "sensitive-write", said, "write to less of it"
    written = [*filesystem.write, *filesystem.capture]
    groups = {one.name for one in filesystem.protect if isinstance(one, ProtectGroup)}
    if written and "vcs" not in groups:
        said = "what is written may hold .git, whose hooks and configuration name programs that run later"
        yield ("filesystem", "write"), Level.NOTE, "unprotected", said, 'protect = ["@vcs", ...]'
    for name in ("read", "write"):
        binds = getattr(filesystem, name)
        for index, bind in enumerate(binds):
            outer = next((one for one in binds if one is not bind and _shows(one, bind)), None)
            if outer is not None:
                said = f"{shown_word(bind.source)} is there by {shown_word(outer.source)} already"
                yield ("filesystem", name, index), Level.NOTE, "within", said, "leave it out"


def _shows(outer: Bind, inner: Bind) -> bool:
    """Whether the outer bind shows the inner one's path at the same place, with the same rights."""
    if outer.noexec != inner.noexec or outer == inner:
        return False
    rest = inner.source[len(outer.source) :]
    return beneath(inner.source, outer.source) and inner.target == outer.target + rest


def _covers(manifest: Manifest) -> Iterator[Advice]:
    filesystem = manifest.filesystem
    bare = Places(replace(filesystem, hide=(), protect=()))
    for index, path in enumerate(filesystem.hide):
        if not bare.at(path).rights:
            said = f"{shown_word(path)} is shown by nothing"
            yield ("filesystem", "hide", index), Level.NOTE, "hides-nothing", said, "leave it out"
    for index, one in enumerate(filesystem.protect):
        if isinstance(one, Protected):
            idle = Right("put") not in bare.at(one.path).rights
            said = f"nothing at {shown_word(one.path)} can be written anyway"
        else:
            idle = not (filesystem.write or filesystem.capture)
            said = f"@{one.name} stands beneath what `write` and `capture` name, and they name nothing"
        if idle:
            yield ("filesystem", "protect", index), Level.NOTE, "protects-nothing", said, "leave it out"


def _dropped(manifest: Manifest, values: Mapping[str, object]) -> Iterator[Advice]:
    """A list that is given takes the class's place whole: what the class kept closed may be open."""
    base = class_manifest(manifest.class_)
    if base is None:
        return
    for table, name in (
        ("filesystem", "protect"),
        ("filesystem", "hide"),
        ("filesystem", "noexec"),
        ("syscalls", "deny"),
    ):
        given = values.get(table)
        if not isinstance(given, dict) or name not in given:
            continue
        kept = getattr(getattr(manifest, table), name)
        lost = [_named(one) for one in getattr(getattr(base, table), name) if one not in kept]
        if lost:
            said = f"the class {base.class_} has {', '.join(lost)} here, and this list takes its place"
            yield (table, name), Level.WARNING, "dropped", said, "name those as well"


def _named(one: Protected | ProtectGroup | bytes | str) -> str:
    if isinstance(one, ProtectGroup):
        return f"@{one.name}"
    return one if isinstance(one, str) else shown_word(one.path if isinstance(one, Protected) else one)


def _limits(manifest: Manifest) -> Iterator[Advice]:
    limits = manifest.limits
    if limits.wall is None or limits.wall > _LONG:
        said = f"a run may last {'for ever' if limits.wall is None else show_limit('wall', limits.wall)}"
        yield ("limits", "wall"), Level.WARNING, "no-end", said, 'such as wall = "10m"'
    if limits.disk is None:
        said = "private files are bounded by `memory` alone"
        yield ("limits", "disk"), Level.NOTE, "no-disk", said, 'such as disk = "512M"'


def _syscalls(manifest: Manifest, calls: Calls | None) -> Iterator[Advice]:
    syscalls = manifest.syscalls
    plain = None if calls is None else calls(replace(syscalls, allow=(), deny=()))
    for index, name in enumerate(syscalls.allow):
        where: Path = ("syscalls", "allow", index)
        added = None if calls is None else calls(replace(syscalls, allow=(name,), deny=()))
        if name in syscalls.deny:
            yield where, Level.WARNING, "denied-too", f"{name} is in `deny` as well, which wins", "leave one out"
        elif name in _SHARP:
            said = f"{name} reaches other processes of the sandbox, tells of the host, or is rarely needed"
            yield where, Level.WARNING, "sharp-call", said, "leave it out, unless it is for a debugger"
        elif plain is not None and added == plain:
            said = f"the profile {syscalls.profile} grants {name} already"
            yield where, Level.NOTE, "granted-already", said, "leave it out"


def _rest(manifest: Manifest, values: Mapping[str, object]) -> Iterator[Advice]:
    command, consent = values.get("command"), values.get("consent")
    env = command.get("env") if isinstance(command, dict) else None
    for name, value in env.items() if isinstance(env, dict) else ():
        if value and _SECRET.search(text_bytes(name)):
            said = f"{shown_word(text_bytes(name))} looks like a secret, and whoever sees the manifest has it"
            yield ("command", "env", name), Level.WARNING, "secret", said, "let the run bring it: pass_env"
    if isinstance(consent, dict) and not manifest.consent.required and consent.keys() & {"text", "valid"}:
        said = "nobody is asked: `required` is false"
        yield ("consent",), Level.WARNING, "consent-unused", said, "required = true, or leave [consent] out"
    written = repr({name: value for name, value in values.items() if name != "parameters"})
    for one in manifest.parameters:
        where = ("parameters", one.name)
        if f"${{{one.name}}}" not in written:
            yield where, Level.WARNING, "parameter-unused", f"{one.name} stands nowhere", "leave it out"
        for index, within in enumerate(one.within):
            if is_sensitive(within):
                said = f"{one.name} may be anywhere beneath {shown_word(within)}"
                yield (*where, "within", index), Level.NOTE, "parameter-wide", said, "name less of it"
