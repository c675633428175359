"""What the acts stand on: a daemon that lives as long as the demo, an ordinary user's workspace and key."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo.witness import Witness
from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Ground", "prepared"]

SOMEBODY = 1000
PATIENCE = 90.0
PROGRAMS = Path(__file__).with_name("programs")
TEXTS = ("README.md", "LICENSE", "docs/threat-model.md")
PYTHON = "/usr/bin/python3"


@dataclass
class Ground:
    """The workspace holds `programs` and `input`, which runs may read, `out`, which they may write, and `project`,
    which a sandbox captures."""

    daemon: ThrowawayDaemon
    daemon_key: PublicKey
    client: Client
    key: PrivateKey
    uid: int
    workspace: Path
    engineer: PrivateKey
    """Of a platform-engineer: signs and loads manifests."""
    approver: PrivateKey
    """Of one of secops: approves what policy has two keys for."""
    witness: Witness
    """Of the daemon's ledger."""
    nonce: bytes = b""
    """Of the envelope that was replayed."""

    @property
    def out(self) -> Path:
        return self.workspace / "out"

    @property
    def input(self) -> Path:
        return self.workspace / "input"

    def argv(self, program: str, *arguments: str) -> list[str]:
        """The command line of one of `programs/`, as it is inside."""
        return [PYTHON, str(self.workspace / "programs" / program), *arguments]

    def manifest(self, **limits: object) -> dict[str, object]:
        """Reads the programs and the input, writes out, and whatever `limits` say."""
        return {
            "schema": 1,
            "name": "demo",
            "class": "default",
            "filesystem": {
                "read": [str(self.workspace / "programs"), str(self.input)],
                "write": [str(self.out)],
            },
            "limits": {"wall": "60s", **limits},
        }

    def reconnect(self) -> None:
        """A connection to the daemon that serves now, as the workspace's owner."""
        self.client.close()
        with self.as_user():
            self.client.connect()

    def acting(self, key: PrivateKey) -> Client:
        """A client for another of the keys."""
        return Client(self.daemon.socket, key, self.daemon_key, timeout=PATIENCE)

    def entries(self) -> int:
        """How many lines the ledger has."""
        with (self.daemon.state / "ledger" / "current.jsonl").open("rb") as file:
            return sum(1 for _ in file)

    def entry(self, seq: int) -> str:
        """That line of it."""
        with (self.daemon.state / "ledger" / "current.jsonl").open() as file:
            return next(line for number, line in enumerate(file) if number == seq)

    @contextlib.contextmanager
    def as_user(self) -> Iterator[None]:
        """Connect as the workspace's owner: the kernel reports the effective ids of whoever calls connect()."""
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(self.uid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


@contextlib.contextmanager
def prepared() -> Iterator[Ground]:
    """Everything started; stopped and removed on the way out, whatever happened in between."""
    uid = int(os.environ.get("SUDO_UID") or 0) or SOMEBODY
    workspace = Path(tempfile.mkdtemp(prefix="immured-demo-"))
    try:
        _furnish(workspace, uid)
        daemon = ThrowawayDaemon()
        with _witnessed(daemon, workspace, uid) as witness, daemon:
            key, engineer, approver = (PrivateKey.generate() for _ in range(3))
            with Client(daemon.socket, daemon.admin_key, daemon.daemon_key, timeout=PATIENCE) as admin:
                admin.key_add("demo", key.public.to_pem(), role="runner", uids=[uid])
                admin.key_add("engineer", engineer.public.to_pem(), role="platform-engineer")
                admin.key_add("approver", approver.public.to_pem(), role="secops")
            daemon_key = PublicKey.from_pem(daemon.daemon_key.read_bytes())
            client = Client(daemon.socket, key, daemon_key, timeout=PATIENCE)
            ground = Ground(daemon, daemon_key, client, key, uid, workspace, engineer, approver, witness)
            with client:
                ground.reconnect()
                yield ground
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


@contextlib.contextmanager
def _witnessed(daemon: ThrowawayDaemon, workspace: Path, uid: int) -> Iterator[Witness]:
    """A witness of its ledger, and the daemon told to ask it, soon after each entry."""
    with Witness(workspace / "witness", uid, daemon.state / "keys" / "ledger.vkey") as witness:
        listed = f'{{ name = "demo", url = "{witness.url}", key = "{witness.key}" }}'
        daemon.state.joinpath("config.toml").write_text(
            f"[ledger]\ncheckpoint_s = 1\n[audit]\nwitnesses = [{listed}]\n"
        )
        yield witness


def name_of(uid: int) -> str:
    """`alice (uid 1000)`, or `uid 1000` for one without a name."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _furnish(workspace: Path, uid: int) -> None:
    """The tree belongs to an ordinary user: one of root's would rightly be refused as writable."""
    shutil.copytree(PROGRAMS, workspace / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    (workspace / "input").mkdir()
    (workspace / "out").mkdir()
    (workspace / "project").mkdir()
    (workspace / "project" / "text").write_text("Over teh wall and under teh gate.\n")
    (workspace / "project" / "draft").write_text("away with this\n")
    root = Path(__file__).resolve().parents[1]
    for text in TEXTS:
        if (root / text).exists():
            shutil.copy(root / text, workspace / "input" / Path(text).name)
    for path in (workspace, *workspace.rglob("*")):
        os.chown(path, uid, uid)
