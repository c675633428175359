"""The two halves of `immure`: each test of a command line is told by which it is called."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client.peer import DAEMON, USER, Peer, Served
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-m", "immured.cli"]
INSTALLED = Path(sysconfig.get_path("scripts")) / "immure"

Said = tuple[int, bytes, bytes]
"""Exit status, stdout, stderr."""
Both = Callable[..., Said]


@pytest.fixture(scope="session")
def native() -> list[str]:
    """The `immure` of this environment, which is the machine's own program."""
    assert INSTALLED.read_bytes()[:4] == b"\x7fELF", f"{INSTALLED} is not native: make build says why"
    return [str(INSTALLED)]


@pytest.fixture(params=["python", "native"])
def entry(request: pytest.FixtureRequest, native: list[str]) -> list[str]:
    """How `immure` is called."""
    return native if request.param == "native" else PYTHON


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The native client under the address and undefined behaviour sanitizers, with its Python half beside it."""
    place = tmp_path_factory.mktemp("sanitized")
    build = [sys.executable, str(ROOT / "native/client_build.py"), str(place / "immure"), "--sanitize"]
    subprocess.run([*build, "--scratch", str(place)], check=True, env=os.environ | {"IMMURED_WERROR": "1"})
    script = place / "immure-python"
    script.write_text(f"#!{sys.executable}\nfrom immured.cli import main\nmain()\n")
    script.chmod(0o755)
    return [str(place / "immure")]


def say(
    command: Sequence[str | bytes], *, stdin: bytes = b"", environment: dict[str, str] | None = None,
    cwd: Path = Path("/"),
) -> Said:  # fmt: skip
    """What a command says and how it ends. Of our own environment it gets what a shell has."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("IMMURE", "SUDO_"))}
    done = subprocess.run(
        command, input=stdin, capture_output=True, timeout=PATIENCE_S, check=False, cwd=cwd,
        env=surroundings | {"UBSAN_OPTIONS": "print_stacktrace=1"} | (environment or {}),
    )  # fmt: skip
    assert b"Sanitizer" not in done.stderr, done.stderr.decode(errors="replace")
    assert b"runtime error" not in done.stderr, done.stderr.decode(errors="replace")
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def both(sanitized: list[str]) -> Both:
    """Runs a command line through both halves, and gives what they say: the same."""

    def run(*words: str | bytes, **surroundings: object) -> Said:
        python = say([*PYTHON, *words], **surroundings)  # type: ignore[arg-type]
        assert say([*sanitized, *words], **surroundings) == python  # type: ignore[arg-type]
        return python

    return run


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[[Callable[[Served], None]], list[str]]]:
    """A daemon that does as it is told; gives the options that lead to it."""
    (tmp_path / "user.pem").write_bytes(USER.to_pem())
    with ExitStack() as stack:

        def start(script: Callable[[Served], None]) -> list[str]:
            peer = stack.enter_context(Peer(tmp_path, script))
            return ["--socket", str(peer.socket), "--key", str(tmp_path / "user.pem")]

        yield start


def daemon_id() -> str:
    """The scripted daemon's key id."""
    return DAEMON.id
