"""A real daemon for the folder, a directory of a user's, and ways to run in it what was imported."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from immured import Client, RunResult
from immured.adapters.imported import Imported
from immured.cli.compat import wire
from immured.client.throwaway import ThrowawayDaemon
from tests.daemon import client, daemon
from tests.peers import connecting_as

__all__ = ["client", "daemon"]

NOBODY = pwd.getpwnam("nobody")
ACTING = f"immure: note: acting as nobody (uid {NOBODY.pw_uid}), who called sudo; --as root stays root\n"
Call = Callable[..., "subprocess.CompletedProcess[str]"]
Run = Callable[..., RunResult]


@pytest.fixture(scope="package")
def theirs(daemon: ThrowawayDaemon) -> Iterator[Client]:
    """A client whose peer is nobody: paths are opened as that user."""
    with daemon.client() as connected:
        with connecting_as(NOBODY.pw_uid):
            connected.connect()
        yield connected


@pytest.fixture
def workspace() -> Iterator[Path]:
    """Nobody's, and not beneath /tmp, which a sandbox has for itself."""
    made = Path(tempfile.mkdtemp(prefix="adapters-", dir="/srv"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def give(path: Path) -> None:
    """Everything in it to nobody."""
    for one in (path, *path.rglob("*")):
        os.chown(one, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)


@pytest.fixture
def project(workspace: Path) -> Path:
    """A directory with a repository in it."""
    made = workspace / "project"
    (made / ".git/hooks").mkdir(parents=True)
    (made / ".git/config").write_text("[core]\n\tbare = false\n")
    (made / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (made / "sub").mkdir()
    (made / "file").write_text("content\n")
    give(workspace)
    return made


@pytest.fixture
def call(daemon: ThrowawayDaemon, workspace: Path) -> Call:
    """A tool's own command line, by a link with its name to the `immure` of this environment, as nobody."""
    immure = Path(sysconfig.get_path("scripts")) / "immure"

    def run(tool: str, *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "") -> object:
        link = workspace / tool
        if not link.is_symlink():
            link.symlink_to(immure)
        surroundings = {
            "PATH": os.environ["PATH"], "HOME": str(workspace), "IMMURE_SOCKET": str(daemon.socket),
            "IMMURE_KEY": str(daemon.admin_key), "IMMURE_DAEMON_KEY": str(daemon.daemon_key),
            "SUDO_UID": str(NOBODY.pw_uid), **(env or {}),
        }  # fmt: skip
        done = subprocess.run(
            [link, *words],
            cwd=cwd,
            env=surroundings,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        done.stderr = done.stderr.removeprefix(ACTING)
        return done

    return run  # type: ignore[return-value]


@pytest.fixture
def run(theirs: Client) -> Run:
    """An imported policy, run as nobody: with its own command, or another."""

    def do(imported: Imported, *argv: str, **options: object) -> RunResult:
        made = {"env": wire(imported.env), "cwd": imported.cwd, "files": imported.files or None, **options}
        return theirs.run(list(argv or imported.argv), manifest=wire(imported.manifest), **made)

    return do
