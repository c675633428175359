"""What is looked at: a manifest that is loaded, one that comes with the command, or a file that is not loaded yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from immured.errors import Refused
from immured.manifest.builtin import parse_map
from immured.manifest.parameters import fill
from immured.service.arguments import parse_manifest, raw_bytes
from immured.wire.strict import Fields, take

if TYPE_CHECKING:
    from immured.manifest.pipeline import Judged
    from immured.manifest.schema import Manifest
    from immured.service.context import Service
    from immured.service.manifest_store import Loaded
    from immured.service.request import Request

__all__ = ["Subject", "find_subject"]

_KNOWN = ("manifest", "raw", "signatures", "argv", "parameters")
_MAX_FILE = 256 * 1024
_MAX_SIGNATURES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """`manifest` is None where nobody can read it, and then something else says why: `refusal` (of a loaded one), or
    `judged` (of a file). `loaded`: it may be used. `unfilled`: why its parameters are not what they may be.
    """

    digest: str
    manifest: Manifest | None
    loaded: Loaded | None = None
    judged: Judged | None = None
    refusal: Refused | None = None
    inline: bool = False
    argv: tuple[bytes, ...] = ()
    unfilled: Refused | None = None


async def find_subject(service: Service, request: Request) -> Subject:
    """Raises Refused `bad_argument`, `unknown_field`; `unknown_manifest` for a digest that is not loaded;
    `manifest_invalid` for a map that is none; `denied` where not even this may be asked about it."""
    fields = take(request.command.args, "args", _KNOWN)
    named, raw = parse_manifest(fields), fields.sized("raw", bytes, 1, _MAX_FILE)
    signatures = fields.sized("signatures", bytes, 0, _MAX_SIGNATURES)
    if raw is not None and named is not None:
        raise fields.wrong("raw", "stands beside `manifest`", "send one of them")
    if raw is None and signatures is not None:
        raise fields.wrong("signatures", "are of no file", "send it as `raw`")
    if raw is not None:
        found = await _of_file(service, request, raw, signatures or b"")
    elif named is None or isinstance(named, str):
        found = _of_loaded(service, request, service.state.default.digest if named is None else named)
    else:
        found = _of_map(service, request, named)
    return _completed(request, fields, found)


async def _of_file(service: Service, request: Request, raw: bytes, signatures: bytes) -> Subject:
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    try:
        return _of_loaded(service, request, digest)
    except Refused as error:
        if error.code != "unknown_manifest":
            raise
    judged = await service.manifests.judge(request.warrant, raw, signatures, service.clock(), whole=True)
    return Subject(digest, judged.manifest, judged=judged)


def _of_loaded(service: Service, request: Request, digest: str) -> Subject:
    store = service.manifests
    try:
        loaded = store.use(digest, request.actor.tenant, service.clock())
    except Refused as error:
        if error.code == "unknown_manifest":
            raise
        return Subject(digest, _readable(service, digest), refusal=error)
    return Subject(digest, loaded.manifest, loaded=loaded)


def _readable(service: Service, digest: str) -> Manifest | None:
    try:
        return service.manifests.manifest(digest)
    except Refused:
        return None


def _of_map(service: Service, request: Request, named: Mapping[str, object]) -> Subject:
    try:
        manifest = parse_map(named)
    except Refused:
        request.warrant.require("manifest.inline")  # who may send none is told so, and not what is wrong with it
        raise
    try:
        service.manifests.check_listed(manifest.digest)
    except Refused as error:
        return Subject(manifest.digest, manifest, refusal=error, inline=True)
    return Subject(manifest.digest, manifest, inline=True)


def _completed(request: Request, fields: Fields, found: Subject) -> Subject:
    """With the command and the parameters; and this may be asked about it."""
    argv = tuple(raw_bytes(fields, "argv", word) for word in fields.optional("argv", list) or ())
    parameters = fields.optional("parameters", dict)
    manifest, unfilled = found.manifest, None
    target = request.warrant.place()
    if manifest is not None:
        target = replace(target, manifest_class=manifest.class_)
        try:
            manifest = fill(manifest, parameters)
        except Refused as error:
            unfilled = error
    request.warrant.check(target)
    return replace(found, manifest=manifest, argv=argv, unfilled=unfilled)
