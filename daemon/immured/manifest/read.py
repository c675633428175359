"""From TOML or a wire map to a Manifest: one validator for both. Pure.

Whatever is not understood is refused with `manifest_invalid`, and the message names the field by its path. Whatever is
understood but cannot be enforced yet is refused too: nothing asked for is silently dropped.
"""

from __future__ import annotations

import hashlib
import tomllib
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.environment import environment_problem
from immured.manifest.items import (
    INVALID,
    read_bind,
    read_command,
    read_label,
    read_list,
    read_passed,
    read_path,
    read_protected,
    read_syscall,
    read_target,
    read_tmpfs,
    show,
    text_bytes,
)
from immured.manifest.limits import limits_of
from immured.manifest.paths import ALWAYS_MOUNTED, beneath
from immured.manifest.protect import protected_places
from immured.manifest.schema import Command, Filesystem, Manifest, Network, Syscalls
from immured.wire.strict import kind_of, shown, take
from immured.wire.strict_msgpack import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from immured.wire.strict import Fields

__all__ = ["MAX_TEXT", "inline_digest", "read_map", "read_toml"]

MAX_TEXT: Final = 256 * 1024
"""Bytes of a manifest's TOML."""

_MAX_PATHS: Final = 256  # all lists of [filesystem] together: a plan has 512 steps
_MAX_COMMANDS: Final = 256
_MAX_SYSCALLS: Final = 512
_MAX_LABELS: Final = 64

_TOP: Final = tuple(
    "schema name class command filesystem network limits syscalls personas tenants secrets consent".split()
)


def read_toml(text: str | bytes, classes: Callable[[str], Manifest | None]) -> Manifest:
    """A manifest from a file's text; its digest is over exactly these bytes. `classes` answers a class by its name.

    Raises Refused `manifest_invalid`.
    """
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MAX_TEXT:
        raise Refused(INVALID, f"the manifest has {len(raw)} bytes; at most {MAX_TEXT}", "make it smaller")
    try:
        values: Mapping[str, object] = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is no TOMLDecodeError
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(INVALID, f"the manifest is not TOML: {reason}", "see https://toml.io") from None
    fields = take(values, "manifest", _TOP, code=INVALID, unknown=INVALID)
    fields.required("name", str)
    return _manifest(fields, "sha256:" + hashlib.sha256(raw).hexdigest(), classes)


def inline_digest(values: object) -> str:
    """The digest of a manifest as a map: SHA-256 of its msgpack, the keys of every map sorted.

    Raises Refused `manifest_invalid` where it is no map, and as `strict_msgpack.pack` does.
    """
    take(values, "manifest", _TOP, code=INVALID, unknown=INVALID)
    return "sha256:" + hashlib.sha256(pack(_canonical(values))).hexdigest()


def read_map(values: object, digest: str, classes: Callable[[str], Manifest | None]) -> Manifest:
    """A manifest from a map as it came over the wire; `digest` is its `inline_digest`.

    Raises Refused `manifest_invalid`.
    """
    return _manifest(take(values, "manifest", _TOP, code=INVALID, unknown=INVALID), digest, classes)


def _manifest(fields: Fields, digest: str, classes: Callable[[str], Manifest | None]) -> Manifest:
    schema = fields.required("schema", int)
    if schema != 1:
        raise fields.wrong("schema", f"is {schema}; this version knows schema 1")
    class_ = read_label(fields, "class", fields.values.get("class", "default"))
    base = classes(class_)
    if base is None:
        raise fields.wrong("class", f"is {shown(class_)}, which is no class", "the built-in class is 'default'")
    _refuse_unsupported(fields)
    manifest = Manifest(
        name=read_label(fields, "name", fields.values.get("name", "inline")),
        class_=class_,
        digest=digest,
        command=_command(fields, base.command),
        filesystem=_filesystem(fields, base.filesystem),
        network=_network(fields, base.network),
        limits=limits_of(
            fields.values.get("limits", {}), "manifest.limits", base.limits, code=INVALID, unknown=INVALID
        ),
        syscalls=_syscalls(fields, base.syscalls),
        personas=read_list(fields, "personas", (), read_label, _MAX_LABELS),
        tenants=read_list(fields, "tenants", (), read_label, _MAX_LABELS),
    )
    _check_disk(manifest)
    return manifest


def _table(fields: Fields, name: str, *known: str) -> Fields:
    return take(fields.values.get(name, {}), f"manifest.{name}", known, code=INVALID, unknown=INVALID)


def _refuse_unsupported(fields: Fields) -> None:
    """What the contract names and this version cannot do: empty is fine, anything else would be a promise not kept."""
    if fields.optional("secrets", dict):
        raise _unsupported(fields, "secrets", "leave [secrets] out")
    if fields.optional("consent", dict):
        consent = _table(fields, "consent", "required")
        if consent.values["required"] not in (False, []):
            raise _unsupported(consent, "required", "leave [consent] out")


def _unsupported(fields: Fields, name: str, remedy: str, value: str = "") -> Refused:
    refused = fields.wrong(name, f"{value}is not supported by this version, and not ignored either", remedy)
    refused.details["unsupported"] = refused.details["field"]
    return refused


