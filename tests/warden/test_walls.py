"""A payload without any filter: what stands is namespaces, mounts, identity and capabilities alone."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation.abi import Op
from immured.isolation.plan import Step
from tests.warden.cell import Cell, Run, Wish, file, python

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A program that tries each way out."""
    program = tmp_path_factory.mktemp("native") / "hostile"
    subprocess.run(["gcc", "-O1", "-static", "-Wall", "-Wextra", HERE / "hostile.c", "-o", program], check=True)
    return program.read_bytes()


def test_no_way_out_is_open_without_a_filter(cell: Cell, hostile: bytes) -> None:
    wish = Wish(["/tmp/hostile"], loopback=True, mounts=[file("/tmp/hostile", hostile, 0o755)])
    run = cell.attempt(wish, in_memfd=True)
    assert isinstance(run, Run)
    tries = {name: result for name, _, result in (line.rpartition(" ") for line in run.succeeded().splitlines())}
    assert len(tries) > 70
    assert [name for name, result in tries.items() if result == "ok"] == []


def look(cell: Cell, command: str, **wishes: object) -> str:
    return cell.run(Wish(["sh", "-c", command], **wishes)).succeeded()  # type: ignore[arg-type]


def test_it_sees_its_own_processes_and_pid_1(cell: Cell) -> None:
    assert look(cell, "echo /proc/[0-9]*").split() == ["/proc/1", "/proc/2"]


def test_pid_1_does_not_say_how_the_daemon_was_started(cell: Cell) -> None:
    assert look(cell, "tr -d '\\0' < /proc/1/cmdline") == ""


def test_lo_is_the_only_interface(cell: Cell) -> None:
    assert [line.split(":")[0].strip() for line in look(cell, "tail -n +3 /proc/net/dev").splitlines()] == ["lo"]


def test_lo_is_down_unless_the_plan_raises_it(cell: Cell) -> None:
    program = (
        "import fcntl, socket, struct\n"
        "flags = fcntl.ioctl(socket.socket(), 0x8913, struct.pack('16sH22x', b'lo', 0))\n"  # SIOCGIFFLAGS
        "print(struct.unpack_from('H', flags, 16)[0] & 1)"
    )
    assert cell.run(Wish(python(program))).succeeded() == "0\n"


def test_a_server_on_the_loopback_is_reached(cell: Cell) -> None:
    program = """
import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    server = socket.create_server((address, 0), family=family)
    client = socket.create_connection(server.getsockname()[:2])
    server.accept()[0].sendall(b"hello")
    assert client.recv(5) == b"hello"
"""
    cell.run(Wish(python(program), loopback=True)).succeeded()


@pytest.mark.parametrize(
    "path",
    [
        "/root", "/home", "/var/lib", "/var/log", "/boot", "/sys", "/opt", "/srv", "/mnt", "/media", "/work",
        "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh", "/etc/ssl/private", "/etc/machine-id",
        "/etc/fstab", "/run/systemd", "/run/docker.sock", "/dev/sda", "/dev/vda", "/dev/mem", "/dev/kvm", "/dev/fuse",
        "/dev/net/tun", "/proc/kcore/x",
    ],
)  # fmt: skip
def test_what_the_view_does_not_hold_is_not_there(cell: Cell, path: str) -> None:
    assert look(cell, f"test -e {path} || echo absent") == "absent\n"


def test_the_hosts_tmp_is_not_the_cells(cell: Cell, tmp_path: Path) -> None:
    assert look(cell, "ls -A /tmp /var/tmp/ /run /dev/shm").split() == ["/dev/shm:", "/run:", "/tmp:", "/var/tmp/:"]


def test_what_proc_tells_of_the_machine_is_masked(cell: Cell, cells: Callable[..., Cell]) -> None:
    files = look(cell, "cat /proc/keys /proc/timer_list /proc/interrupts /proc/kcore; true")
    assert files + look(cells(), "find /proc/acpi /proc/scsi -mindepth 1; true") == ""


