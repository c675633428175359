"""Under sudo the command line becomes its caller, who may not be able to read the package or Python's own library: all
that a subcommand needs is imported before."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.elevation import Proposals
from immured.client.throwaway import ThrowawayDaemon
from immured.manifest.signature import show_signatures, sign
from immured.wire.keys import PrivateKey
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

NOBODY = 65534

LATE = """
import importlib.abc, sys
from immured.cli import acting, main, session

class Late(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        sys.stderr.write(f"imported late: {name}\\n")

def become(*user, **how):
    acting.become(*user, **how)
    sys.meta_path.insert(0, Late())

session.become = become
main()
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory of the caller's."""
    with tempfile.TemporaryDirectory(prefix="immured-") as made:
        (Path(made) / "local").write_text("text\n")
        (Path(made) / "own").mkdir()
        (Path(made) / "own" / "old").write_text("old\n")
        for path in (Path(made), *Path(made).rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        yield Path(made)


def test_of_every_subcommand_for_what_lives(daemon: ThrowawayDaemon, place: Path) -> None:
    """One life, told by its command lines, in order; what each says is not looked at, only that it said it."""
    lines = (
        "volume create cache --size 16M", "volume list", "volume rm cache", "image list", "template list",
        f"sandbox create --name dev --capture {place}/own", "sandbox list", "sandbox show dev", "sandbox stats dev",
        "sandbox exec dev -- true", "sandbox exec --json dev -- true", "sandbox exec --detach dev -- sleep 0.1",
        "sandbox execs dev", "sandbox logs dev --follow", "sandbox logs dev --time", "sandbox attach --no-input dev",
        "sandbox exec dev -- no-such-program",
        "file put dev local /tmp/f", "file get dev /tmp/f -", "file ls dev /tmp", "file stat dev /tmp/f",
        "file mkdir dev /tmp/d", "file chmod dev 600 /tmp/f", "file mv dev /tmp/f /tmp/d/f", "file glob dev /tmp/**",
        "file archive dev /tmp/d own.tar", "file extract dev own.tar /tmp/e --parents", "file rm dev /tmp/e -r",
        "file get dev /tmp/absent -", f"sandbox exec dev -- sh -c 'echo new > {place}/own/old'",
        "changes list dev", f"changes diff dev {place}/own/old", "changes accept dev", "changes discard dev --all",
        "snapshot save dev one", "snapshot list", "snapshot rm one", "sandbox pause dev", "sandbox resume dev",
        "sandbox extend dev 1h", "sandbox kill dev", "sandbox rm dev", "sandbox prune", "kill s00000000000000000000",
        "batch local", "key list",
    )  # fmt: skip
    assert not (wrongs := late(daemon, place, *lines)), "\n".join(wrongs)


def test_of_every_subcommand_for_manifests(daemon: ThrowawayDaemon, place: Path) -> None:
    """Likewise: written, judged, signed, loaded, looked at, agreed to, run under, proposed, revoked."""
    raw = b'schema = 1\nname = "asks"\n[consent]\nrequired = true\n'
    grown = raw + b'[limits]\nmemory = "1G"\n'
    key, now = PrivateKey.from_pem(daemon.admin_key.read_bytes()), time.time_ns() // 1_000_000
    for name, text in (("asks.toml", raw), ("grown.toml", grown)):
        (place / name).write_bytes(text)
        (place / f"{name}.sig").write_text(show_signatures([sign(key, text, now, now + 86_400_000)]))
    digest, wider = (f"sha256:{hashlib.sha256(text).hexdigest()}" for text in (raw, grown))
    with daemon.client() as client:
        arguments = {"manifest": grown, "signatures": (place / "grown.toml.sig").read_bytes()}
        proposal = Proposals(client).create("manifest.load", arguments, reason="more").id
    lines = (
        "manifest verify asks.toml", "manifest load asks.toml --check", "manifest load asks.toml", "manifest list",
        f"manifest show {digest}", f"manifest diff {digest}", "manifest load grown.toml --json",
        f"manifest diff {wider} --against {digest}", f"manifest diff grown.toml --against {digest}",
        "preflight --manifest asks.toml -- true", f"preflight --manifest {digest} --json", "preflight",
        f"run --manifest {digest} -- true", "run --manifest asks.toml -- true", "plan --manifest asks.toml -- true",
        "consent show asks.toml", f"consent show {digest} --language de", "consent accept asks.toml",
        "consent status asks.toml", "consent status", "run --manifest asks.toml -- true", "consent decline asks.toml",
        "consent status asks.toml --json", "consent show default", "proposal list", f"proposal show {proposal}",
        f"proposal approve {proposal}", f"proposal withdraw {proposal}",
        f"manifest revoke {digest} --reason over", f"run --manifest {digest} -- true", "manifest list --json",
    )  # fmt: skip
    assert not (wrongs := late(daemon, place, *lines)), "\n".join(wrongs)


def late(daemon: ThrowawayDaemon, place: Path, *lines: str) -> list[str]:
    """What went wrong with which of the lines."""
    wrongs = list[str]()
    for words in lines:
        split = shlex.split(words)
        name = 1 if split[0] in ("kill", "batch", "status", "run", "plan", "preflight") else 2
        done = subprocess.run(
            [sys.executable, "-c", LATE, *split[:name], "--state", str(daemon.state), "--as", "nobody", *split[name:]],
            capture_output=True, cwd=place, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if any(wrong in done.stderr for wrong in (b"imported late", b"Traceback", b"immure: usage")):
            wrongs.append(f"immure {words}: {done.stderr.decode()}")
    return wrongs
