"""The installed `immure`, as these tests call it."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from immured.client.throwaway import ThrowawayDaemon

__all__ = ["Line"]

PATIENCE = 120
IMMURE = str(Path(sysconfig.get_path("scripts")) / "immure")


class Line:
    """The installed `immure`, called in one directory, with one daemon's admin key."""

    def __init__(self, daemon: ThrowawayDaemon, here: Path) -> None:
        self.here = here
        self.state = str(daemon.state)
        self.key = str(daemon.admin_key)

    def __call__(self, *words: str, status: int = 0, stdin: str = "") -> str:
        done = self.done(*words, stdin=stdin)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def done(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Options of the daemon stand before `--`, if there is one."""
        at = words.index("--") if "--" in words else len(words)
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("IMMURE", "SUDO_"))}
        return subprocess.run(
            [IMMURE, *words[:at], "--state", self.state, *words[at:]],
            capture_output=True, timeout=PATIENCE, check=False, cwd=self.here, env=surroundings, text=True, input=stdin,
        )  # fmt: skip

    def sign(self, file: str, *options: str) -> None:
        """With the daemon's admin key."""
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("IMMURE", "SUDO_"))}
        words = [IMMURE, "manifest", "sign", file, "--key", self.key, *options]
        subprocess.run(words, check=True, timeout=PATIENCE, cwd=self.here, env=surroundings, capture_output=True)
