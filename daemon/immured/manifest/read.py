"""From TOML or a wire map to a Manifest: one validator for both. Pure.

Whatever is not understood is refused with `manifest_invalid`, and the message names the field by its path. Whatever is
understood but cannot be enforced yet is refused too: nothing asked for is silently dropped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.declared import extremes, read_parameters, sample
from immured.manifest.environment import environment_problem
from immured.manifest.items import (
    INVALID,
    read_bind,
    read_label,
    read_list,
    read_member,
    read_passed,
    read_path,
    read_program,
    read_protected,
    read_syscall,
    read_target,
    read_tmpfs,
    read_volume,
    show,
    text_bytes,
)
from immured.manifest.limits import limits_of
from immured.manifest.paths import ALWAYS_MOUNTED, beneath
from immured.manifest.protect import protected_places
from immured.manifest.reserved import check_destinations, check_secrets
from immured.manifest.schema import CLASSES, Command, Consent, Filesystem, Manifest, Network, Syscalls
from immured.manifest.substitute import Substitution
from immured.manifest.units import duration_of
from immured.manifest.unseen import unseen
from immured.wire.strict import Fields, kind_of, shown, take
from immured.wire.strict_msgpack import pack
from immured.wire.strict_toml import parse_toml

if TYPE_CHECKING:
    from immured.manifest.schema import Limits, Parameter

__all__ = ["MAX_TEXT", "Classes", "inline_digest", "read_filled", "read_map", "read_toml"]

Classes = Callable[[str], Manifest | None]
"""Answers a class by its name."""

MAX_TEXT: Final = 256 * 1024
"""Bytes of a manifest's TOML."""

_MAX_PATHS: Final = 256  # all lists of [filesystem] together: a plan has 512 steps
_MAX_COMMANDS: Final = 256
_MAX_SYSCALLS: Final = 512
_MAX_LABELS: Final = 64
_MAX_CONSENT_MS: Final = 86_400_000
_IMAGE: Final = re.compile(r"image:sha256:([0-9a-f]{64})", re.ASCII)

_TOP: Final = tuple(
    "schema name class command filesystem network limits syscalls personas tenants parameters secrets consent".split()
)


def read_toml(text: str | bytes, classes: Classes) -> Manifest:
    """A manifest from a file's text; its digest is over exactly these bytes. `classes` answers a class by its name.

    Raises Refused `manifest_invalid`.
    """
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MAX_TEXT:
        raise Refused(INVALID, f"the manifest has {len(raw)} bytes; at most {MAX_TEXT}", "make it smaller")
    try:
        values = parse_toml(raw)
    except ValueError as error:
        with suppress(UnicodeDecodeError):
            _check_seen(raw.decode())  # a person looks in vain for what the parser stopped at
        raise Refused(INVALID, f"the manifest is not TOML: {error}", "see https://toml.io") from None
    _check_seen(raw.decode())
    fields = take(values, "manifest", _TOP, code=INVALID, unknown=INVALID)
    if "name" not in fields:
        raise fields.wrong("name", "is missing")
    return _whole(fields, "sha256:" + hashlib.sha256(raw).hexdigest(), classes)


def _check_seen(text: str) -> None:
    """A person signs what he sees: no character of a file is invisible, turns others around or passes for a space.
    Where one is meant, TOML can name it (`\\u202e`)."""
    for number, line in enumerate(text.split("\n"), 1):
        if beyond := unseen(line.replace("\t", " ").replace("\r", " ")):
            raise Refused(
                INVALID,
                f"line {number} of the manifest holds the character U+{ord(beyond):04X}, which cannot be seen",
                f"leave it out, or write \\U{ord(beyond):08x} within a text",
                details={"line": number},
            )


def inline_digest(values: object) -> str:
    """The digest of a manifest as a map: SHA-256 of its msgpack, the keys of every map sorted.

    Raises Refused `manifest_invalid` where it is no map, and as `strict_msgpack.pack` does.
    """
    return "sha256:" + hashlib.sha256(inline_bytes(values)).hexdigest()


