"""An image from an OCI layout on disk, unpacked as root for sandboxes to have as their root. Nothing is fetched.

umoci unpacks (and verifies the digest of every blob); skopeo turns other things on disk into a layout first. The result
is named by the digest of the image's manifest, so that what a manifest of ours names cannot become another.

    DIR/images/<64 hex digits>/image.json      what it is; readable by all
    DIR/images/<64 hex digits>/tree/           root's alone: setuid programs of a stranger's lie below
    DIR/images/<64 hex digits>/tree/rootfs/
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from immured.errors import ConfigurationError

__all__ = ["import_image"]

_TRANSPORTS: Final = ("oci-archive:", "docker-archive:", "dir:", "containers-storage:", "docker-daemon:")
_REF: Final = "org.opencontainers.image.ref.name"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_MAX_JSON: Final = 4 << 20
_NEEDED: Final = ("dev", "proc", "run", "sys", "tmp")
"""Places that every sandbox mounts something at; an image without a system in it has none of them."""


def import_image(images: Path, source: str, now_ms: int) -> dict[str, object]:
    """Unpack `LAYOUT[:REF]`, or what skopeo reads from this host (`docker-archive:FILE`). Returns its record.

    Raises ConfigurationError `image_unusable`, `program_missing`, `needs_root`.
    """
    if os.geteuid() != 0:
        raise ConfigurationError("needs_root", "an image has files of many owners", "run it as root")
    with tempfile.TemporaryDirectory(prefix=".new-", dir=images) as scratch:
        layout, reference = _as_layout(source, Path(scratch))
        descriptor = _choose(layout, _index(layout), reference)
        digest = _hex(descriptor)
        place = images / digest
        if (place / "image.json").exists():
            record: dict[str, object] = json.loads((place / "image.json").read_text())
            return record
        record = _record(layout, descriptor, reference, now_ms)
        made = Path(scratch) / "image"
        made.mkdir(mode=0o755)
        made.chmod(0o755)
        tree = made / "tree"
        tree.mkdir(mode=0o700)
        _unpack(_alone(layout, descriptor, Path(scratch)), Path(scratch) / "bundle")
        (Path(scratch) / "bundle" / "rootfs").rename(tree / "rootfs")
        _furnish(tree / "rootfs")
        (made / "image.json").write_text(json.dumps(record))
        (made / "image.json").chmod(0o644)
        os.sync()
        made.rename(place)
    return record


def _as_layout(source: str, scratch: Path) -> tuple[Path, str]:
    if source.startswith(_TRANSPORTS):
        layout = scratch / "layout"
        _run("skopeo", "copy", "--quiet", source, f"oci:{layout}:image")
        return layout, "image"
    path, colon, reference = source.partition(":")
    layout = Path(path if colon else source)
    if not (layout / "oci-layout").is_file():
        raise _unusable(f"{layout} is no OCI image layout", "name a directory with an `oci-layout` file in it")
    return layout.absolute(), reference


def _index(layout: Path) -> Mapping[str, object]:
    return _document((layout / "index.json").read_bytes(), "index.json")


def _choose(layout: Path, index: Mapping[str, object], reference: str) -> Mapping[str, object]:
    """The one manifest that is meant: by its reference; of an index, by this machine's architecture."""
    found = [one for one in _list(index, "manifests") if not reference or _annotation(one) == reference]
    if len(found) > 1 and not reference:
        found = [one for one in found if _architecture(one) == _machine()] or found
    if len(found) != 1:
        names = ", ".join(sorted(_annotation(one) for one in _list(index, "manifests"))) or "none"
        raise _unusable(f"{len(found)} images fit; the layout names {names}", "give LAYOUT:REF")
    [chosen] = found
    if chosen.get("mediaType") == _INDEX:
        inner = [
            one
            for one in _list(_document(_blob(layout, chosen), "an index"), "manifests")
            if _architecture(one) == _machine()
        ]
        if len(inner) != 1:
            raise _unusable(
                f"it has {len(inner)} images for {_machine()}", "import one of them by a reference of its own"
            )
        return inner[0]
    return chosen


