"""What somebody tries who may use manifests, or load some, and wants more than that."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from immured.manifest.difference import Calls
from immured.manifest.pipeline import Judged, compare
from immured.service import manifest_files, manifest_store
from immured.service import manifest_register as register
from immured.service.commands import manifest as commands
from immured.service.files import write_whole
from tests.patience import PATIENCE_S
from tests.service.harness import Harness, serving
from tests.service.manifest_scenes import DAY, files_of, loaded, manifest, orders, started_anew, with_tenants
from tests.service.orders import code_of, done, error_of, let_in

SECRET = manifest('tenants = ["beta"]\n[filesystem]\nread = ["/srv/beta-secret"]\n', name="payroll")


# -- what one makes others wait for


@pytest.mark.parametrize("command", ["preflight", "manifest.load"])
def test_nobody_waits_while_a_file_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """A hostile file takes a second or two of it: with this one it takes until somebody else was answered."""
    begun, answered = threading.Event(), threading.Event()

    def slowly(judged: Judged, calls: Calls | None) -> Judged:
        begun.set()
        assert answered.wait(PATIENCE_S)
        return compare(judged, calls)

    async def scenario(harness: Harness) -> None:
        admin, other = harness.connect(), harness.connect()
        order = orders(manifest(), admin.key)
        if command == "preflight":
            order = {"raw": order["manifest"], "signatures": order["signatures"]}
        monkeypatch.setattr(manifest_store, "compare", slowly)
        asked = asyncio.ensure_future(admin.ask(command, order))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        try:
            await done(other, "status", {})
        finally:
            answered.set()
        assert (await asked).ok

    serving(tmp_path, scenario)


# -- what one tenant learns of another


@pytest.mark.parametrize("tenants", ["", 'tenants = ["beta"]\n', 'tenants = ["acme", "beta"]\n'])
def test_no_verdict_compares_with_what_one_may_not_see(tmp_path: Path, tenants: str) -> None:
    """A file that will never be loaded is compared all the same, where somebody only asks."""

    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        digest = await loaded(harness.connect(), SECRET)
        probe = manifest(f'{tenants}personas = ["nobody-is-called-so"]\n[limits]\nmemory = "1G"\n', name="payroll")
        said = await done(eve, "manifest.load", {**orders(probe, eve.key), "check": True})
        rows = await done(eve, "preflight", {"raw": probe, "signatures": orders(probe, eve.key)["signatures"]})
        assert digest not in repr(said)
        assert said["baseline"]["kind"] == "class"
        for told in (said, rows):
            assert "last approved" not in repr(told)
            assert "its class" in repr(told)

    serving(tmp_path, scenario)


def test_why_another_tenant_s_was_revoked_is_not_told(tmp_path: Path) -> None:
    """Nor that it was ever loaded, to who happens to have the file."""

    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        admin = harness.connect()
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        ours = manifest('tenants = ["acme"]\n', name="ours")
        for raw in (SECRET, ours):
            digest = await loaded(admin, raw)
            await done(admin, "manifest.revoke", {"digest": digest, "reason": "it paid twice"})
        for order in (orders(SECRET, eve.key), {**orders(SECRET, eve.key), "check": True}):
            reply = await eve.ask("manifest.load", order)
            assert "revoked" not in repr(reply.result or reply.error)
        assert "revoked" not in repr(await done(eve, "preflight", {"raw": SECRET}))
        assert code_of(await eve.ask("manifest.load", orders(SECRET, eve.key))) == "manifest_invalid"
        assert code_of(await eve.ask("manifest.load", orders(ours, eve.key))) == "manifest_revoked"
        assert code_of(await admin.ask("manifest.load", orders(SECRET, admin.key))) == "manifest_revoked"

    serving(tmp_path, scenario)


def test_pages_do_not_count_what_one_may_not_see(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])

        async def pages() -> list[object]:
            told: list[object] = []
            after: str | None = "0"
            while after is not None:
                page = await done(eve, "manifest.list", {"limit": 1, "after": after})
                after = page.get("next")
                told.append(after)
            return told

        admin = harness.connect()
        await loaded(admin, manifest('tenants = ["acme"]\n', name="one"))
        await loaded(admin, manifest('tenants = ["acme"]\n', name="two"))
        before = await pages()
        for at in range(3):
            await loaded(admin, manifest('tenants = ["beta"]\n', name=f"b{at}"))
        await loaded(admin, manifest('tenants = ["acme"]\n', name="three"))
        after = await pages()
        assert after[: len(before) - 1] == before[:-1]
        assert after[len(before) - 1 :] == [str(len(before)), None]

    serving(tmp_path, scenario)


# -- what one can fill


def test_what_was_revoked_counts_for_as_long_as_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file stays, so that what ran can be made again: who loads and revokes in turn fills the disk as well."""
    monkeypatch.setattr(commands, "MOST_KEPT_BYTES", 8 * 1024)
    monkeypatch.setattr(register, "LEAST_COUNTED", 2048)

    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        admin = harness.connect()
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        for at in range(4):
            digest = await loaded(eve, manifest(f'tenants = ["acme"]\n# {at}\n'))
            await done(admin, "manifest.revoke", {"digest": digest, "reason": "the next one"})
        error = error_of(await eve.ask("manifest.load", orders(manifest('tenants = ["acme"]\n'), eve.key)))
        assert (error["code"], error["details"]["quota"]) == ("over_quota", "manifest_bytes")
        await loaded(admin, manifest('tenants = ["beta"]\n'))  # of others it takes nothing
        await loaded(admin, manifest())

    serving(tmp_path, scenario)


