"""The stored copies: not a byte of them can be another, and what is done to their files is found out before a use."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from immured.errors import Refused
from immured.manifest.builtin import CLASSES, class_text, default_manifest
from immured.service import manifest_files
from immured.service.daemon_keys import DaemonKeys
from immured.service.manifest_files import DamagedError, ManifestFiles, check_own, own_signatures
from immured.service.manifest_register import Register
from immured.service.manifest_store import settle
from immured.service.state import init_state
from immured.wire.keys import PrivateKey
from tests.manifest.test_pipeline import changed
from tests.service.harness import Client, Harness, serving
from tests.service.manifest_scenes import DAY, HEAD, files_of, loaded, orders, row, standing, started_anew
from tests.service.orders import code_of, done
from tests.service.ticks import tick

TRUE: Final = {"argv": ["/bin/true"]}
FILES: Final = ("toml", "sig", "signatures")


def over(tmp_path: Path, scenario: Callable[[Harness, Client, str], Awaitable[None]]) -> None:
    """With a small manifest loaded."""

    async def whole(harness: Harness) -> None:
        client = harness.connect()
        await scenario(harness, client, await loaded(client, HEAD))

    serving(tmp_path, whole)


def used(harness: Harness, digest: str) -> str:
    """What a use of it comes to, asked of the store itself."""
    try:
        harness.service.manifests.use(digest, "default", harness.service.clock())
    except Refused as error:
        return error.code
    return "ok"


@contextmanager
def changed_to(path: Path, data: bytes) -> Iterator[None]:
    """Written in place, as somebody with the daemon's rights would; put back afterwards."""
    before = path.read_bytes()
    path.write_bytes(data)
    yield
    path.write_bytes(before)


@pytest.mark.parametrize("file", FILES)
def test_no_byte_of_a_stored_copy_can_be_another(tmp_path: Path, file: str) -> None:
    """Every bit of every byte, every byte missing or doubled, every length; and whole again once it is put back."""

    async def scenario(harness: Harness, _: Client, digest: str) -> None:
        path = files_of(harness, digest)[file]
        right = path.read_bytes()
        assert used(harness, digest) == "ok"
        for other in {*changed(right)} - {right}:
            with changed_to(path, other):
                assert used(harness, digest) == "manifest_damaged", other
            assert used(harness, digest) == "ok"

    over(tmp_path, scenario)


@pytest.mark.parametrize("file", FILES)
def test_what_was_trusted_for_long_is_looked_at_before_every_run(tmp_path: Path, file: str) -> None:
    """Files that are old are not read again; one that is written to is, whatever its times are set to afterwards."""

    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        store, path = harness.service.manifests, files_of(harness, digest)[file]
        held = store._held[digest]
        assert used(harness, digest) == "ok"
        held.verified = store.files.read(digest[7:], detached=True).identity  # as it is once they are two seconds old
        times = path.stat()
        tick(path, tmp_path / "probe")
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        reply = await client.ask("run", {**TRUE, "manifest": digest})
        assert code_of(reply) == "manifest_damaged"
        assert harness.launcher.runs == {}

    over(tmp_path, scenario)


def test_what_lies_still_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(harness: Harness, _: Client, digest: str) -> None:
        store = harness.service.manifests
        assert used(harness, digest) == "ok"
        store._held[digest].verified = store.files.read(digest[7:], detached=True).identity
        monkeypatch.setattr(store.files, "read", lambda *_, **__: pytest.fail("it was read"))
        assert used(harness, digest) == "ok"

    over(tmp_path, scenario)


def test_what_was_written_a_moment_ago_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes within a tick of the kernel's clock leave the same times."""
    begun = time.time_ns()
    monkeypatch.setattr(manifest_files, "time", SimpleNamespace(time_ns=lambda: begun))

    async def scenario(harness: Harness, _: Client, digest: str) -> None:
        store = harness.service.manifests
        assert used(harness, digest) == "ok"
        assert store._held[digest].verified is None
        path = files_of(harness, digest)["toml"]
        old = path.stat().st_ctime_ns
        assert not store.files.read(digest[7:], detached=True).settled
        assert old > 0

    over(tmp_path, scenario)


