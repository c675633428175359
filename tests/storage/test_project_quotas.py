"""Where the state directory's file system enforces project quotas, they are what bounds a volume."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import Volumes
from immured.host.quota import enforces_projects, volume_means
from tests.patience import PATIENCE_S

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cgroup2]

MIB = 1 << 20
VOLUME = [{"name": "cache", "target": "/cache"}]


@pytest.fixture(scope="module")
def quotas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ext4 of 256 MiB that enforces project quotas, mounted."""
    base = tmp_path_factory.mktemp("quotas")
    image, place = base / "image", base / "mounted"
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    place.mkdir()
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-O", "quota,project", image], check=True, timeout=PATIENCE_S)
    subprocess.run(["mount", "-o", "loop,prjquota", image, place], check=True, timeout=PATIENCE_S)
    base.chmod(0o711)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def bounded(quotas: Path) -> Iterator[ThrowawayDaemon]:
    ThrowawayDaemon.immure("init", "--state", str(quotas / "state"))
    with ThrowawayDaemon(state=quotas / "state") as daemon:
        yield daemon


@pytest.fixture
def client(bounded: ThrowawayDaemon) -> Iterator[Client]:
    with bounded.client() as connected:
        Volumes(connected).create("cache", bytes=16 * MIB, files=256)
        yield connected
        Volumes(connected).remove("cache")


def sh(client: Client, script: str) -> str:
    result = client.run(["/bin/sh", "-c", script], manifest={"schema": 1, "filesystem": {"volumes": VOLUME}})
    return (result.stdout + result.stderr).decode()


def test_they_are_found_and_told_apart_from_counting(quotas: Path, tmp_path: Path) -> None:
    assert enforces_projects(quotas)
    assert volume_means(quotas) == "project quota"
    plain = tmp_path / "plain"
    plain.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", plain], check=True, timeout=PATIENCE_S)
    try:
        assert not enforces_projects(plain)
    finally:
        subprocess.run(["umount", plain], check=True, timeout=PATIENCE_S)


def test_no_more_bytes_than_the_quota(client: Client, bounded: ThrowawayDaemon) -> None:
    said = sh(client, "dd if=/dev/zero of=/cache/big bs=1M count=64 2>&1; stat -c %s /cache/big")
    assert "Disk quota exceeded" in said or "No space left" in said
    assert 12 * MIB <= int(said.split()[-1]) <= 16 * MIB
    [row] = Volumes(client).list()
    assert row.means == "project quota"
    assert row.used_bytes is not None
    assert 12 * MIB <= row.used_bytes <= 16 * MIB
    assert not os.path.lexists(bounded.state / "volumes" / "default" / "cache" / "image")


def test_no_more_files_than_the_quota(client: Client) -> None:
    said = sh(
        client,
        "i=0; while [ $i -lt 1000 ]; do touch /cache/f$i 2>/dev/null || break; i=$((i+1)); done; ls /cache | wc -l",
    )
    assert 200 < int(said.split()[-1]) <= 256
    [row] = Volumes(client).list()
    assert row.used_files is not None
    assert row.used_files <= 256


def test_a_payload_cannot_leave_its_project(client: Client) -> None:
    script = """
import fcntl, os, struct
fd = os.open('/cache', os.O_RDONLY)
raw = bytearray(28)
try:
    fcntl.ioctl(fd, 0x801c581f, raw)
    flags, extsize, nextents, project, cow = struct.unpack_from('=IIIII', raw)
    fcntl.ioctl(fd, 0x401c5820, struct.pack('=IIIII8x', 0, extsize, nextents, 0, cow))
    print('left', project)
except OSError as error:
    print('refused', error.errno)
"""
    result = client.run(["/usr/bin/python3", "-c", script], manifest={"schema": 1, "filesystem": {"volumes": VOLUME}})
    assert result.stdout.startswith(b"refused"), result


def test_two_volumes_have_quotas_of_their_own(client: Client) -> None:
    Volumes(client).create("second", bytes=32 * MIB, files=256)
    sh(client, "dd if=/dev/zero of=/cache/big bs=1M count=15 2>/dev/null")
    result = client.run(
        ["/bin/sh", "-c", "dd if=/dev/zero of=/two/big bs=1M count=28 2>/dev/null; stat -c %s /two/big"],
        manifest={"schema": 1, "filesystem": {"volumes": [{"name": "second", "target": "/two"}]}},
    )
    assert int(result.stdout) == 28 * MIB
    Volumes(client).remove("second")