def inline_bytes(values: object) -> bytes:
    """What that digest is of. Raises as `inline_digest` does."""
    take(values, "manifest", _TOP, code=INVALID, unknown=INVALID)
    return pack(_canonical(values))


def read_map(values: object, digest: str, classes: Classes) -> Manifest:
    """A manifest from a map as it came over the wire; `digest` is its `inline_digest`.

    Raises Refused `manifest_invalid`.
    """
    return _whole(take(values, "manifest", _TOP, code=INVALID, unknown=INVALID), digest, classes)


def read_filled(manifest: Manifest, values: Mapping[str, str | int], classes: Classes) -> Manifest:
    """The manifest with each of its parameters at this value; its digest stays what was written.

    Raises Refused `manifest_invalid` for what it then says. `manifest.template` is not None.
    """
    filled = Substitution(manifest.parameters, values).apply(manifest.template or {})
    made = _manifest(Fields(filled, "manifest", INVALID), manifest.digest, classes)
    return replace(made, parameters=manifest.parameters, given=tuple(sorted(values.items())))


def _whole(fields: Fields, digest: str, classes: Classes) -> Manifest:
    """With samples where a run will fill something in, so that what is wrong whatever it gives is found at once."""
    parameters = read_parameters(fields)
    if not parameters:
        return _manifest(fields, digest, classes)
    samples = {one.name: sample(one) for one in parameters}
    filled = Substitution(parameters, samples).apply(fields.values)
    made = _manifest(Fields(filled, "manifest", INVALID), digest, classes)
    _check_extremes(fields.values.get("limits"), parameters, samples, made.limits)
    return replace(made, parameters=parameters, template=fields.values)


def _check_extremes(
    limits: object, parameters: tuple[Parameter, ...], samples: Mapping[str, str | int], base: Limits
) -> None:
    """No value that the parameters allow is one that the limit does not."""
    for name, value in limits.items() if isinstance(limits, dict) else ():
        for one in parameters:
            if not isinstance(value, str) or f"${{{one.name}}}" not in value:
                continue
            for extreme in extremes(one):
                filled = Substitution(parameters, {**samples, one.name: extreme}).limit(name, value)
                limits_of({name: filled}, "manifest.limits", base, code=INVALID, unknown=INVALID)


def _manifest(fields: Fields, digest: str, classes: Classes) -> Manifest:
    schema = fields.required("schema", int)
    if schema != 1:
        raise fields.wrong("schema", f"is {schema}; this version knows schema 1")
    class_ = read_label(fields, "class", fields.values.get("class", "default"))
    base = classes(class_)
    if base is None:
        raise fields.wrong("class", f"is {shown(class_)}, which is no class", f"the classes are {', '.join(CLASSES)}")
    check_secrets(fields)
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
        personas=read_list(fields, "personas", (), read_member, _MAX_LABELS),
        tenants=read_list(fields, "tenants", (), read_member, _MAX_LABELS),
        consent=_consent(fields, base.consent),
    )
    _check_disk(manifest)
    return manifest


def _table(fields: Fields, name: str, *known: str) -> Fields:
    return take(fields.values.get(name, {}), f"manifest.{name}", known, code=INVALID, unknown=INVALID)


def _consent(top: Fields, base: Consent) -> Consent:
    fields = _table(top, "consent", "required", "text", "valid")
    required = fields.optional("required", bool)
    return Consent(
        required=base.required if required is None else required,
        text=read_label(fields, "text", fields.values.get("text", base.text)),
        valid_ms=_valid_ms(fields) if "valid" in fields else base.valid_ms,
    )


def _valid_ms(fields: Fields) -> int:
    try:
        valid_ms = duration_of(fields.required("valid", str)) // 10**6
    except ValueError as error:
        raise fields.wrong("valid", f"is {shown(str(fields.values['valid']))}; {error}") from None
    if not 1000 <= valid_ms <= _MAX_CONSENT_MS:
        raise fields.wrong("valid", f"is {shown(str(fields.values['valid']))}; it may be 1s to 24h")
    return valid_ms


