"""Manifests on a disk that is really full: nothing is loaded by half, and what was loaded serves on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.manifest.builtin import parse_toml
from tests.preflight.places import full, memory
from tests.service.harness import Harness, serving
from tests.service.manifest_scenes import DAY, HEAD, loaded, manifest, orders, standing
from tests.service.orders import code_of, done

pytestmark = pytest.mark.needs_root

OTHER = manifest("# " + "x" * 20_000 + "\n", name="other")


@pytest.fixture
def small() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="small-"))
    try:
        with memory(place, size="8m", uid=0):
            yield place
    finally:
        place.rmdir()


def test_a_full_disk_takes_no_manifest_and_loses_none(small: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        digest = await loaded(client, HEAD)
        before = {path.name for path in harness.state.paths.manifests.iterdir()}
        with full(small):
            for args in (orders(OTHER, client.key), orders(HEAD, client.key, life_ms=DAY)):
                assert code_of(await client.ask("manifest.load", args)) == "storage_failed"
            assert {path.name for path in harness.state.paths.manifests.iterdir()} == before
            assert await standing(client, digest) == "in_force"
        assert code_of(await client.ask("run", {"argv": ["/bin/true"], "manifest": parse_toml(OTHER).digest})) == (
            "unknown_manifest"
        )
        await done(client, "manifest.load", orders(HEAD, client.key, life_ms=DAY))
        await loaded(client, OTHER)

    serving(small, scenario)
