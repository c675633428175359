"""The file system of a sandbox as a manifest orders it: from outside the daemon, from inside the sandbox."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.host.syscalls import landlock_abi
from immured.isolation.landlock import landlock_rung
from immured.wire.keys import PrivateKey
from tests.walls.acting import AsUserError, as_user

OWNER = 61031
RUNG = landlock_rung(landlock_abi())
Order = Callable[..., RunResult]


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="immured-filesystem-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def key(daemon: ThrowawayDaemon, client: Client, base: Path) -> Path:
    found = PrivateKey.generate()
    path = base / "key.pem"
    path.write_bytes(found.to_pem())
    os.chown(path, OWNER, OWNER)
    path.chmod(0o600)
    client.key_add("owner", found.public.to_pem(), role="runner", uids=[OWNER])
    return path


@pytest.fixture
def tree(base: Path) -> Iterator[Path]:
    """A directory of the caller's."""
    path = base / "tree"
    path.mkdir()
    os.chown(path, OWNER, OWNER)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def order(daemon: ThrowawayDaemon, key: Path) -> Order:
    """A run as the owner, with this [filesystem]."""

    def order(
        argv: list[str], filesystem: dict[str, Any] | None = None, files: dict[str, bytes] | None = None, **more: Any
    ) -> RunResult:
        manifest = {"schema": 1, "name": "inline", "filesystem": filesystem or {}, **more}

        def work() -> RunResult:
            with daemon.client(key) as connected:
                return connected.run(argv, manifest=manifest, files=files or {})

        result: RunResult = as_user(OWNER, work)
        return result

    return order


def own(path: Path, content: str | None = None) -> Path:
    if content is None:
        path.mkdir(parents=True)
    else:
        path.write_text(content)
    os.chown(path, OWNER, OWNER)
    return path


def shell(command: str) -> list[str]:
    return ["/bin/sh", "-c", command]


def python(program: str) -> list[str]:
    return ["/usr/bin/python3", "-I", "-c", program]


# --- mounts ----------------------------------------------------------------------------------------------------------


def test_every_mount_is_nosuid_and_all_but_dev_nodev(order: Order, tree: Path) -> None:
    """A bound tree with something mounted in it, a private directory, and what every sandbox has."""
    filesystem = {"write": [str(tree)], "read": ["/opt"] if Path("/opt").is_dir() else [], "tmpfs": ["/scratch"]}
    result = order(["/bin/cat", "/proc/self/mounts"], filesystem)
    mounts = [line.split() for line in result.stdout.decode().splitlines()]
    assert {"/tmp", "/scratch", str(tree), "/dev/shm", "/dev/pts", "/proc"} <= {mount[1] for mount in mounts}
    assert [mount[1] for mount in mounts if "nosuid" not in mount[3].split(",")] == []
    without = {mount[1] for mount in mounts if "nodev" not in mount[3].split(",")}
    assert without <= {"/dev", "/dev/pts", *(f"/dev/{name}" for name in SIX)}


SIX = {"null", "zero", "full", "random", "urandom", "tty"}


def test_there_are_six_device_nodes_and_its_own_terminals(client: Client) -> None:
    program = (
        "import os, json, stat\n"
        "found = []\n"
        "for top, _, names in os.walk('/'):\n"
        "    for name in names:\n"
        "        path = os.path.join(top, name)\n"
        "        if not path.startswith('/proc/'):\n"
        "            mode = os.lstat(path).st_mode\n"
        "            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode): found.append(path)\n"
        "print(json.dumps(found))"
    )
    found = set(json.loads(client.run(python(program)).stdout))
    assert found == {*(f"/dev/{name}" for name in SIX), "/dev/pts/ptmx"}


PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_MASKED = ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list")


def test_what_container_runtimes_mask_and_make_read_only_in_proc_is(client: Client) -> None:
    program = (
        "import os, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    path = '/proc/' + name\n"
        "    if os.path.exists(path):\n"
        "        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)\n"
        "        content = os.listdir(path) if os.path.isdir(path) else os.path.getsize(path)\n"
        "        found[name] = [read_only, content]\n"
        "print(json.dumps(found))"
    )
    found = json.loads(client.run([*python(program), *PROC_READ_ONLY, *PROC_MASKED]).stdout)
    assert "sys" in found
    assert {name for name, (read_only, _) in found.items() if not read_only} == set()
    assert {name for name in PROC_MASKED if name in found and found[name][1] not in (0, [])} == set()


