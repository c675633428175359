"""Installed, started by the first connection, hardened, restarted, upgraded, stopped, removed: in this order."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.errors import Refusal
from immured.client.sandbox import Sandbox
from immured.ledger.index import INDEX
from tests.ledger.witness.process import Process, immure, serving
from tests.units.system import BROKER, CGROUP, LAUNCHER, LISTENING, SOCKET, STATE, System
from tests.walls.unanswering import UnansweringMount


def test_the_units_are_what_systemd_understands(system: System) -> None:
    units = [f"/usr/local/lib/systemd/system/{name}" for name in (SOCKET, LAUNCHER, BROKER)]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "immured" in line] == []
    assert (system.active(SOCKET), system.active(LAUNCHER), system.active(BROKER)) == ("active", "inactive", "inactive")


def test_the_first_connection_starts_both_and_is_served(system: System) -> None:
    done = system.immure("run", "--", "/bin/echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr + system.journal()
    assert (system.active(LAUNCHER), system.active(BROKER)) == ("active", "active")
    assert system.shown(LAUNCHER, "StatusErrno") == "0"


def test_a_user_with_a_key_needs_nothing_else(system: System) -> None:
    subprocess.run(["useradd", "--create-home", "alice"], check=True)
    made = system.immure("key", "new", user="alice")
    assert made.returncode == 0, made.stderr
    alice = pwd.getpwnam("alice")
    public = Path("/home/alice/.config/immure/key.pub").read_text()
    Path("/tmp/alice.pub").write_text(public)
    added = system.immure("key", "add", "alice", "/tmp/alice.pub", "--uid", str(alice.pw_uid))
    assert added.returncode == 0, added.stderr
    line = "echo mine > /home/alice/out/file"
    done = system.immure("run", "--rw", "/home/alice/out", "--", "/bin/sh", "-c", line, user="alice")
    assert done.returncode == 0, done.stderr
    written = Path("/home/alice/out/file")
    assert (written.read_text(), written.stat().st_uid) == ("mine\n", alice.pw_uid)


def test_the_broker_is_a_user_of_its_own_with_no_right_left(system: System) -> None:
    status = system.status(system.pid(BROKER))
    assert int(status["Uid"].split()[0]) == pwd.getpwnam("immured").pw_uid
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_systemd_finds_little_to_expose_in_the_broker(system: System) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", BROKER], capture_output=True, text=True, check=True
    ).stdout
    figure = float(said.rsplit("Overall exposure level for immured.service:", 1)[1].split()[0])
    assert figure <= 3.0, said


def test_each_daemon_has_a_leaf_of_its_own_and_quotas_are_the_kernels(system: System) -> None:
    assert system.cgroup(system.pid(LAUNCHER)).endswith(f"{LAUNCHER}/supervisor")
    assert system.cgroup(system.pid(BROKER)).endswith(BROKER)
    with system.client() as client:
        result = client.run(["/bin/cat", "/proc/self/status"], limits={"memory": "64M", "pids": 8})
        assert result.enforcement["memory"].startswith("cgroup")
        assert result.enforcement["pids"].startswith("cgroup")
        greedy = client.run(["/usr/bin/python3", "-c", "x = bytearray(1 << 28)"], limits={"memory": "64M"})
        assert greedy.cause == "oom"
        assert client.run(["/bin/true"]).ok
    assert system.active(LAUNCHER) == "active"


def test_what_a_large_ledgers_index_takes_is_loaded_behind_the_walls_when_it_is_asked_for(system: System) -> None:
    def maps() -> str:
        return Path(f"/proc/{system.pid(BROKER)}/maps").read_text()

    with system.client() as client:
        few = [entry.seq for entry in client.ledger_query(types=["run.*"])]
        assert few
        assert "sqlite" not in maps()
        while sum(file.stat().st_size for file in (STATE / "ledger").glob("*.jsonl")) <= 9 << 20:
            for _ in range(10):
                client.run(["/bin/true", *["x" * 1_000] * 40])
        found: list[int] = []
        for _ in range(100):
            with contextlib.suppress(Refusal):  # it is being made
                found = [entry.seq for entry in client.ledger_query(types=["run.*"])]
                break
        assert found[: len(few)] == few
        assert len(found) > len(few) + 100
    assert (STATE / "ledger" / INDEX).stat().st_uid == pwd.getpwnam("immured").pw_uid
    assert "libsqlite3" in maps()


def test_a_payload_inherits_no_filter_of_the_units(system: System) -> None:
    with system.client() as client:
        lines = client.run(["/bin/cat", "/proc/self/status"]).stdout.decode().splitlines()
    (filters,) = [line.split()[1] for line in lines if line.startswith("Seccomp_filters:")]
    assert filters == "1"


@pytest.fixture
def living(system: System) -> Iterator[Sandbox]:
    """A sandbox with something in it that runs on."""
    with system.client() as client:
        sandbox = client.sandbox(name=f"living-{time.monotonic_ns()}", keep=True)
        assert sandbox.exec(["/bin/sh", "-c", "echo kept > /tmp/kept"]).ok
        yield sandbox
    with system.client() as client:
        client.open(sandbox.id).remove()


def serves(system: System, sandbox: Sandbox) -> bool:
    """Whether it is there with what was in it."""
    with system.client() as client:
        return client.open(sandbox.id).exec(["/bin/cat", "/tmp/kept"]).stdout == b"kept\n"


def test_a_restart_of_the_broker_keeps_sandboxes(system: System, living: Sandbox) -> None:
    before, launcher = system.pid(BROKER), system.pid(LAUNCHER)
    system.systemctl("restart", BROKER)
    assert system.pid(BROKER) != before
    assert system.pid(LAUNCHER) == launcher
    assert serves(system, living)
    assert [entry for entry in system.ledger("sandbox.adopted") if entry["data"]["sandbox"] == living.id]


def test_a_broker_that_is_killed_comes_back_to_its_sandboxes(system: System, living: Sandbox) -> None:
    before = system.pid(BROKER)
    os.kill(before, signal.SIGKILL)
    system.until(lambda: system.active(BROKER) == "active" and system.pid(BROKER) not in (0, before))
    assert serves(system, living)


def test_a_reload_is_the_launchers_own_successor(system: System, living: Sandbox) -> None:
    before, pid = Path(f"/proc/{system.pid(LAUNCHER)}/exe").stat().st_ino, system.pid(LAUNCHER)
    installed = Path("/usr/local/lib/immured/lib/python3.11/site-packages/immured/_native/immured-launcher")
    copy = installed.with_suffix(".new")
    copy.write_bytes(installed.read_bytes())
    copy.chmod(0o755)
    copy.rename(installed)
    system.systemctl("reload", LAUNCHER)
    system.until(lambda: Path(f"/proc/{pid}/exe").stat().st_ino != before)
    assert system.pid(LAUNCHER) == pid
    assert serves(system, living)
    assert system.immure("run", "--", "/bin/true").returncode == 0


def test_an_upgrade_is_an_install_over_it_and_keeps_sandboxes(system: System, living: Sandbox) -> None:
    launcher, broker = system.pid(LAUNCHER), system.pid(BROKER)
    system.make("install")
    assert system.pid(LAUNCHER) == launcher
    assert system.pid(BROKER) != broker
    assert serves(system, living)
    assert not Path("/usr/local/lib/immured.old").exists()


@pytest.fixture(scope="module")
def copied(system: System) -> Iterator[Path]:
    """The ledger is copied to a disk of its own, as docs/systemd.md says."""
    audit, config = Path("/srv/copies/audit"), STATE / "config.toml"
    unit, before = Path("/etc/systemd/system/immured.service.d/audit.conf"), config.read_text()
    audit.mkdir(mode=0o755, parents=True)
    owner = pwd.getpwnam("immured")
    options = f"size=64m,mode=0755,uid={owner.pw_uid},gid={owner.pw_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "audit", audit], check=True)
    unit.parent.mkdir(exist_ok=True)
    unit.write_text(f"[Unit]\nRequiresMountsFor={audit}\n[Service]\nReadWritePaths={audit.parent}\n")
    config.write_text(f'[audit]\nexports = ["{audit}"]\n[ledger]\ncheckpoint_s = 1\n')
    system.systemctl("daemon-reload")
    system.systemctl("restart", BROKER)
    try:
        yield audit
    finally:
        config.write_text(before)
        unit.unlink()
        system.systemctl("daemon-reload")
        system.systemctl("restart", BROKER)
        subprocess.run(["umount", "-l", audit], check=True)
        audit.rmdir()
        audit.parent.rmdir()


def test_the_ledger_is_copied_where_the_operator_lets_it(system: System, copied: Path) -> None:
    def is_whole() -> bool:
        found = list(copied.glob("*/current.jsonl"))
        return bool(found) and b"export.began" in found[0].read_bytes()

    system.until(is_whole)
    done = system.immure("preflight")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"pass  audit         {copied} takes what is written" in done.stdout


def test_a_copy_that_hangs_holds_no_restart_up(system: System, copied: Path, living: Sandbox) -> None:
    system.until(lambda: bool(list(copied.glob("*/checkpoints/*"))))
    with UnansweringMount(copied, uid=pwd.getpwnam("immured").pw_uid):
        done = system.immure("preflight")
        silent = re.search(r"has not answered for (\d+) s", done.stdout)
        assert silent is not None, done.stdout + done.stderr
        assert (done.returncode, int(silent[1]) >= 5) == (1, True), done.stdout + done.stderr
        system.systemctl("stop", BROKER)
        assert system.shown(BROKER, "Result") == "success", system.journal()  # by itself: nobody had to kill it
        system.systemctl("start", BROKER)
        assert system.immure("run", "--", "/bin/true").returncode == 0
        assert serves(system, living)


@pytest.fixture
def witness(system: System) -> Iterator[Process]:
    """The ledger is cosigned over the network, which the unit gives up for that as docs/systemd.md says."""
    place = Path(tempfile.mkdtemp(prefix="witness-"))
    place.chmod(0o755)
    unit, config = Path("/etc/systemd/system/immured.service.d/network.conf"), STATE / "config.toml"
    before = config.read_text()
    unit.parent.mkdir(exist_ok=True)
    families = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    unit.write_text(f"[Service]\nPrivateNetwork=no\n{families}\nIPAddressAllow=127.0.0.1\n")
    with serving(place / "state") as witness:
        said = f'{{ name = "w1", url = "{witness.url}", key = "{witness.key.encode()}" }}'
        config.write_text(f"[audit]\nwitnesses = [{said}]\n[ledger]\ncheckpoint_s = 1\n")
        immure("ledger", "witness", "trust", "--state", str(witness.state), str(STATE / "keys/ledger.vkey"))
        system.systemctl("daemon-reload")
        system.systemctl("restart", BROKER)
        try:
            yield witness
        finally:
            config.write_text(before)
            unit.unlink()
            system.systemctl("daemon-reload")
            system.systemctl("restart", BROKER)


def test_the_ledger_is_cosigned_where_the_operator_lets_it(system: System, witness: Process) -> None:
    system.until(lambda: any((STATE / "ledger/witnessed").glob("0*")))
    done = system.immure("preflight")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass  audit         the witness w1 cosigned" in done.stdout


def said_to_live(system: System) -> str:
    """When systemd last heard of the broker that it lives."""
    return system.shown(BROKER, "WatchdogTimestampMonotonic")


def test_a_broker_that_hangs_is_replaced(system: System, living: Sandbox) -> None:
    drop_in = Path(f"/run/systemd/system/{BROKER}.d/quick.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nWatchdogSec=10\n")
    system.systemctl("daemon-reload")
    try:
        system.systemctl("restart", BROKER)
        hung = system.pid(BROKER)
        for _ in range(3):
            said = said_to_live(system)
            system.until(lambda said=said: said_to_live(system) != said)  # type: ignore[misc]
        assert system.pid(BROKER) == hung  # it says in time that it lives
        os.kill(hung, signal.SIGSTOP)
        system.until(lambda: system.active(BROKER) == "active" and system.pid(BROKER) not in (0, hung))
    finally:
        drop_in.unlink()
        system.systemctl("daemon-reload")
        system.systemctl("restart", BROKER)
    assert serves(system, living)


def test_a_launcher_that_dies_takes_everything_along_and_the_next_connection_is_served(system: System) -> None:
    with system.client() as client:
        sandbox = client.sandbox(name="doomed", keep=True)
        assert sandbox.exec(["/bin/true"]).ok
    before = {unit: system.pid(unit) for unit in (LAUNCHER, BROKER)}
    os.kill(before[LAUNCHER], signal.SIGKILL)
    for unit, pid in before.items():
        system.until(
            lambda unit=unit, pid=pid: system.active(unit) == "active" and system.pid(unit) not in (0, pid)  # type: ignore[misc]
        )
    assert system.immure("run", "--", "/bin/true").returncode == 0, system.journal()
    assert [one for one in system.ledger("sandbox.lost", "sandbox.ended") if one["data"]["sandbox"] == sandbox.id]


def test_a_stop_leaves_nothing(system: System) -> None:
    with system.client() as client:
        client.sandbox(name="stopped", keep=True)
    system.systemctl("stop", SOCKET, LAUNCHER)
    system.until(lambda: system.active(BROKER) == "inactive")
    assert system.active(LAUNCHER) == "inactive", system.journal()
    assert not CGROUP.exists() or system.members() == []
    assert not LISTENING.exists()
    assert "immured" not in Path("/proc/self/mountinfo").read_text()
    system.systemctl("start", SOCKET)
    assert system.immure("run", "--", "/bin/true").returncode == 0


def test_what_is_uninstalled_is_gone_and_its_state_is_not_until_it_is_purged(system: System) -> None:
    system.make("uninstall")
    assert (STATE / "ledger/current.jsonl").exists()
    left = [path for path in Path("/usr/local").rglob("*immure*") if "site-packages" not in str(path)]
    assert left == []
    assert system.active(SOCKET) == "inactive"
    assert pwd.getpwnam("immured")
    system.make("install")
    assert system.immure("run", "--", "/bin/echo", "again").stdout == "again\n", system.journal()
    system.make("uninstall", "--purge")
    assert not STATE.exists()
    assert not Path("/run/immured").exists()
    with pytest.raises(KeyError):
        pwd.getpwnam("immured")
    system.make("install")
