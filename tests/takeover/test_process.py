"""The broker's process, taken over: what its ids, its filter and its domain leave of the host."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import immured
from immured.client.throwaway import ThrowawayDaemon
from immured.host import syscalls
from immured.host.ids import BROKER_IDS
from immured.service.state import init_state
from tests.launcher.harness import descendants, eventually, name_of
from tests.patience import PATIENCE_S, until
from tests.takeover import as_broker

ROOT = Path(__file__).parents[2]
WALLS = frozenset({errno.EPERM, errno.EACCES})
SIGNALS_SCOPED = 6  # the ABI of Landlock from which on


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@contextlib.contextmanager
def places() -> Iterator[tuple[Path, Path]]:
    """A state directory, and a directory that everybody may write."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        outside = Path(made, "outside")
        outside.mkdir()
        outside.chmod(0o777)
        (outside / "open").touch()
        (outside / "open").chmod(0o666)
        init_state(Path(made, "state"))
        yield Path(made, "state"), outside


def kin_named(daemon: ThrowawayDaemon, name: str) -> int:
    """One of its processes; cells that wait are made once it serves."""

    found: list[int] = []

    def named() -> list[int]:
        found[:] = [pid for pid in descendants(daemon.pid) if name_of(pid) == name]
        return found

    until(named)
    return found[0]