@pytest.mark.parametrize(("what", "met"), [("bytes", "ENOSPC"), ("files", "ENOSPC")])
@pytest.mark.parametrize("place", ["/tmp", "/scratch", "/dev/shm"])
def test_private_directories_are_bounded_in_bytes_and_in_files(order: Order, what: str, met: str, place: str) -> None:
    program = (
        "import os, errno, sys\n"
        "os.chdir(sys.argv[1])\n"
        "try:\n"
        "    if sys.argv[2] == 'bytes':\n"
        "        with open('x', 'wb', 0) as file:\n"
        "            for _ in range(1024): file.write(bytes(65536))\n"
        "    else:\n"
        "        for i in range(100000): open(str(i), 'w').close()\n"
        "except OSError as error: print(errno.errorcode[error.errno])"
    )
    result = order([*python(program), place, what], {"tmpfs": ["/scratch"]}, limits={"disk": "8M"})
    assert result.stdout.decode() == f"{met}\n"


# --- files that are put in -------------------------------------------------------------------------------------------


def test_a_file_is_put_in_over_nothing_that_is_there(order: Order, tree: Path) -> None:
    own(tree / "kept", "the owner's\n")
    result = order(["/bin/true"], {"write": [str(tree)]}, files={f"{tree}/kept": b"another's\n"})
    assert result.failure is not None
    assert (result.failure["code"], result.failure["path"]) == ("target_invalid", f"{tree}/kept")
    assert "remove what is there" in str(result.failure["remedy"])
    assert (tree / "kept").read_text() == "the owner's\n"


def test_a_file_is_put_in_where_its_caller_may_make_one_alone(order: Order, tree: Path) -> None:
    (own(tree / "closed")).chmod(0o555)
    result = order(["/bin/true"], {"write": [str(tree)]}, files={f"{tree}/closed/new": b"x"})
    assert result.failure is not None
    assert (result.failure["code"], result.failure["path"]) == ("target_invalid", f"{tree}/closed/new")
    assert "may make a file" in str(result.failure["remedy"])


# --- noexec ----------------------------------------------------------------------------------------------------------

COPY_AND_RUN = "cp /bin/true {0}/program && {0}/program; echo $?"


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/scratch"])
def test_nothing_is_executed_where_the_manifest_says_so(order: Order, place: str) -> None:
    filesystem = {"tmpfs": ["/scratch"], "noexec": [place]}
    result = order(shell(COPY_AND_RUN.format(place)), filesystem)
    assert result.stdout == b"126\n"


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/scratch"])
def test_elsewhere_it_is(order: Order, place: str) -> None:
    filesystem = {"tmpfs": ["/scratch"], "noexec": [one for one in ("/tmp", "/dev/shm", "/scratch") if one != place]}
    assert order(shell(COPY_AND_RUN.format(place)), filesystem).stdout == b"0\n"


def test_nothing_is_executed_in_a_writable_directory_that_the_manifest_names(order: Order, tree: Path) -> None:
    result = order(shell(COPY_AND_RUN.format(tree)), {"write": [str(tree)], "noexec": [str(tree)]})
    assert result.stdout == b"126\n"


# --- protected places ------------------------------------------------------------------------------------------------


def test_a_group_of_places_is_protected_in_every_writable_directory(order: Order, tree: Path) -> None:
    own(tree / "one")
    own(tree / "two")
    own(own(tree / "one/.git") / "config", "the owner's\n")
    command = (
        f"cd {tree}/one; echo x > .git/config; mv .git x; echo x > .envrc; cd {tree}/two; mkdir -p .git/hooks; "
        "echo x > .bashrc; echo x > mine"
    )
    filesystem = {"write": [str(tree / "one"), str(tree / "two")], "protect": ["@vcs", "@shell"]}
    order(shell(command), filesystem)
    assert (os.listdir(tree / "one"), os.listdir(tree / "two")) == ([".git"], ["mine"])
    assert (tree / "one/.git/config").read_text() == "the owner's\n"


def test_without_it_all_of_these_come_to_be(order: Order, tree: Path) -> None:
    command = f"cd {tree}; mkdir -p .git/hooks; echo x > .envrc; echo x > .bashrc"
    order(shell(command), {"write": [str(tree)]})
    assert set(os.listdir(tree)) == {".git", ".envrc", ".bashrc"}


def test_a_place_may_be_named_apart_from_its_group(order: Order, tree: Path) -> None:
    filesystem = {
        "write": [str(tree)],
        "protect": ["@shell", {"path": f"{tree}/.envrc", "absent": "passed"}],
    }
    order(shell(f"cd {tree}; echo x > .envrc; echo x > .bashrc"), filesystem)
    assert os.listdir(tree) == [".envrc"]


def test_what_must_be_there_refuses_the_run_with_its_name(order: Order, tree: Path) -> None:
    filesystem = {"write": [str(tree)], "protect": [{"path": f"{tree}/.envrc", "absent": "refused"}]}
    result = order(["/bin/true"], filesystem)
    assert result.failure is not None
    assert f"{tree}/.envrc" in str(result.failure["message"])


