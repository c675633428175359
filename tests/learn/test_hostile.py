"""A command under learning gets nothing that its caller would mind: it changes nothing, and reaches nobody."""

from __future__ import annotations

import os
import socket
import tomllib
from pathlib import Path

import pytest

from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from tests.learn.conftest import Immure
from tests.learn.test_programs import learned, tree


def test_what_is_destroyed_is_there_afterwards(immure: Immure, world: Path) -> None:
    before = tree(world)
    line = f"rm -rf {world}/project/src {world}/data/deep; echo x > {world}/home/notes; mv src gone; chmod 777 .; ls"
    learned(immure, world, "/bin/sh", "-c", line)
    assert tree(world) == before


def test_secrets_of_the_home_are_empty_and_not_granted(immure: Immure, world: Path) -> None:
    home = world / "home"
    said = immure(
        "learn", "-o", str(home / "m.toml"), "--", "/bin/sh", "-c",
        f"cat {home}/.ssh/id_ed25519 {home}/.netrc {home}/notes",
    )  # fmt: skip
    assert said.out == "notes", said
    text = (home / "m.toml").read_text()
    assert tomllib.loads(text)["filesystem"] == {"read": [str(home / "notes")]}
    for name in (".ssh/id_ed25519", ".netrc"):
        assert f"not granted: {home}/{name}" in said.err or f"#   {home}/{name}" in text


def test_a_key_by_its_name_is_not_granted(immure: Immure, world: Path) -> None:
    text = learned(immure, world, "cat", f"{world}/data/server.pem")
    assert "filesystem" not in tomllib.loads(text) or "read" not in tomllib.loads(text)["filesystem"]
    assert f"#   {world}/data/server.pem  looks like a secret, and was read" in text


def test_a_home_is_never_granted_whole(immure: Immure, world: Path) -> None:
    text = learned(immure, world, "ls", f"{world}/home")
    filesystem = tomllib.loads(text)["filesystem"]
    assert filesystem == {"read": [f"{world}/home"], "hide": [f"{world}/home"]}, "there, and shown empty"
    assert "would be the whole of it" in text


def test_what_root_alone_may_read_stays_so(immure: Immure, world: Path) -> None:
    text = learned(immure, world, "cat", f"{world}/data/roots", status=1)
    assert f'"{world}/data/roots"' not in text
    text = learned(immure, world, "cat", "/etc/shadow", status=1, options=("--force",))
    assert "shadow" not in text.split("[filesystem]")[-1].split("#   cat")[0] or "filesystem" not in tomllib.loads(text)


def test_no_network_but_its_own(immure: Immure, world: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})))"
        said = immure("learn", "-o", str(world / "home/m.toml"), "--", "python3", "-c", code)
        assert said.out == "111\n", said
        code = "import socket; print(socket.socket().connect_ex(('192.0.2.1', 80)))"
        said = immure("learn", "--force", "-o", str(world / "home/m.toml"), "--", "python3", "-c", code)
        assert "refused: connect 192.0.2.1:80" in said.err
        assert tomllib.loads((world / "home/m.toml").read_text())["network"] == {"mode": "none"}


WALLED = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, number, *arguments in (
    ("unshare", 272, 0x10000000), ("mount", 165, 0, 0, 0, 0, 0), ("bpf", 321, 0, 0, 0), ("io_uring_setup", 425, 1, 0),
    ("setns", 308, 0, 0), ("keyctl", 250, 0, 0), ("clone", 56, 0x10000011, 0, 0, 0, 0),
):
    if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() != 1:
        print("got", name, ctypes.get_errno())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
def test_walls_stand(immure: Immure, world: Path) -> None:
    said = immure("learn", "-o", str(world / "home/m.toml"), "--", "python3", "-c", WALLED)
    assert (said.status, said.out) == (0, ""), said
    allowed = tomllib.loads((world / "home/m.toml").read_text())["syscalls"].get("allow", [])
    assert not {"unshare", "mount", "bpf", "setns", "keyctl"} & set(allowed)
    assert "refused: unshare" in said.err


