"""See what is hidden: by another path, by moving what lies above, by a link.

Wall: a hidden path, and each directory above it, is a mount point
Meets: ENOENT EBUSY EXDEV EROFS EACCES
Scene: hidden_directory
Control: scene
Reference: rename(2), EBUSY
"""

import os
import sys

from tests.escape.inside import read, tries

ABOVE = sys.argv[1]
BESIDE = os.path.dirname(ABOVE)


def moved(source: str, path: str) -> None:
    os.rename(source, f"{BESIDE}/moved")
    read(path)


tries(
    {
        "its own path": lambda: read(f"{ABOVE}/kept/hook"),
        "dots": lambda: read(f"{ABOVE}/kept/../kept/hook"),
        "link": lambda: os.link(f"{ABOVE}/kept/hook", f"{BESIDE}/alias"),
        "moved": lambda: moved(f"{ABOVE}/kept", f"{BESIDE}/moved/hook"),
        "moved above": lambda: moved(ABOVE, f"{BESIDE}/moved/kept/hook"),
    }
)