def test_a_repository_can_be_worked_in_while_its_hooks_are_protected(order: Order, tree: Path) -> None:
    """And what the work made is the caller's, on the host."""
    if not shutil.which("git"):
        pytest.skip("no git")
    commands = (
        f"cd {tree} && export HOME=/tmp && git init -q . && git config user.name a && git config user.email a@b && "
        "echo x > file && git add file && git commit -qm one"
    )
    filesystem = {"write": [str(tree)]}
    assert order(shell(commands), filesystem).exit_code == 0
    filesystem["protect"] = [f"{tree}/.git/hooks", f"{tree}/.git/config"]
    work = (
        f"cd {tree} && export HOME=/tmp && echo y >> file && git commit -qam two && git checkout -qb other && "
        "git gc -q && git log --oneline | wc -l; echo x > .git/hooks/post-commit; git config core.hooksPath /tmp"
    )
    result = order(shell(work), filesystem)
    assert result.stdout.split() == [b"2"], result.stderr
    assert "hooksPath" not in (tree / ".git/config").read_text()
    assert not (tree / ".git/hooks/post-commit").exists()
    assert {path.stat().st_uid for path in tree.rglob("*")} == {OWNER}


# --- Landlock --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(RUNG == 0, reason="a kernel without Landlock")
class TestLandlock:
    def test_the_plan_says_on_which_rung_it_stands(self, client: Client) -> None:
        plan: Any = client.plan(["/bin/true"])
        steps = {step["step"]: step for step in plan["steps"]}
        assert steps["landlock"] == {"step": "landlock", "rung": RUNG, "flags": []}

    def test_a_fifo_below_what_is_only_to_be_read_cannot_be_written(self, order: Order, tree: Path) -> None:
        """A mount keeps files from being changed, and lets a FIFO be written to all the same. Landlock's rules know no
        exception below what is writable, such as /tmp: so at a place of its own.
        """
        os.mkfifo(tree / "fifo")
        os.chown(tree / "fifo", OWNER, OWNER)
        reader = os.open(tree / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        result = order(shell("echo x > /data/fifo"), {"read": [{"path": str(tree), "target": "/data"}]})
        os.close(reader)
        assert (result.exit_code, b"Permission denied" in result.stderr) == (2, True)

    def test_a_fifo_below_what_is_to_be_written_can(self, order: Order, tree: Path) -> None:
        os.mkfifo(tree / "fifo")
        os.chown(tree / "fifo", OWNER, OWNER)
        reader = os.open(tree / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        result = order(shell(f"echo x > {tree}/fifo"), {"write": [str(tree)]})
        os.close(reader)
        assert result.exit_code == 0

    @pytest.mark.parametrize("how", ["read", "write"])
    def test_a_listener_of_the_callers_is_out_of_reach_where_the_kernel_can(
        self, order: Order, tree: Path, how: str
    ) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tree / "socket"))
            server.listen()
            os.chown(tree / "socket", OWNER, OWNER)
            connect = f"socket.socket(socket.AF_UNIX).connect('{tree}/socket')"
            program = f"import socket\ntry: {connect}\nexcept OSError: print('no')"
            result = order(python(program), {how: [str(tree)]})
        assert result.stdout == (b"no\n" if RUNG >= 9 else b"")

    def test_message_queues_can_be_made_opened_and_removed(self, client: Client) -> None:
        program = (
            "import ctypes, os\n"
            "libc = ctypes.CDLL(None)\n"
            "made = libc.mq_open(b'/own', os.O_RDWR | os.O_CREAT, 0o600, None)\n"
            "again = libc.mq_open(b'/own', os.O_RDWR)\n"
            "seen = os.close(os.open('/dev/mqueue/own', os.O_RDWR))\n"
            "print(made >= 0, again >= 0, libc.mq_unlink(b'/own'), os.listdir('/dev/mqueue'))"
        )
        assert client.run(python(program)).stdout == b"True True 0 []\n"

    def test_without_a_network_tcp_is_refused(self, order: Order) -> None:
        bind = "socket.socket().bind(('0.0.0.0', 0))"
        program = f"import socket\ntry: {bind}\nexcept OSError as error: print(error.errno)"
        result = order(python(program), network={"mode": "none"})
        assert result.stdout == (b"13\n" if RUNG >= 4 else b"")


def test_an_unknown_group_is_refused_with_those_there_are(order: Order) -> None:
    with pytest.raises(AsUserError, match="@vsc"):
        order(["/bin/true"], {"protect": ["@vsc"]})
