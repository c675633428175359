"""A real daemon, a caller who is not root with a project and a home, and the command line as that caller uses it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import immured.cli.learn
import immured.cli.run  # noqa: F401 - imported while we may: the caller may not reach the package
from immured.cli.app import serve
from immured.client.throwaway import ThrowawayDaemon
from immured.isolation.seccomp import preload
from immured.manifest.builtin import load_classes
from immured.wire.keys import PrivateKey

HERE = Path(__file__).parent
CALLER = 1000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.needs_root)


@dataclass(frozen=True)
class Said:
    """How the command line ended, and what it said."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="package")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture(scope="package")
def key(daemon: ThrowawayDaemon) -> Iterator[Path]:
    """The caller's key, which may send manifests."""
    place = Path(tempfile.mkdtemp(prefix="immured-learn-key-"))
    made = PrivateKey.generate()
    path = place / "key.pem"
    path.write_bytes(made.to_pem())
    path.chmod(0o600)
    for one in (place, path):
        os.chown(one, CALLER, CALLER)
    with daemon.client() as admin:
        admin.key_add("learner", made.public.to_pem(), role="runner", uids=[CALLER])
    yield path
    shutil.rmtree(place)


@pytest.fixture
def world() -> Iterator[Path]:
    """The caller's: `home` with secrets, `project` with sources, `data`."""
    place = Path(tempfile.mkdtemp(prefix="immured-learn-"))
    for name in ("home/.ssh", "project/src", "project/out", "data/deep"):
        (place / name).mkdir(parents=True)
    for name, text in {
        "home/.ssh/id_ed25519": "private", "home/.netrc": "password", "home/notes": "notes",
        "project/src/a": "A", "project/src/b": "B", "data/deep/one": "one", "data/server.pem": "pem",
    }.items():  # fmt: skip
        (place / name).write_text(text)
    for one in (place, *place.rglob("*")):
        os.chown(one, CALLER, CALLER)
    (place / "data" / "roots").write_text("root's alone")
    (place / "data" / "roots").chmod(0o600)
    yield place
    shutil.rmtree(place)


Immure = Callable[..., Said]


@pytest.fixture
def immure(daemon: ThrowawayDaemon, key: Path, world: Path) -> Immure:
    """`immure(subcommand, *words)` as the caller, in the project, with everything of `world` to be seen."""
    preload()
    load_classes()
    options = ["--socket", str(daemon.socket), "--key", str(key), "--daemon-key", str(daemon.daemon_key)]

    def call(subcommand: str, *words: str, cwd: Path | None = None) -> Said:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                _become(cwd or world / "project", world / "home", out.fileno(), err.fileno())
                sys.argv = ["immure", subcommand, *options, *words]
                try:
                    serve()
                except SystemExit as ended:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(int(ended.code or 0))
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                finally:
                    os._exit(99)
            _, status = os.waitpid(child, 0)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
            return Said(os.waitstatus_to_exitcode(status), *texts)

    return call


def _become(cwd: Path, home: Path, out: int, err: int) -> None:
    os.setgroups([])
    os.setresgid(CALLER, CALLER, CALLER)
    os.setresuid(CALLER, CALLER, CALLER)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ["HOME"] = str(home)
    for name in [name for name in os.environ if name.startswith(("SUDO_", "IMMURE"))]:
        del os.environ[name]
    os.chdir(cwd)
