"""Landlock alone: its rules hold where every other wall has gone, and let pass what programs do all day."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured.host.syscalls import landlock_abi
from immured.isolation.landlock import landlock_rung
from tests.warden.conftest import FLAGS, SOURCES
from tests.warden.places import ALICE, directory, give, text

HERE = Path(__file__).parent
RUNG = landlock_rung(landlock_abi())
NETWORK, NO_NETWORK, WITHOUT = "0", "1", "-"
ALLOWED = {"read", "list"}
SINCE = {"open to read and truncate": 3, "truncate": 3}


@pytest.fixture(scope="module")
def alone() -> Iterator[Path]:
    """Where the caller can reach it: pytest's own directories are root's."""
    above = Path(tempfile.mkdtemp(prefix="immured-landlock-"))
    above.chmod(0o755)
    program = above / "landlock_alone"
    sources = [SOURCES / "landlock.c", SOURCES / "error.c", SOURCES / "util.c", HERE / "landlock_alone.c"]
    subprocess.run(["gcc", *FLAGS, *sources, "-o", program], check=True)
    yield program
    shutil.rmtree(above)


@pytest.fixture
def ground() -> Iterator[Path]:
    """Three places of the caller's with the same in each, and listeners that are not the sandbox's."""
    above = Path(tempfile.mkdtemp(prefix="immured-landlock-"))
    above.chmod(0o755)
    for name in ("tmp", "writable", "outside"):
        place = directory(above / name, ALICE.uid)
        for file in ("there", "doomed"):
            text(place / file, ALICE.uid)
        directory(place / "old", ALICE.uid)
        directory(place / "empty", ALICE.uid)
        os.mkfifo(place / "fifo")
        give(place / "fifo", ALICE.uid, 0o600)
    yield above
    shutil.rmtree(above)


def probe(alone: Path, ground: Path, flags: str) -> dict[str, Any]:
    """What somebody who may write everywhere in `ground` meets beneath the rules."""
    places = [str(ground / name) for name in ("tmp", "writable", "outside")]
    abstract = f"immured-{os.getpid()}"
    servers = []
    for name in (f"\0{abstract}", *(f"{place}/others.sock" for place in places[1:])):
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
        server.listen()
        servers.append(server)
        if name.startswith("/"):
            give(Path(name), ALICE.uid, 0o600)
    with subprocess.Popen(["sleep", "300"], user=ALICE.uid) as victim:
        try:
            command = [
                str(alone),
                *places[:2],
                flags,
                "/usr/bin/python3",
                "-I",
                "-",
                *places,
                abstract,
                str(victim.pid),
            ]
            script = (HERE / "landlock_probe.py").read_bytes()
            done = subprocess.run(
                command, input=script, capture_output=True, check=False, timeout=120, user=ALICE.uid, group=ALICE.gid,
                extra_groups=[],
            )  # fmt: skip
        finally:
            victim.kill()
            for server in servers:
                server.close()
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_it_everything_can_be_done(alone: Path, ground: Path) -> None:
    """The control: the probe's user may write everywhere, and nothing but Landlock is in the way."""
    found = probe(alone, ground, WITHOUT)
    assert {how for place in ("tmp", "writable", "outside") for how in found[place].values()} == {"ok"}
    assert found.pop("TCP connect") == "ECONNREFUSED"
    assert {name: how for name, how in found.items() if isinstance(how, str) and how != "ok"} == {}


@pytest.mark.skipif(RUNG == 0, reason="a kernel without Landlock")
class TestWithLandlock:
    def test_nothing_changes_outside_of_what_is_writable(self, alone: Path, ground: Path) -> None:
        found = probe(alone, ground, NETWORK)
        got_through = {how for how, met in found["outside"].items() if met == "ok"} - ALLOWED
        assert got_through == {how for how, rung in SINCE.items() if rung > RUNG}
        assert found["rename out"] in ("EACCES", "EXDEV")

    @pytest.mark.parametrize("flags", [NETWORK, NO_NETWORK])
    def test_everything_can_be_done_in_what_is_writable(self, alone: Path, ground: Path, flags: str) -> None:
        """Moves between directories too, which a set of rules refuses that only speaks of the network."""
        found = probe(alone, ground, flags)
        assert {how for place in ("tmp", "writable") for how in found[place].values()} == {"ok"}
        assert found["rename between"] == "ok"

    @pytest.mark.parametrize(
        "what", ["own sockets", "own signals", "terminal", "null", "own memory", "comm", "oom_score_adj", "execute"]
    )
    def test_what_programs_do_all_day_passes(self, alone: Path, ground: Path, what: str) -> None:
        assert probe(alone, ground, NETWORK)[what] == "ok"

    def test_others_abstract_sockets_and_processes_are_out_of_reach(self, alone: Path, ground: Path) -> None:
        found = probe(alone, ground, NETWORK)
        met = "EPERM" if RUNG >= 6 else "ok"
        assert (found["others' abstract socket"], found["others' process"]) == (met, met)

    @pytest.mark.parametrize("where", ["below what is writable", "elsewhere"])
    def test_others_listeners_are_out_of_reach_wherever_they_are(self, alone: Path, ground: Path, where: str) -> None:
        assert probe(alone, ground, NETWORK)[f"others' socket {where}"] == ("EACCES" if RUNG >= 9 else "ok")

    def test_without_a_network_no_address_is_of_use(self, alone: Path, ground: Path) -> None:
        found = probe(alone, ground, NO_NETWORK)
        tcp, udp = "EACCES" if RUNG >= 4 else "ok", "EACCES" if RUNG >= 10 else "ok"
        assert (found["TCP bind"], found["UDP bind"], found["UDP send"]) == (tcp, udp, udp)
        assert found["TCP connect"] == ("EACCES" if RUNG >= 4 else "ECONNREFUSED")

    def test_with_one_it_is_left_alone(self, alone: Path, ground: Path) -> None:
        found = probe(alone, ground, NETWORK)
        assert (found["TCP bind"], found["UDP bind"], found["UDP send"]) == ("ok", "ok", "ok")
