"""Images: unpacked by the operator, named by digest, seen by a payload with the owners that the image says."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import images
from immured.errors import ImmuredError
from tests.patience import PATIENCE_S
from tests.storage.oci import Entry, make_layout

pytestmark = pytest.mark.needs_root

# A root must have programs of its own that need no library of the host's.
PROGRAM = """
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    struct stat st;
    if (strcmp(argv[i], "stat") == 0) {
      if (stat(argv[i + 1], &st) < 0) printf("%s: %s\\n", argv[i + 1], strerror(errno));
      else printf("%s: %u:%u %o\\n", argv[i + 1], st.st_uid, st.st_gid, st.st_mode & 07777);
    } else if (strcmp(argv[i], "remove") == 0) {
      printf("%s: %s\\n", argv[i + 1], unlink(argv[i + 1]) < 0 ? strerror(errno) : "removed");
    } else {
      const int fd = open(argv[i + 1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
      printf("%s: %s\\n", argv[i + 1], fd < 0 ? strerror(errno) : write(fd, "new\\n", 4) == 4 ? "written" : "lost");
    }
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    at = tmp_path_factory.mktemp("program")
    (at / "look.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-static", "-o", at / "look", at / "look.c"], check=True, timeout=PATIENCE_S)
    return (at / "look").read_bytes()


@pytest.fixture(scope="module")
def image(daemon: ThrowawayDaemon, program: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    entries: dict[str, Entry] = {
        "bin": (0, 0, 0o755, None),
        "bin/hello": (0, 0, 0o755, program),
        "bin/setuid": (0, 0, 0o4755, program),
        "etc": (0, 0, 0o755, None),
        "etc/secret": (0, 0, 0o600, b"root's\n"),
        "home": (1000, 1000, 0o755, None),
        "home/mine": (1000, 1000, 0o644, b"old\n"),
        "srv": (65534, 100, 0o755, None),
    }
    layout = tmp_path_factory.mktemp("layout") / "oci"
    digest = make_layout(layout, entries)
    said = daemon.immure("image", "import", f"{layout}:test", "--state", str(daemon.state))
    assert said.stdout.strip() == f"image:{digest}"
    return digest


def look(client: Client, image: str, *arguments: str, **filesystem: object) -> list[str]:
    manifest = {"schema": 1, "filesystem": {"root": f"image:{image}", **filesystem}}
    result = client.run(["/bin/hello", *arguments], manifest=manifest, cwd="/")
    assert result.cause == "exited", result
    return result.stdout.decode().splitlines()


def test_owners_inside_are_those_that_the_image_says(client: Client, image: str) -> None:
    said = look(client, image, "stat", "/bin/hello", "stat", "/home/mine", "stat", "/srv", "stat", "/etc/secret")
    assert said == ["/bin/hello: 0:0 755", "/home/mine: 1000:1000 644", "/srv: 65534:100 755", "/etc/secret: 0:0 600"]


def test_nothing_of_it_can_be_written_without_a_layer(client: Client, image: str, daemon: ThrowawayDaemon) -> None:
    said = look(client, image, "write", "/home/mine", "write", "/home/other", "write", "/tmp/there")
    assert said == [
        "/home/mine: Read-only file system",
        "/home/other: Read-only file system",
        "/tmp/there: written",
    ]


def test_a_layer_takes_what_is_written_and_the_image_stays(client: Client, image: str, daemon: ThrowawayDaemon) -> None:
    said = look(client, image, "write", "/home/mine", "write", "/home/other", "write", "/etc/secret", root_layer=True)
    assert said == ["/home/mine: written", "/home/other: written", "/etc/secret: Permission denied"]
    root = daemon.state / "images" / image.removeprefix("sha256:") / "tree" / "rootfs"
    assert (root / "home" / "mine").read_bytes() == b"old\n"
    assert not (root / "home" / "other").exists()


def test_what_is_mounted_is_made_in_a_layered_root(client: Client, image: str) -> None:
    said = look(client, image, "write", "/work/deep/x", root_layer=True, tmpfs=["/work/deep"])
    assert said == ["/work/deep/x: written"]


def test_no_user_of_the_host_reaches_its_setuid_programs(daemon: ThrowawayDaemon, image: str) -> None:
    place = daemon.state / "images" / image.removeprefix("sha256:")
    assert stat.S_IMODE((place / "tree").stat().st_mode) == 0o700
    assert (place / "tree" / "rootfs" / "bin" / "setuid").stat().st_mode & stat.S_ISUID
    # By a shell: setpriv itself still has its capabilities when it executes something.
    program = place / "tree" / "rootfs" / "bin" / "setuid"
    user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
    reached = subprocess.run([*user, "/bin/sh", "-c", f"exec {program}"], capture_output=True, check=False)
    assert reached.returncode != 0
    assert place.stat().st_uid == 0


def test_it_is_listed_with_what_it_says_of_itself(client: Client, image: str) -> None:
    [listed] = [one for one in client.ask(images()) if one.digest == image]
    assert listed.name == "test"
    assert listed.more["env"] == ["FROM=image"]
    assert listed.more["command"] == ["/bin/hello"]


def test_an_image_that_is_not_there_is_refused_by_name(client: Client) -> None:
    absent = "sha256:" + "0" * 64
    with pytest.raises(ImmuredError) as refused:
        look(client, absent)
    assert refused.value.code == "unknown_image"
    assert absent in refused.value.message


def test_a_root_layer_without_an_image_is_refused(client: Client) -> None:
    with pytest.raises(ImmuredError) as refused:
        client.run(["/bin/true"], manifest={"schema": 1, "filesystem": {"root_layer": True}})
    assert refused.value.code == "manifest_invalid"


@pytest.mark.parametrize("damage", ["layer", "manifest", "reference"])
def test_what_is_not_as_its_digest_says_is_not_imported(
    daemon: ThrowawayDaemon, program: bytes, tmp_path: Path, damage: str
) -> None:
    layout = tmp_path / "oci"
    digest = make_layout(layout, {"bin": (0, 0, 0o755, None), f"bin/{damage}": (0, 0, 0o755, program)})
    name = f"{layout}:{'absent' if damage == 'reference' else 'test'}"
    if damage == "layer":
        largest = max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
    elif damage == "manifest":
        (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_text("{}")
    said = daemon.immure("image", "import", name, "--state", str(daemon.state), check=False)
    assert said.returncode == 1
    assert "image_unusable" in said.stderr
    assert not (daemon.state / "images" / digest.removeprefix("sha256:")).exists()
    assert not [one for one in os.listdir(daemon.state / "images") if one.startswith(".")]