def _unlinked(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def _another(path: Path) -> None:
    shutil.copy(path.with_name(default_manifest().digest[7:] + ".toml"), path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("what", [_unlinked, _empty, _fifo, _symlink, _directory, _huge, _another])
def test_anything_else_in_its_place_is_damage(tmp_path: Path, file: str, what: Callable[[Path], None]) -> None:
    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        what(files_of(harness, digest)[file])
        for cmd, args in (("run", {**TRUE, "manifest": digest}), ("sandbox.create", {"manifest": digest})):
            assert code_of(await client.ask(cmd, args)) == "manifest_damaged"
        assert await standing(client, digest) == "damaged"
        shown = await row(client, digest)
        assert ("manifest" in shown, "damage" in shown) == (False, True)

    over(tmp_path, scenario)


def test_damage_is_entered_once_until_it_is_whole_again(tmp_path: Path) -> None:
    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        path = files_of(harness, digest)["toml"]

        async def damaged() -> None:
            assert code_of(await client.ask("run", {**TRUE, "manifest": digest})) == "manifest_damaged"

        with changed_to(path, b"x"):
            await damaged()
            await damaged()
        [entry] = harness.of_type("manifest.damaged")
        assert (entry["data"]["digest"], entry["data"]["file"]) == (digest, path.name)
        assert entry["actor"] == {"daemon": harness.state.key.id}
        await done(client, "run", {**TRUE, "manifest": digest})
        path.write_bytes(b"x")
        await damaged()
        assert len(harness.of_type("manifest.damaged")) == 2

    over(tmp_path, scenario)


def test_a_live_sandbox_takes_no_exec_under_a_damaged_manifest(tmp_path: Path) -> None:
    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        [made] = (await done(client, "sandbox.create", {"manifest": digest}))["sandboxes"]
        with changed_to(files_of(harness, digest)["signatures"], b"x"):
            reply = await client.ask("sandbox.exec", {"sandbox": made["sandbox"], **TRUE})
            assert code_of(reply) == "manifest_damaged"
        await done(client, "sandbox.exec", {"sandbox": made["sandbox"], **TRUE})

    over(tmp_path, scenario)


@pytest.mark.parametrize("file", FILES)
def test_loading_it_again_mends_it(tmp_path: Path, file: str) -> None:
    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        signatures = files_of(harness, digest)["signatures"].read_bytes()
        files_of(harness, digest)[file].write_bytes(b"x")
        assert await standing(client, digest) == "damaged"
        result = await done(client, "manifest.load", {"manifest": HEAD, "signatures": signatures})
        assert (result["stored"], result["known"]) == (True, True)
        assert await standing(client, digest) == "in_force"

    over(tmp_path, scenario)


def test_the_signatures_of_an_earlier_load_are_others(tmp_path: Path) -> None:
    """Good ones, of keys that may sign it: but not those that the ledger says it was loaded with."""

    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        path = files_of(harness, digest)["signatures"]
        first = path.read_bytes()
        await done(client, "manifest.load", orders(HEAD, client.key, life_ms=DAY))
        assert used(harness, digest) == "ok"
        path.write_bytes(first)
        assert used(harness, digest) == "manifest_damaged"

    over(tmp_path, scenario)


def test_a_built_in_one_that_is_named_is_looked_at_too(tmp_path: Path) -> None:
    async def scenario(harness: Harness, client: Client, _: str) -> None:
        digest = default_manifest().digest
        path = files_of(harness, digest)["toml"]
        for at in range(0, path.stat().st_size, 97):
            raw = bytearray(path.read_bytes())
            raw[at] ^= 0x20
            with changed_to(path, bytes(raw)):
                assert used(harness, digest) == "manifest_damaged"
                assert (await client.ask("run", TRUE)).ok  # what nobody named comes with the daemon, from memory
            assert used(harness, digest) == "ok"

    over(tmp_path, scenario)


# -- the daemon's own signature


def test_the_daemon_s_signatures_are_whole_lines_of_keys_of_its_own() -> None:
    key, other = PrivateKey.generate(), PrivateKey.generate()
    both = own_signatures((key, other), HEAD)
    check_own("x", HEAD, both, (other.public, key.public))
    for own, known in (
        (both, (key.public,)),
        (own_signatures((key,), HEAD + b"\n"), (key.public,)),
        (own_signatures((key, key), HEAD), (key.public,)),
        (own_signatures((key,), HEAD)[:-1], (key.public,)),
        (b"", (key.public,)),
        (b"\n", (key.public,)),
    ):
        with pytest.raises(DamagedError):
            check_own("x", HEAD, own, known)


def test_another_daemon_s_copy_is_none(tmp_path: Path) -> None:
    async def scenario(harness: Harness, _: Client, digest: str) -> None:
        files_of(harness, digest)["sig"].write_bytes(own_signatures((PrivateKey.generate(),), HEAD))
        assert used(harness, digest) == "manifest_damaged"

    over(tmp_path, scenario)


def test_the_daemon_s_key_may_change_under_them(tmp_path: Path) -> None:
    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        await done(client, "daemon.rotate", {"overlap_ms": 0})
        assert used(harness, digest) == "ok"
        assert harness.service.keys.current.id in files_of(harness, digest)["sig"].read_text()

    over(tmp_path, scenario)


def test_what_was_tampered_with_is_not_signed_anew(tmp_path: Path) -> None:
    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        path = files_of(harness, digest)["sig"]
        path.write_bytes(path.read_bytes().replace(b"ed25519", b"ed25510", 1))
        await done(client, "daemon.rotate", {"overlap_ms": 0})
        assert used(harness, digest) == "manifest_damaged"

    over(tmp_path, scenario)


def test_a_rotation_that_failed_leaves_them_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They carry the new key's signature already, and the ledger took no entry; then another rotation goes through."""

    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        def full(*_: object, **__: object) -> None:
            raise Refused("ledger_unavailable", "full")

        with monkeypatch.context() as patched:
            patched.setattr("immured.service.commands.daemon.decide", full)
            assert code_of(await client.ask("daemon.rotate", {})) == "ledger_unavailable"
        assert len(files_of(harness, digest)["sig"].read_bytes().splitlines()) == 2
        assert used(harness, digest) == "ok"
        await done(client, "daemon.rotate", {"overlap_ms": 0})
        assert len(files_of(harness, digest)["sig"].read_bytes().splitlines()) == 1
        assert used(harness, digest) == "ok"

    over(tmp_path, scenario)


def test_who_loads_while_others_use_it_disturbs_nobody(tmp_path: Path) -> None:
    async def scenario(harness: Harness, client: Client, digest: str) -> None:
        finish, seen = ManifestFiles.finish, []

        def slowly(self: ManifestFiles, *args: object, **how: object) -> None:
            finish(self, *args, **how)  # type: ignore[arg-type]
            seen.append(used(harness, digest))

        harness.service.manifests.files.finish = slowly.__get__(harness.service.manifests.files)  # type: ignore[method-assign]
        await done(client, "manifest.load", orders(HEAD, client.key, life_ms=DAY))
        assert (seen, used(harness, digest)) == (["ok"], "ok")

    over(tmp_path, scenario)


# -- a crash at any moment


class _CrashError(Exception):
    """The daemon died here."""


def crashing(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, first: bytes | None = None) -> str:
    """A load that a crash at that step cut off. Its digest. `first`: loaded before, with other signatures."""
    digests: list[str] = []

    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        if first is not None:
            await done(client, "manifest.load", orders(HEAD, client.key, life_ms=DAY))
        said = await done(client, "manifest.load", {**orders(HEAD, client.key), "check": True})
        digests.append(said["digest"])

        def crash(*_: object, **__: object) -> None:
            raise _CrashError

        with monkeypatch.context() as patched:
            patched.setattr(where, crash)
            assert code_of(await client.ask("manifest.load", orders(HEAD, client.key))) == "internal"

    serving(tmp_path, scenario)
    return digests[0]


STEPS: Final = {
    "before the signatures": "immured.service.manifest_files.ManifestFiles.stage",
    "before the entry": "immured.service.commands.manifest.decide",
    "after the entry": "immured.service.manifest_files.ManifestFiles.finish",
}


@pytest.mark.parametrize("step", STEPS)
def test_the_ledger_says_whether_it_was_loaded(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = crashing(tmp_path, STEPS[step], monkeypatch)

    async def after(harness: Harness) -> None:
        client = harness.connect()
        wanted = "ok" if step == "after the entry" else "unknown_manifest"
        assert used(harness, digest) == wanted
        listed = {one["digest"] for one in (await done(client, "manifest.list", {}))["manifests"]}
        assert (digest in listed) == (wanted == "ok")
        assert harness.of_type("manifest.damaged") == []
        await done(client, "manifest.load", orders(HEAD, client.key))
        assert used(harness, digest) == "ok"

    started_anew(tmp_path, after)


@pytest.mark.parametrize("step", STEPS)
def test_a_renewal_that_was_cut_off_leaves_the_one_or_the_other(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = crashing(tmp_path, STEPS[step], monkeypatch, HEAD)

    async def after(harness: Harness) -> None:
        assert used(harness, digest) == "ok"
        approved = harness.service.manifests.register.find(digest)
        assert approved is not None
        [signer] = approved.signers
        assert (signer.expires_ms - signer.signed_ms == DAY) == (step != "after the entry")

    started_anew(tmp_path, after)


def test_a_half_loaded_file_is_no_built_in_one(tmp_path: Path) -> None:
    """It lies there, and no entry speaks of it; even where somebody takes away that it was to be loaded."""

    async def before(harness: Harness) -> None:
        stem = harness.service.manifests.files.stage(HEAD, b"anything")
        (harness.state.paths.manifests / f"{stem}.signatures.next").unlink()

    async def after(harness: Harness) -> None:
        digests = {one["digest"] for one in (await done(harness.connect(), "manifest.list", {}))["manifests"]}
        assert digests == set(harness.state.classes.values())

    serving(tmp_path, before)
    started_anew(tmp_path, after)


def test_a_ledger_that_was_put_back_knows_of_no_later_manifest(tmp_path: Path) -> None:
    """Its files are all there, with the daemon's own signature."""
    digests: list[str] = []
    kept = tmp_path / "kept"

    async def before(harness: Harness) -> None:
        client = harness.connect()
        await done(client, "status", {})
        shutil.copytree(harness.state.paths.ledger, kept)
        digests.append(await loaded(client, HEAD))

    async def after(harness: Harness) -> None:
        assert used(harness, digests[0]) == "unknown_manifest"

    serving(tmp_path, before)
    ledger = tmp_path / "state" / "ledger"
    shutil.rmtree(ledger)
    shutil.copytree(kept, ledger)
    started_anew(tmp_path, after)


# -- what older daemons left


def test_a_state_directory_of_before_has_the_built_in_ones_after_its_first_start(tmp_path: Path) -> None:
    state = init_state(tmp_path / "state")
    files = ManifestFiles(state.paths.manifests)
    for stem in list(files.stems()):
        for end in ("toml", "sig"):
            (state.paths.manifests / f"{stem}.{end}").unlink()
    before = class_text("default").replace(b'name = "default"', b'name = "default"\n# as it was', 1)
    old = "sha256:" + files.add_built_in((state.key,), before)

    async def after(harness: Harness) -> None:
        client = harness.connect()
        rows = (await done(client, "manifest.list", {}))["manifests"]
        assert {one["digest"] for one in rows} == {*harness.state.classes.values(), old}
        assert {one["standing"] for one in rows} == {"in_force"}
        assert (await client.ask("run", {**TRUE, "manifest": old})).ok

    started_anew(tmp_path, after)


def test_a_built_in_copy_that_is_wrong_is_put_right_and_said(tmp_path: Path) -> None:
    state = init_state(tmp_path / "state")
    files, stem = ManifestFiles(state.paths.manifests), default_manifest().digest[7:]
    texts = [class_text(name) for name in CLASSES]
    assert settle(files, Register(), texts, (state.key,)) == []
    for end in ("toml", "sig"):
        path = state.paths.manifests / f"{stem}.{end}"
        right = path.read_bytes()
        path.write_bytes(right[:-2] + b"x\n")
        [wrong] = settle(files, Register(), texts, (state.key,))
        assert wrong.file == path.name
        assert path.read_bytes() == right
    assert DaemonKeys(state.key).known == (state.key.public,)