RACE = """
import ctypes, os, threading
libc = ctypes.CDLL(None)
path = ctypes.create_string_buffer(b"{data}/deep/one", 512)
def flip():
    for turn in range(200000):
        path.value = b"{data}/deep/one" if turn % 2 else b"{home}/notes"
thread = threading.Thread(target=flip); thread.start()
while thread.is_alive():
    fd = libc.open(path, 0)
    if fd >= 0: os.close(fd)
"""


def test_a_race_ends_in_a_manifest_that_names_what_it_saw_and_no_more(immure: Immure, world: Path) -> None:
    code = RACE.format(data=world / "data", home=world / "home")
    found = tomllib.loads(learned(immure, world, "python3", "-c", code))
    assert set(found["filesystem"]["read"]) <= {f"{world}/data/deep/one", f"{world}/home/notes", f"{world}/project"}


def test_a_flood_of_names_is_cut_and_said_so(immure: Immure, world: Path) -> None:
    code = f"import os\nfor i in range(9000): os.path.exists(f'{world}/data/' + 'x' * 60 + str(i))"
    text = learned(immure, world, "python3", "-c", code)
    assert "this is not all" in text


def test_what_is_written_in_all_is_bounded(immure: Immure, world: Path) -> None:
    said = immure(
        "learn", "-o", str(world / "home/m.toml"), "--disk", "64M", "--",
        "dd", "if=/dev/zero", f"of={world}/project/big", "bs=1M", "count=200",
    )  # fmt: skip
    assert said.status != 0
    assert "No space left" in said.err


def test_root_does_not_learn(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as admin:
        with pytest.raises(Refusal, match="root") as root:
            admin.run(["/bin/true"], learn=True)
        assert root.value.code == "root_owned"


def test_the_ledger_says_that_it_was_one(immure: Immure, world: Path, daemon: ThrowawayDaemon) -> None:
    learned(immure, world, "/bin/true")
    entries = b"".join(one.read_bytes() for one in sorted((daemon.state / "ledger").rglob("*")) if one.is_file())
    assert b'"learn":true' in entries.replace(b" ", b"")


def test_a_secret_is_not_reached_by_moving_what_it_lies_in(immure: Immure, world: Path) -> None:
    line = f"mv {world}/home {world}/moved; mv {world}/home/.ssh {world}/ssh; cat {world}/*/.ssh/* {world}/ssh/* {world}/*/.netrc"  # fmt: skip # noqa: E501
    said = immure("learn", "-o", str(world / "project/m.toml"), "--see", str(world), "--", "/bin/sh", "-c", line)
    assert "private" not in said.out, said
    assert "password" not in said.out, said
    assert (world / "home/.ssh/id_ed25519").read_text() == "private"


def test_nobody_is_spoken_to_through_a_layer(immure: Immure, world: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(world / "data" / "socket"))
        server.listen()
        os.chmod(world / "data" / "socket", 0o777)
        code = f"import socket; print(socket.socket(socket.AF_UNIX).connect_ex('{world}/data/socket'))"
        said = immure("learn", "-o", str(world / "home/m.toml"), "--see", str(world), "--", "python3", "-c", code)
        assert said.out.strip() not in ("0", ""), said


BASE = 'schema = 1\nname = "b"\n[filesystem]\nwrite = [{{ path = "{0}", noexec = true }}]\nprotect = ["@vcs"]\n'


def test_a_bases_walls_hold_while_it_is_learned_from(immure: Immure, world: Path) -> None:
    """Protected names are held in the layer, not in the directory; what may not be executed cannot be."""
    project = world / "project"
    (project / "base.toml").write_text(BASE.format(project))
    (project / "base.toml").chmod(0o644)
    (project / "tool").write_text("#!/bin/sh\necho ran\n")
    (project / "tool").chmod(0o755)
    before = tree(world)
    line = "./tool; echo x > .git; echo y > made"
    said = immure("learn", "--manifest", "base.toml", "-o", str(world / "home/m.toml"), "--", "/bin/sh", "-c", line)
    assert (said.status, said.out) == (0, ""), said
    assert "refused: openat" in said.err
    assert tree(world) == before
