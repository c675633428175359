"""What a stranger makes of a real daemon's ledger who has docs/ledger.md alone: files that were sealed, a key that was
changed, a witness's cosignature, a proof; and what is left once the oldest were let go of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.ledger.witness.process import Process, immure
from tests.patience import PATIENCE_S
from tests.preflight.places import USER

pytestmark = pytest.mark.needs_root
INDEPENDENT = Path(__file__).resolve().parents[1] / "independent"


def stranger(program: str, *arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", str(INDEPENDENT / program), *map(str, arguments)],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode()


class Host:
    """A daemon that seals a file every second, and its witness."""

    def __init__(self, place: Path, witness: Process) -> None:
        self.place, self.witness = place, witness
        self.daemon = ThrowawayDaemon()
        self.first = self.vkeys()[0]
        self.trusted()

    @property
    def ledger(self) -> Path:
        return self.daemon.state / "ledger"

    def configure(self, more: str = "") -> None:
        one = f'{{ name = "w1", url = "{self.witness.url}", key = "{self.witness.key.encode()}" }}'
        self.daemon.state.joinpath("config.toml").write_text(
            f'[broker]\nuser = "{USER}"\n[ledger]\ncheckpoint_s = 1\nsegment_age = "1s"\n{more}\n'
            f"[audit]\nwitnesses = [{one}]\n"
        )

    def vkeys(self) -> list[str]:
        return self.daemon.state.joinpath("keys/ledger.vkey").read_text().split()

    def trusted(self) -> None:
        keys = self.daemon.state / "keys/ledger.vkey"
        immure("ledger", "witness", "trust", "--state", str(self.witness.state), str(keys))

    def sealed(self) -> list[Path]:
        return sorted(self.ledger.glob("0*.jsonl"))

    def until_sealed(self, past: int) -> None:
        """Runs, one after the other, until a file was sealed whose first entry is past that one."""
        deadline = time.monotonic() + PATIENCE_S
        while not any(int(path.stem) > past for path in self.sealed()):
            assert time.monotonic() < deadline, os.listdir(self.ledger)
            self.run()
            time.sleep(0.2)

    def run(self) -> int:
        with self.daemon.client() as client:
            done = client.run(["/bin/true"])
        assert done.intent is not None
        return done.intent.seq


@pytest.fixture
def host() -> Iterator[Host]:
    place = Path(tempfile.mkdtemp(prefix="strangers-"))
    place.chmod(0o755)
    witness = Process(place / "w").start()
    try:
        host = Host(place, witness)
        host.configure()
        with host.daemon:
            yield host
    finally:
        witness.stop()
        shutil.rmtree(place)


def test_what_the_page_says_is_enough(host: Host) -> None:
    host.until_sealed(0)
    older = host.place / "older"
    immure("ledger", "checkpoint", "--state", str(host.daemon.state), "-o", str(older))
    intent = host.run()
    immure("ledger", "rotate-key", "--state", str(host.daemon.state))
    host.trusted()
    host.until_sealed(intent)
    host.daemon.stop()

    cosigned = ("--witness", host.witness.key.encode(), "--require", 1)
    status, said = stranger("verify_files.py", host.ledger, "--key", host.first, *cosigned, "--anchor", older)
    assert (status, said[:5]) == (0, "whole"), said
    entries = int(said.split(" to ")[1].split(",")[0])
    assert f"{entries} signed, {entries} cosigned" in said

    rotated = immure("ledger", "show", "--state", str(host.daemon.state), "--type", "ledger.key_rotated", "--json")
    trust = ("--key", host.first, "--rotation", rotated.stdout.strip(), *cosigned)
    proof, onward = host.place / "proof", host.place / "onward"
    immure("ledger", "prove", str(intent), "--state", str(host.daemon.state), "-o", str(proof))
    status, said = stranger("check_proof.py", proof, *trust)
    assert (status, json.loads(said)["seq"]) == (0, intent)
    size = older.read_text().split("\n")[1]
    immure("ledger", "consistency", "--from", size, "--state", str(host.daemon.state), "-o", str(onward))
    assert stranger("check_proof.py", onward, "--older", older, *trust) == (0, f"{size} to {entries}\n")

    # What is kept once the oldest files are let go of stands by itself, for whoever knows of the key's change.
    host.configure('retain = "2s"')
    time.sleep(2.5)  # what was sealed is older than that when it starts, and so is not append-only then
    host.daemon.start()
    deadline = time.monotonic() + PATIENCE_S
    while not (sealed := host.sealed()) or int(sealed[0].stem) <= intent:
        assert time.monotonic() < deadline, os.listdir(host.ledger)
        host.run()
        time.sleep(0.2)
    host.daemon.stop()
    status, said = stranger("verify_files.py", host.ledger, *trust)
    assert (status, said[:5]) == (0, "whole"), said
    assert int(said.split()[1]) > intent
    copy = host.place / "copy"
    shutil.copytree(host.ledger, copy)
    oldest = min(copy.glob("*.jsonl"), key=lambda path: (not path.stem.isdigit(), path.name))
    lines = oldest.read_bytes().split(b"\n")
    oldest.write_bytes(b"\n".join([lines[0].replace(b'"frontier":["', b'"frontier":["00', 1), *lines[1:]]))
    assert stranger("verify_files.py", copy, *trust)[0] == 1
    host.daemon.start()