def _command(top: Fields, base: Command) -> Command:
    fields = _table(top, "command", "allow", "pin", "cwd", "env", "pass_env")
    env = dict(base.env)
    for name, value in (fields.optional("env", dict) or {}).items():
        if not isinstance(value, (str, bytes)):
            raise fields.wrong("env", f"holds {kind_of(value)} in {shown(str(name))}, not a text")
        env[text_bytes(name)] = text_bytes(value)
    if problem := environment_problem(env):
        raise fields.wrong("env", problem)
    allow = read_list(fields, "allow", base.allow, read_program, _MAX_COMMANDS)
    pin = fields.optional("pin", bool)
    if pin is None:
        pin = bool(allow) if "allow" in fields else base.pin
    if not pin and any(one.sha256 for one in allow):
        raise fields.wrong(
            "pin", "is false, and `allow` names a sha256", "leave it out: only what is pinned is compared"
        )
    return Command(
        allow=allow,
        cwd=read_path(fields, "cwd", fields.values.get("cwd", base.cwd)),
        env=tuple(env.items()),
        pass_env=read_list(fields, "pass_env", base.pass_env, read_passed, _MAX_PATHS),
        pin=pin,
    )


def _filesystem(top: Fields, base: Filesystem) -> Filesystem:
    fields = _table(
        top,
        "filesystem",
        "root",
        "read",
        "write",
        "tmpfs",
        "protect",
        "hide",
        "on_violation",
        "noexec",
        "root_layer",
        "volumes",
        "capture",
    )
    root, image = _root(fields, base)
    on_violation = fields.optional("on_violation", str)
    on_violation = base.on_violation if on_violation is None else on_violation
    if on_violation not in ("deny", "halt"):
        raise fields.wrong("on_violation", f"is {shown(on_violation)}; it may be 'deny' or 'halt'")
    read = read_list(fields, "read", base.read, read_bind, _MAX_PATHS)
    write = read_list(fields, "write", base.write, read_bind, _MAX_PATHS)
    volumes = read_list(fields, "volumes", base.volumes, read_volume, _MAX_PATHS)
    capture = read_list(fields, "capture", base.capture, read_bind, _MAX_PATHS)
    if any(bind.optional for bind in capture):
        raise fields.wrong("capture", "holds an optional directory", "capture one that is there")
    bound = {*(one.target for one in (*read, *write, *capture)), *(one.target for one in volumes)}
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
        image=image,
        root_layer=_root_layer(fields, base, image),
        volumes=volumes,
        capture=capture,
    )
    _check_places(fields, found)
    return found


def _root(fields: Fields, base: Filesystem) -> tuple[bytes | None, str | None]:
    """The directory that is the root, or the image; neither: the host's programs."""
    if "root" not in fields:
        return base.root, base.image
    value = fields.values["root"]
    if value == "host":
        return None, None
    if isinstance(value, str) and value.startswith("image:"):
        found = _IMAGE.fullmatch(value)
        if found is None:
            raise fields.wrong("root", f"is {shown(value, 100)}; an image is 'image:sha256:' and 64 hex digits")
        return None, found[1]
    return read_path(fields, "root", value), None


def _root_layer(fields: Fields, base: Filesystem, image: str | None) -> bool:
    layered = fields.optional("root_layer", bool)
    if layered and image is None:
        raise fields.wrong("root_layer", "is for a root that is an image", 'name one with `root = "image:sha256:…"`')
    return image is not None and (base.root_layer if layered is None else layered)


def _check_places(fields: Fields, found: Filesystem) -> None:
    places = [(name, bind.target) for name in ("read", "write", "capture") for bind in getattr(found, name)]
    places += [("tmpfs", one.target) for one in found.tmpfs]
    places += [("volumes", one.target) for one in found.volumes]
    if len({one.name for one in found.volumes}) != len(found.volumes):
        raise fields.wrong("volumes", "names a volume twice", "a volume stands at one place")
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
    fields = _table(top, "network", "mode", "allow")
    check_destinations(fields)
    mode = fields.optional("mode", str)
    mode = base.mode if mode is None else mode
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
