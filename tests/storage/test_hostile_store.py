"""What a broker that was taken over may put into its directories, and what the launcher makes of it: nothing.

The volumes are tampered with as root, which the test is; what is put there is what the broker's user could have put.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import Volumes
from immured.errors import ImmuredError
from immured.service.trees import remove_from
from tests.patience import PATIENCE_S
from tests.storage.conftest import MIB, Shell

pytestmark = pytest.mark.needs_root


@pytest.fixture
def place(daemon: ThrowawayDaemon, client: Client, volume: str) -> Iterator[Path]:
    """A volume's own directory; it was not used yet."""
    found = daemon.state / "volumes" / "default" / volume
    yield found
    for name in ("image", "data"):
        if (found / name).is_symlink() or (found / name).is_file():
            (found / name).unlink()
        elif (found / name).is_dir():
            shutil.rmtree(found / name)


def refused(shell: Shell, place: Path) -> str:
    try:
        result = shell("echo in > /cache/in; ls -a /cache", volumes=[{"name": place.name, "target": "/cache"}])
    except ImmuredError as error:
        return error.message
    assert result.cause == "setup_failed", result
    return str(result.failure)


def own(path: Path, like: Path) -> None:
    facts = like.stat()
    os.chown(path, facts.st_uid, facts.st_gid, follow_symlinks=False)


def format_as(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", path], check=True, timeout=PATIENCE_S)
    path.chmod(0o600)


@pytest.mark.parametrize("how", ["its owner's", "two names", "others may read", "a link", "a directory", "a fifo"])
def test_a_file_system_that_is_not_ours_is_not_mounted(shell: Shell, place: Path, tmp_path: Path, how: str) -> None:
    image = place / "image"
    if how == "a directory":
        image.mkdir()
        own(image, place)
    elif how == "a fifo":
        os.mkfifo(image, 0o600)
    elif how == "a link":
        format_as(tmp_path / "image")
        image.symlink_to(tmp_path / "image")
    else:
        format_as(image)
        if how == "its owner's":
            own(image, place)
        elif how == "two names":
            (place / "other").hardlink_to(image)
        else:
            image.chmod(0o644)
    assert place.name in refused(shell, place)
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(place) in line]


def test_no_link_in_a_volume_is_followed(shell: Shell, place: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    own(target, place)
    moved = place.with_name(".moved")
    place.rename(moved)
    try:
        place.symlink_to(target)
        shutil.copy(moved / "volume.json", target)
        own(target / "volume.json", place)
        assert place.name in refused(shell, place)
        assert os.listdir(target) == ["volume.json"]
    finally:
        place.unlink()
        moved.rename(place)


def test_a_volume_of_roots_is_none(shell: Shell, place: Path) -> None:
    facts = place.stat()
    os.chown(place, 0, 0)
    try:
        assert place.name in refused(shell, place)
        place.chmod(0o755)
        (place / "volume.json").chmod(0o644)
        assert "root" in refused(shell, place)
    finally:
        os.chown(place, facts.st_uid, facts.st_gid)


def test_a_removal_follows_nothing_and_stops_at_no_depth(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(kept)
    (tree / "file").hardlink_to(kept / "file")
    os.mkfifo(tree / "fifo")
    closed = tree / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0)
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_from(tmp_path, "tree")
    assert os.listdir(tmp_path) == ["kept"]
    assert (kept / "file").read_text() == "kept"


def test_an_image_that_others_may_write_is_none(daemon: ThrowawayDaemon, client: Client) -> None:
    digest = "ab" * 32
    place = daemon.state / "images" / digest
    (place / "tree" / "rootfs").mkdir(parents=True)
    (place / "image.json").write_text(f'{{"digest": "sha256:{digest}", "name": "x"}}')
    try:
        manifest = {"schema": 1, "filesystem": {"root": f"image:sha256:{digest}"}}
        for owner, mode in ((place.stat().st_uid + 1, 0o755), (0, 0o777)):
            os.chown(place, owner, 0)
            place.chmod(mode)
            result = client.run(["/bin/true"], manifest=manifest)
            assert result.cause == "setup_failed"
            assert "root's alone" in str(result.failure)
    finally:
        os.chown(place, 0, 0)
        shutil.rmtree(place)


def test_the_tests_own_volume_is_a_good_one(client: Client, shell: Shell, place: Path) -> None:
    """Else the refusals above would show nothing."""
    result = shell("echo in > /cache/in && cat /cache/in", volumes=[{"name": place.name, "target": "/cache"}])
    assert result.stdout == b"in\n"
    assert place.name in [one.name for one in Volumes(client).list()]