def attempt(*options: str) -> dict[str, int]:
    """Beside a daemon that nobody asks for anything, so that its launcher and its wardens stay the same."""
    name = secrets.token_hex(8)
    with (
        ThrowawayDaemon() as quiet,
        places() as (state, outside),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
    ):
        launcher, warden = kin_named(quiet, "immured-launch"), kin_named(quiet, "immured-warden")
        listener.bind("\0" + name)
        arguments = [str(state), str(launcher), str(warden), name, str(outside), *options]
        done = subprocess.run(
            [sys.executable, "-m", "tests.takeover.as_broker", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def as_root() -> dict[str, int]:
    """The control: the same attempts by the process as it was before the drop."""
    return attempt("--root")


@pytest.fixture(scope="module")
def got() -> dict[str, int]:
    """What came of everything, in a broker that was taken over."""
    return attempt()


def test_nothing_that_was_tried_worked(got: dict[str, int]) -> None:
    tried = {name: number for name, number in got.items() if name not in NEEDED}
    assert len(tried) > 80
    if syscalls.landlock_abi() < SIGNALS_SCOPED:
        tried.pop("abstract socket")
    if syscalls.landlock_abi() == 0:
        for name in OPEN_TO_ALL:
            tried.pop(name)
    assert {name: errno.errorcode.get(number, number) for name, number in tried.items() if number not in WALLS} == {}


NEEDED = frozenset({
    "append to the ledger", "a new checkpoint", "read its key", "replace the keyring", "what the kernel says of itself",
})  # fmt: skip
OPEN_TO_ALL = (
    *("write where all may", "read where all may", "cut a file short where all may", "list the host's cgroups"),
)


def test_what_the_broker_lives_by_still_works(got: dict[str, int]) -> None:
    assert {name: got[name] for name in NEEDED} == dict.fromkeys(NEEDED, 0)


@pytest.mark.parametrize(
    "name",
    [
        *("fork", "signal launcher", "signal warden", "pidfd of launcher", "memory of launcher", "descriptors of init"),
        *("read /etc/shadow", "read the admin's key", "list /root", "write where all may", "read where all may"),
        *("cut a file short where all may", "write the configuration", "write the state's directory", "socket pair"),
        *("own setuid bit by chmod", "own setuid bit by open", "own setgid directory", "a link", "a symlink", "a FIFO"),
        *("another's file", "set groups", "socket of family 1", "socket of family 2", "socket of family 16"),
        *("abstract socket", "user namespace", "mount namespace", "oom score of launcher"),
    ],
)
def test_before_the_drop_it_did_work(as_root: dict[str, int], name: str) -> None:
    assert as_root[name] == 0, errno.errorcode.get(as_root[name])


def test_the_filter_answers_before_the_kernel_looks(got: dict[str, int]) -> None:
    """Nothing is at that path, that descriptor, that address: a kernel that was asked would say so."""
    for name in ("exec", "exec by descriptor", "mount", "unmount", "join a namespace", "bpf",
                 "io_uring_setup", "keyctl", "process_vm_readv", "open_tree", "chroot", "seccomp"):  # fmt: skip
        assert got[name] == errno.EPERM, name


@pytest.fixture(scope="module")
def status(daemon: ThrowawayDaemon) -> dict[str, list[str]]:
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def test_a_daemon_is_nobody_that_has_an_account(status: dict[str, list[str]]) -> None:
    [uid] = set(status["Uid"])
    assert int(uid) in BROKER_IDS
    assert set(status["Gid"]) == {uid}
    assert status["Groups"] == []


@pytest.mark.parametrize("kind", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
def test_a_daemon_holds_no_capability(status: dict[str, list[str]], kind: str) -> None:
    assert int(status[kind][0], 16) == 0


def test_every_thread_of_a_daemon_is_behind_the_filter(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as client:
        assert client.run(["/bin/true"]).ok
    tasks = list(Path(f"/proc/{daemon.pid}/task").iterdir())
    looked_at = 0
    for task in tasks:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that closed something has done its work
            said = (task / "status").read_text()
            looked_at += 1
            assert "\nSeccomp:\t2\n" in said
            assert "\nNoNewPrivs:\t1\n" in said
    assert looked_at > 1


def test_keys_in_memory_are_not_an_equal_uids_to_read(daemon: ThrowawayDaemon, status: dict[str, list[str]]) -> None:
    uid = int(status["Uid"][0])
    program = (
        "import os, sys; os.setresgid(*[int(sys.argv[2])] * 3); os.setresuid(*[int(sys.argv[2])] * 3)\n"
        "for name in ('mem', 'environ', 'maps', 'fd/0', 'root/x'):\n"
        "    try: os.close(os.open(f'/proc/{sys.argv[1]}/{name}', os.O_RDONLY)); print('opened', name)\n"
        "    except PermissionError: pass\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, str(daemon.pid), str(uid)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert done.stdout == ""


def test_a_daemons_own_limits_are_what_they_should_be(daemon: ThrowawayDaemon) -> None:
    said = Path(f"/proc/{daemon.pid}/limits").read_text()
    assert "Max core file size        1                    1" in said
    assert "Max processes             4096                 4096" in said


OPEN_AS_ROOT = (
    r"/dev/null",
    r".*\.log",  # stdout and stderr, as whoever started it gave them
    r"socket:.*|pipe:.*|anon_inode:\[(eventpoll|pidfd|eventfd)\]",
    r"STATE",  # by O_PATH alone
    r"STATE/lock",
    r"/run/immured[^/]*/(slots-\d|brokers)\.lock",
    r"STATE/ledger",  # by O_PATH alone
    r"STATE/ledger/(lock|current\.jsonl)",
    r"STATE/ledger/tree/\d\d",  # hashes, which it writes
    r"/proc/PID",  # by O_PATH alone
)
O_PATH = 0o10000000


def test_nothing_that_root_opened_leads_further(daemon: ThrowawayDaemon) -> None:
    """A descriptor keeps the rights that it was opened with: so there is none to a directory, a cgroup, a device."""
    with daemon.client() as client:
        assert client.run(["/bin/true"]).ok
    wanted = [
        one.replace("STATE", re.escape(str(daemon.state))).replace("PID", str(daemon.pid)) for one in OPEN_AS_ROOT
    ]

    def leading_further() -> list[str]:
        """What stays open is what root opened: what serving opens for a moment is nobody's before."""
        opened = held_open(daemon.pid)
        directories = [name for name in opened if name.startswith("/") and Path(name).is_dir()]
        return [name for name in opened if not any(re.fullmatch(one, name) for one in wanted)] + [
            name for name in directories if not opened[name] & O_PATH
        ]

    last: list[str] = []

    def leads_nowhere() -> bool:
        last[:] = leading_further()
        return not last

    eventually(leads_nowhere, PATIENCE_S)
    assert last == []


def held_open(pid: int) -> dict[str, int]:
    """By name, with the flags; both of the same file, though it goes on meanwhile."""
    opened = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            name = os.readlink(entry)
            info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
            if os.readlink(entry) == name:
                opened[name] = int(re.search(r"flags:\t(\d+)", info)[1], 8)  # type: ignore[index]
    return opened


def test_the_package_may_stand_where_only_root_can_read(tmp_path: Path) -> None:
    """Everything that serving needs was loaded while the process was root."""
    tmp_path.chmod(0o700)
    shutil.copytree(Path(immured.__file__).parent, tmp_path / "immured", symlinks=False)
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        state = Path(made, "state")
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        subprocess.run([sys.executable, "-m", "immured.cli", "init", "--state", state], check=True, timeout=PATIENCE_S,
                       capture_output=True)  # fmt: skip
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            daemon = ThrowawayDaemon(state=state).start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        try:
            assert str(tmp_path) in Path(f"/proc/{daemon.pid}/maps").read_text()
            with daemon.client() as client:
                assert client.run(["/bin/sh", "-c", "echo out; echo x > /tmp/o"], collect=["/tmp/o"]).ok
                assert client.plan(["/bin/true"])
                assert client.status()["live"] == 0
                with pytest.raises(immured.ImmuredError):
                    client.run(["/bin/true"], manifest={"schema": 1, "nmae": "x"})
                with pytest.raises(immured.ImmuredError):
                    client.kill("nobody")
        finally:
            assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()


def test_the_attempts_know_this_machine() -> None:
    assert set(as_broker.NUMBERS) >= {"execve", "clone", "ptrace"}