def test_only_so_many_are_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is up to a megabyte as it is parsed: the others are read again when they are used."""
    monkeypatch.setattr(manifest_store, "MOST_PARSED", 3)

    async def scenario(harness: Harness) -> None:
        client, store = harness.connect(), harness.service.manifests
        made = [await loaded(client, manifest(name=f"n{at}")) for at in range(8)]
        for digest in (*made, *reversed(made)):
            assert (await client.ask("run", {"argv": ["/bin/true"], "manifest": digest})).ok
        parsed = [one for one in made if store._held[one].manifest is not None]
        assert 0 < len(parsed) <= 3
        await done(client, "manifest.load", orders(manifest(name="n7"), client.key, life_ms=DAY))  # renewed meanwhile
        assert (await client.ask("run", {"argv": ["/bin/true"], "manifest": made[7]})).ok
        assert harness.of_type("manifest.damaged") == []

    serving(tmp_path, scenario)


def test_a_load_that_the_disk_had_no_room_for_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(harness: Harness) -> None:
        client, directory = harness.connect(), harness.state.paths.manifests
        before = sorted(directory.iterdir())

        def full(path: Path, data: bytes, mode: int) -> None:
            if path.name.endswith(".next"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write_whole(path, data, mode)

        with monkeypatch.context() as patched:
            patched.setattr(manifest_files, "write_whole", full)
            error = error_of(await client.ask("manifest.load", orders(manifest(), client.key)))
        assert error["code"] == "storage_failed"
        assert sorted(directory.iterdir()) == before
        await loaded(client, manifest())

    serving(tmp_path, scenario)


# -- who may write beside the daemon


@pytest.mark.parametrize("place", ["signatures", "sig"])
def test_a_directory_in_a_file_s_place_keeps_no_daemon_from_starting(tmp_path: Path, place: str) -> None:
    """What it cannot finish there is damage, found when it is used."""
    found: list[str] = []

    async def before(harness: Harness) -> None:
        digest = await loaded(harness.connect(), manifest())
        files = files_of(harness, digest)
        files["signatures"].rename(files["signatures"].with_suffix(".signatures.next"))
        files["sig"].unlink()
        files[place].mkdir()
        found.append(digest)

    async def after(harness: Harness) -> None:
        client = harness.connect()
        reply = await client.ask("run", {"argv": ["/bin/true"], "manifest": found[0]})
        assert code_of(reply) == "manifest_damaged"
        assert (await client.ask("run", {"argv": ["/bin/true"]})).ok

    serving(tmp_path, before)
    started_anew(tmp_path, after)
