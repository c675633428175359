"""An OCI image layout, made by hand: one layer, one image, one reference."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Entry", "make_layout"]

Entry = tuple[int, int, int, bytes | None]
"""Owner, group, mode, contents; None: a directory."""


def make_layout(layout: Path, entries: Mapping[str, Entry], *, reference: str = "test") -> str:
    """Write a layout; returns the digest of the image's manifest, as `sha256:...`."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(data: bytes, media: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media}", "digest": f"sha256:{digest}", "size": len(data)}

    tar = _tar(entries)
    layer = put(gzip.compress(tar), "layer.v1.tar+gzip")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Env": ["FROM=image"], "Cmd": ["/bin/hello"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
        "history": [{"created_by": "by hand"}],
    }
    described = put(json.dumps(config).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": described, "layers": [layer]}
    image = put(json.dumps(manifest).encode(), "manifest.v1+json")
    image["annotations"] = {"org.opencontainers.image.ref.name": reference}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image]}))
    return str(image["digest"])


def _tar(entries: Mapping[str, Entry]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (uid, gid, mode, data) in entries.items():
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode = uid, gid, mode
            if data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data or b""))
    return raw.getvalue()
