"""Whether this host's own programs lie on an overlay, as in a container or a small virtual machine: then nobody's word
about them is taken, and a payload's own process digests them."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["on_overlay"]


def on_overlay(path: Path | str) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%t", path], capture_output=True, text=True, check=True, timeout=10)
    return kind.stdout.strip() == "794c7630"  # OVERLAYFS_SUPER_MAGIC
