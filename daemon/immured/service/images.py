"""Images: roots that the operator unpacked (`immure image import`), by the digest of their OCI manifest. Root's.

DIR/images/<64 hex digits>/ holds `image.json`, and `tree/rootfs`, which no user reaches (host/oci_layout.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from immured.errors import Refused
from immured.service.files import read_bounded

__all__ = ["Images"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_RECORD: Final = 1 << 20


class Images:
    """The images beneath a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def require(self, digest: str) -> None:
        """Raises Refused `unknown_image`."""
        if not (self._directory / digest / "image.json").is_file():
            raise Refused(
                "unknown_image",
                f"no image sha256:{digest} is there",
                "`image.list` shows those that are; the operator imports one with `immure image import`",
                details={"image": f"sha256:{digest}"},
            )

    def list(self) -> list[dict[str, object]]:
        """A row each, by digest: `digest`, `name`, `imported_ms`, `architecture`, and the image's own `env`, `cwd`,
        `command` where it names such. Raises OSError, ValueError.
        """
        return [json.loads(read_bounded(self._directory / one / "image.json", _MAX_RECORD)) for one in self._digests()]

    def _digests(self) -> Iterator[str]:
        for entry in sorted(self._directory.iterdir()):
            if _DIGEST.fullmatch(entry.name) and (entry / "image.json").is_file():
                yield entry.name