def _record(layout: Path, descriptor: Mapping[str, object], reference: str, now_ms: int) -> dict[str, object]:
    manifest = _document(_blob(layout, descriptor), "the manifest")
    config = manifest.get("config")
    if not isinstance(config, Mapping):
        raise _unusable("its manifest names no configuration", "build it anew")
    document = _document(_blob(layout, config), "the configuration")
    inner = document.get("config")
    asked: Mapping[str, object] = inner if isinstance(inner, Mapping) else {}
    command = [*_texts(asked.get("Entrypoint")), *_texts(asked.get("Cmd"))]
    record: dict[str, object] = {
        "digest": f"sha256:{_hex(descriptor)}",
        "name": reference,
        "imported_ms": now_ms,
        "architecture": str(document.get("architecture", "")),
        "env": _texts(asked.get("Env")),
        "command": command,
    }
    if isinstance(asked.get("WorkingDir"), str) and asked["WorkingDir"]:
        record["cwd"] = asked["WorkingDir"]
    return record


def _alone(layout: Path, descriptor: Mapping[str, object], scratch: Path) -> str:
    """A layout of that image alone, by the name that umoci wants: what was chosen is what is unpacked."""
    alone = scratch / "alone"
    alone.mkdir()
    (alone / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (alone / "blobs").symlink_to(layout / "blobs")
    named = {key: descriptor[key] for key in ("mediaType", "digest", "size")} | {"annotations": {_REF: "image"}}
    (alone / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return f"{alone}:image"


def _unpack(image: str, bundle: Path) -> None:
    _run("umoci", "unpack", "--image", image, str(bundle))


def _furnish(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in _NEEDED:
            try:
                os.mkdir(name, 0o1777 if name == "tmp" else 0o755, dir_fd=fd)
            except FileExistsError:
                continue
    finally:
        os.close(fd)


def _run(program: str, *arguments: str) -> None:
    found = shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise ConfigurationError("program_missing", f"{program} is not installed", f"apt-get install {program}")
    done = subprocess.run([found, *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise _unusable(f"{program} says: {said[:400]}", f"see {program} itself")


def _blob(layout: Path, descriptor: Mapping[str, object]) -> bytes:
    digest = _hex(descriptor)
    path = layout / "blobs" / "sha256" / digest
    with path.open("rb") as file:
        data = file.read(_MAX_JSON + 1)
    if len(data) > _MAX_JSON or hashlib.sha256(data).hexdigest() != digest:
        raise _unusable(f"the blob {digest} is not what its name says", "fetch the image again")
    return data


def _hex(descriptor: Mapping[str, object]) -> str:
    match = _DIGEST.fullmatch(str(descriptor.get("digest", "")))
    if match is None:
        raise _unusable(f"it names no SHA-256: {descriptor.get('digest')!r}", "build it anew")
    return match[1]


def _document(raw: bytes, what: str) -> Mapping[str, object]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _unusable(f"{what} is no JSON: {error}", "fetch the image again") from None
    if not isinstance(document, Mapping):
        raise _unusable(f"{what} is no map", "fetch the image again")
    return document


def _list(document: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    values = document.get(name)
    return [one for one in values if isinstance(one, Mapping)] if isinstance(values, list) else []


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _annotation(descriptor: Mapping[str, object]) -> str:
    annotations = descriptor.get("annotations")
    return str(annotations.get(_REF, "")) if isinstance(annotations, Mapping) else ""


def _architecture(descriptor: Mapping[str, object]) -> str:
    of = descriptor.get("platform")
    return str(of.get("architecture", "")) if isinstance(of, Mapping) else ""


def _machine() -> str:
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def _unusable(why: str, remedy: str) -> ConfigurationError:
    return ConfigurationError("image_unusable", why, remedy)
