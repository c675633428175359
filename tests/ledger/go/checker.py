"""Builds and runs `main.go`, which checks with golang.org/x/mod: Debian's golang-go and golang-golang-x-mod-dev."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.patience import PATIENCE_S

__all__ = ["go"]

HERE = Path(__file__).resolve().parent
GOPATH = "/usr/share/gocode"


@functools.cache
def program() -> Path:
    """The program, built once and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="immured-go-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folder),
        "GOCACHE": str(folder / "cache"),
        "GOPATH": GOPATH,
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    built = folder / "check"
    build = ["go", "build", "-o", str(built), "."]
    subprocess.run(build, cwd=HERE, env=environment, check=True, timeout=2 * PATIENCE_S)
    return built


def go(*arguments: object, note: str = "", stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What it says. `note` is put in a file, which is the last argument."""
    with tempfile.NamedTemporaryFile(prefix="immured-note-") as file:
        file.write(note.encode())
        file.flush()
        last = [file.name] if note else []
        command = [str(program()), *map(str, arguments), *last]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE_S, check=False)