def _command(top: Fields, base: Command) -> Command:
    fields = _table(top, "command", "allow", "cwd", "env", "pass_env")
    env = dict(base.env)
    for name, value in (fields.optional("env", dict) or {}).items():
        if not isinstance(value, (str, bytes)):
            raise fields.wrong("env", f"holds {kind_of(value)} in {shown(str(name))}, not a text")
        env[text_bytes(name)] = text_bytes(value)
    if problem := environment_problem(env):
        raise fields.wrong("env", problem)
    return Command(
        allow=read_list(fields, "allow", base.allow, read_command, _MAX_COMMANDS),
        cwd=read_path(fields, "cwd", fields.values.get("cwd", base.cwd)),
        env=tuple(env.items()),
        pass_env=read_list(fields, "pass_env", base.pass_env, read_passed, _MAX_PATHS),
    )


def _filesystem(top: Fields, base: Filesystem) -> Filesystem:
    fields = _table(top, "filesystem", "root", "read", "write", "tmpfs", "protect", "hide", "on_violation", "noexec")
    root = base.root
    if "root" in fields:
        root = None if fields.values["root"] == "host" else read_path(fields, "root", fields.values["root"])
    on_violation = fields.optional("on_violation", str) or base.on_violation
    if on_violation not in ("deny", "halt"):
        raise fields.wrong("on_violation", f"is {shown(on_violation)}; it may be 'deny' or 'halt'")
    read = read_list(fields, "read", base.read, read_bind, _MAX_PATHS)
    write = read_list(fields, "write", base.write, read_bind, _MAX_PATHS)
    bound = {bind.target for bind in (*read, *write)}
    inherited = tuple(one for one in base.tmpfs if one.target not in bound)
    found = Filesystem(
        root=root,
        read=read,
        write=write,
        tmpfs=read_list(fields, "tmpfs", inherited, read_tmpfs, _MAX_PATHS),
        protect=read_list(fields, "protect", base.protect, read_protected, _MAX_PATHS),
        hide=read_list(fields, "hide", base.hide, read_target, _MAX_PATHS),
        on_violation=on_violation,
        noexec=read_list(fields, "noexec", base.noexec, read_path, _MAX_PATHS),
    )
    _check_places(fields, found)
    return found


def _check_places(fields: Fields, found: Filesystem) -> None:
    places = [(name, bind.target) for name in ("read", "write") for bind in getattr(found, name)]
    places += [("tmpfs", one.target) for one in found.tmpfs]
    protected = protected_places(found)
    count = len(places) + len(found.hide) + len(protected)
    if count > _MAX_PATHS:
        raise fields.wrong("read", f"and the other lists have {count} paths; at most {_MAX_PATHS}")
    taken: dict[bytes, str] = {}
    for name, target in places:
        if other := taken.get(target):
            where = "" if other == name else f", in {other} too"
            raise fields.wrong(name, f"places {show(target)} twice{where}", "name each place inside once")
        taken[target] = name
    for one in protected:
        if any(beneath(one.path, hidden) for hidden in found.hide):
            raise fields.wrong("protect", f"holds {show(one.path)}, which `hide` hides", "name it in one of the two")
    for path in found.noexec if "noexec" in fields else ():
        if path not in taken and path not in ALWAYS_MOUNTED:
            remedy = "name the place of an entry of read, write or tmpfs, /tmp or /dev/shm"
            raise fields.wrong("noexec", f"holds {show(path)}, at which nothing is mounted", remedy)


def _check_disk(manifest: Manifest) -> None:
    """The limit `disk` is for all private file systems together, so those with a size of their own must fit in it."""
    disk = manifest.limits.disk
    sizes = sum(one.size or 0 for one in manifest.filesystem.tmpfs)
    if disk is not None and sizes > disk:
        raise Refused(
            INVALID,
            f"manifest.filesystem.tmpfs has sizes of {sizes} bytes together, more than limits.disk of {disk}",
            "raise limits.disk, or make them smaller",
            details={"field": "manifest.filesystem.tmpfs"},
        )


def _network(top: Fields, base: Network) -> Network:
    fields = _table(top, "network", "mode")
    mode = fields.optional("mode", str) or base.mode
    if mode not in ("none", "loopback"):
        raise fields.wrong("mode", f"is {shown(mode)}; it may be 'none' or 'loopback'")
    return Network(mode)


def _syscalls(top: Fields, base: Syscalls) -> Syscalls:
    fields = _table(top, "syscalls", "profile", "allow", "deny")
    return Syscalls(
        profile=read_label(fields, "profile", fields.values.get("profile", base.profile)),
        allow=read_list(fields, "allow", base.allow, read_syscall, _MAX_SYSCALLS),
        deny=read_list(fields, "deny", base.deny, read_syscall, _MAX_SYSCALLS),
    )


def _canonical(value: object) -> object:
    if isinstance(value, dict):
        return {name: _canonical(value[name]) for name in sorted(value)}
    return [_canonical(one) for one in value] if isinstance(value, list) else value
