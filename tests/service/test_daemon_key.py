"""The daemon's own key gives way to another: who is believed meanwhile, and a crash at any moment of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError
from immured.service import daemon_keys
from immured.service.context import now_ms
from immured.service.daemon_keys import ROTATION, Rotation, begin, finish, settle
from immured.service.files import write_whole
from immured.service.manifest_files import DamagedError, ManifestFiles, check_own
from immured.service.state import Paths, State, init_state, load_state
from immured.wire.envelope import decode_envelope, pae, verify
from immured.wire.keys import PrivateKey, PublicKey
from immured.wire.messages import parse_hello
from tests.service.harness import Harness, serving
from tests.service.orders import code_of, done

HOUR = 3_600_000


async def signers(harness: Harness) -> set[str]:
    """Whose signatures verify on the next connection's hello."""
    envelope = decode_envelope(await asyncio.to_thread(first_frame, harness.connect().sock))
    said = parse_hello(envelope.payload).daemon
    assert said == harness.service.keys.id
    for key in harness.service.keys.signing:
        assert verify(envelope, {key.id: key.public}.get) == key.id
    return {key for key, _ in envelope.signatures}


def first_frame(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as file:
        return file.read(int.from_bytes(file.read(4), "big"))


def test_both_keys_sign_and_are_addressed_until_the_overlap_is_over(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        old, now = harness.service.keys.id, now_ms()
        said = await done(harness.connect(), "daemon.rotate", {"overlap_ms": HOUR})
        new = said["daemon"]
        assert (said["previous"], said["public"]) == (old, harness.service.keys.current.public.raw.hex())
        assert await signers(harness) == {old, new}
        for aud in (old, new):
            assert (await harness.connect().ask("status", {}, aud=aud)).ok
        assert code_of(await harness.connect().ask("daemon.rotate", {})) == "wrong_state"
        harness.service.clock = lambda: now + 2 * HOUR
        harness.service.end_overlap()
        assert await signers(harness) == {new}
        assert code_of(await harness.connect().ask("status", {}, aud=old)) == "wrong_audience"
        assert (await harness.connect().ask("status", {}, aud=new)).ok
        assert not harness.state.paths.daemon_former.exists()
        assert (await harness.connect().ask("daemon.rotate", {}, aud=new)).ok

    serving(tmp_path, scenario)


def test_without_an_overlap_the_old_key_is_none_at_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        said = await done(harness.connect(), "daemon.rotate", {"overlap_ms": 0})
        assert await signers(harness) == {said["daemon"]}
        paths = harness.state.paths
        assert sorted(path.name for path in paths.keys.glob("daemon*")) == ["daemon.pem", "daemon.pub"]
        assert PublicKey.from_pem(paths.daemon_public.read_bytes()).id == said["daemon"]
        assert signed_by(paths, harness.service.keys.current.public) == len(harness.state.classes)

    serving(tmp_path, scenario)


def test_the_ledger_shows_the_one_key_signing_the_other(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        await done(harness.connect(), "daemon.rotate", {"overlap_ms": HOUR})
        [entry] = harness.of_type("daemon.key_rotated")
        data = entry["data"]
        old, new = bytes.fromhex(data["previous_public"]), bytes.fromhex(data["public"])
        signed = pae(ROTATION, old + new + data["until_ms"].to_bytes(8, "big"))
        assert PublicKey(old).verify(bytes.fromhex(data["signed_by_previous"]), signed)
        assert PublicKey(new).verify(bytes.fromhex(data["signed_by_key"]), signed)
        assert PublicKey(old).id == data["previous"] == harness.state.key.id

    serving(tmp_path, scenario)


@pytest.mark.parametrize("role", ["secops", "operator", "tenant-admin"])
def test_it_is_the_admins_alone(tmp_path: Path, role: str) -> None:
    async def scenario(harness: Harness) -> None:
        key = PrivateKey.generate()
        await done(harness.connect(), "key.add", {"name": "x", "public": key.public.raw, "role": role})
        assert code_of(await harness.connect(key=key).ask("daemon.rotate", {})) == "denied"

    serving(tmp_path, scenario)


def signed_by(paths: Paths, key: PublicKey) -> int:
    """How many manifests there are, all of which that key alone signed. Raises DamagedError."""
    files = ManifestFiles(paths.manifests)
    copies = [files.read(stem, detached=False) for stem in files.stems()]
    for copy in copies:
        check_own("", copy.raw, copy.own, [key])
    return len(copies)


# -- a crash at any moment


def before(state: State, new: PrivateKey) -> None:
    write_whole(state.paths.daemon_next, new.to_pem(), 0o600)


def begun(state: State, new: PrivateKey) -> None:
    begin(state.paths, state.key, new)


def kept(state: State, new: PrivateKey) -> None:
    begun(state, new)
    write_whole(state.paths.daemon_former, state.key.to_pem(), 0o600)


def renamed(state: State, new: PrivateKey) -> None:
    kept(state, new)
    state.paths.daemon_next.replace(state.paths.daemon_key)


def finished(state: State, new: PrivateKey) -> None:
    begun(state, new)
    finish(state.paths, state.key, new, overlap=True)


Moment = Callable[[State, PrivateKey], None]


@pytest.mark.parametrize("moment", [before, begun])
def test_what_the_ledger_does_not_say_did_not_happen(tmp_path: Path, moment: Moment) -> None:
    made, new = init_state(tmp_path / "state"), PrivateKey.generate()
    moment(made, new)
    state, keys = settle(load_state(made.paths.root), None, now_ms())
    assert (keys.id, keys.former, state.key.id) == (made.key.id, None, made.key.id)
    assert not made.paths.daemon_next.exists()
    assert signed_by(made.paths, made.key.public) == len(made.classes)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("moment", [begun, kept, renamed, finished])
def test_what_the_ledger_says_is_finished(tmp_path: Path, moment: Moment, over: bool) -> None:
    made, new = init_state(tmp_path / "state"), PrivateKey.generate()
    rotation = Rotation(new.public, made.key.public, now_ms() + (-1 if over else HOUR))
    moment(made, new)
    for _ in range(2):
        state, keys = settle(load_state(made.paths.root), rotation, now_ms())
        assert state.key.id == keys.id == new.id
        assert (keys.former is None) is over
        assert load_state(made.paths.root).key.id == new.id
        names = {path.name for path in made.paths.keys.glob("daemon*")}
        assert names == {"daemon.pem", "daemon.pub"} | (set() if over else {"daemon.former.pem"})
        assert PublicKey.from_pem(made.paths.daemon_public.read_bytes()) == new.public
        assert signed_by(made.paths, new.public) == len(made.classes)
        with pytest.raises(DamagedError, match="not this daemon's"):
            signed_by(made.paths, made.key.public)


def test_keys_of_another_backup_refuse_the_start(tmp_path: Path) -> None:
    made = init_state(tmp_path / "state")
    rotation = Rotation(PrivateKey.generate().public, made.key.public, now_ms())
    with pytest.raises(ConfigurationError) as caught:
        settle(made, rotation, now_ms())
    assert caught.value.code == "daemon_key_mismatch"


def test_a_rotation_survives_its_entry(tmp_path: Path) -> None:
    old, new = PrivateKey.generate(), PrivateKey.generate()
    rotation = Rotation(new.public, old.public, 4_000_000_000_000)
    assert Rotation.from_map(rotation.to_map(new, old)) == rotation
    assert daemon_keys.DaemonKeys(new, old, 1).ids == {old.id, new.id}


# -- for real


def served(daemon: ThrowawayDaemon, pinned: bytes) -> bool:
    with Client(socket=daemon.socket, key=daemon.admin_key, daemon_key=pinned) as client:
        return client.run(["/bin/true"]).exit_code == 0


def test_clients_that_pinned_the_old_key_go_on_and_after_a_start_the_new_one_is_published() -> None:
    with ThrowawayDaemon() as daemon:
        old = daemon.daemon_key.read_bytes()
        with daemon.client() as client:
            said: Any = client.call("daemon.rotate", {"overlap_ms": HOUR}).result
            assert client.run(["/bin/true"]).exit_code == 0
        new = daemon.daemon_key.read_bytes()
        assert PublicKey.from_pem(new).id == said["daemon"]
        assert served(daemon, old)
        assert served(daemon, new)
        daemon.stop()
        daemon.start()
        assert (daemon.state / "daemon.pub").read_bytes() == new
        assert served(daemon, old)
        assert served(daemon, new)