def test_no_mount_but_the_private_ones_can_be_written(cell: Cell) -> None:
    mounts = [line.split() for line in look(cell, "cat /proc/self/mounts").splitlines()]
    writable = {place for _, place, _, options, *_ in mounts if "rw" in options.split(",")}
    assert writable == {"/tmp", "/dev/shm", "/dev/pts", "/dev/mqueue", "/proc"}


def test_every_mount_is_nosuid(cell: Cell) -> None:
    mounts = [line.split() for line in look(cell, "cat /proc/self/mounts").splitlines()]
    assert [place for _, place, _, options, *_ in mounts if "nosuid" not in options.split(",")] == []


def test_every_mount_but_those_of_dev_is_nodev(cell: Cell) -> None:
    mounts = [line.split() for line in look(cell, "cat /proc/self/mounts").splitlines()]
    assert {place for _, place, _, options, *_ in mounts if "nodev" not in options.split(",")} <= {"/dev", "/dev/pts"}


def test_a_setuid_program_gains_nothing(cell: Cell) -> None:
    """su and its like are in the view; they run as the payload."""
    assert look(cell, "find /usr/bin -perm -4000 -name su -exec grep -c . {} + > /dev/null; id -u") == "1000\n"


def test_only_the_three_descriptors_are_open(cell: Cell) -> None:
    program = "import os\nprint(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])"
    assert cell.run(Wish(python(program))).succeeded() == "[0, 1, 2]\n"


def test_no_signal_is_blocked_or_ignored(cell: Cell) -> None:
    lines = look(cell, "grep -E '^Sig(Blk|Ign)' /proc/self/status").split()
    assert [int(word, 16) for word in lines[1::2]] == [0, 0]


def test_the_oom_killer_takes_it_before_the_hosts(cell: Cell) -> None:
    assert look(cell, "cat /proc/self/oom_score_adj") == "500\n"


def test_names_of_the_host_do_not_show(cell: Cell) -> None:
    assert look(cell, "uname -n; cat /proc/sys/kernel/domainname /etc/hostname") == "sandbox\n(none)\nsandbox\n"


def test_nobody_but_the_sandbox_is_known(cell: Cell) -> None:
    known = look(cell, "cut -d: -f1 /etc/passwd; id -un; id -G").split()
    assert known == ["root", "sandbox", "nobody", "sandbox", "1000"]


def test_terminals_are_its_own_and_bounded(cell: Cell) -> None:
    program = """
import os
made = []
try:
    while True:
        made.append(os.openpty())
except OSError:
    print(len(made), os.listdir("/dev/pts").__len__())
"""
    assert cell.run(Wish(python(program))).succeeded() == "64 65\n"


def test_a_session_keyring_is_new_in_every_run(cells: Callable[..., Cell]) -> None:
    program = "import ctypes\nprint(ctypes.CDLL(None).syscall(250, 0, -3, 0))"
    seen = {cells().run(Wish(python(program))).succeeded() for _ in range(2)}
    ours = subprocess.run(python(program), capture_output=True, text=True, check=True).stdout
    assert len(seen | {ours}) == 3


def test_shared_memory_is_bounded(cell: Cell) -> None:
    program = "import ctypes\nlibc = ctypes.CDLL(None)\nprint(libc.shmget(0, ctypes.c_size_t(1 << 30), 0o1600) >= 0)"
    assert cell.run(Wish(python(program))).succeeded() == "False\n"


def test_a_filter_holds(cell: Cell) -> None:
    """Everything passes but uname, which gets EPERM."""
    number = 63 if os.uname().machine == "x86_64" else 160
    program = b"".join(
        struct.pack("=HBBI", *one)
        for one in [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    )
    run = cell.run(Wish(["uname"], program=program))
    assert run.outcome.si_status != 0


def test_nothing_of_the_run_shows_in_the_hosts_mounts(cell: Cell, tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    cell.run(Wish(["true"], mounts=[Step(Op.TMPFS, (4096, 10, 0o755, 0), (b"/srv/new",))]))
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A directory that the host's owner would not share."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    return secret


def test_a_path_of_the_host_is_not_reachable_through_proc(cell: Cell, planted: Path) -> None:
    command = f"for one in /proc/*/root /proc/*/cwd; do cat $one{planted} 2>/dev/null; done; true"
    assert look(cell, command) == ""
