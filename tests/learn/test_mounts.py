"""A run that is learned from does not see beneath the host's mounts, though its layers lie there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.learn.conftest import Immure


@pytest.fixture
def mounted(world: Path) -> Iterator[Path]:
    """A directory of the caller's whose content a mount hides."""
    place = world / "home" / "shadowed"
    place.mkdir()
    (place / "beneath").write_text("hidden by the mount\n")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    (place / "above").write_text("what the host shows\n")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_what_lies_beneath_a_mount_is_not_shown(immure: Immure, world: Path, mounted: Path) -> None:
    target = world / "home" / "learned.toml"
    said = immure("learn", "-o", str(target), "--", "/bin/sh", "-c", f"ls {mounted}; cat {mounted}/beneath; echo over")
    assert said.status == 0, said
    assert said.out == "over\n"
