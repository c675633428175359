"""The examination of a host."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.host import probes_cgroups, probes_ids, probes_kernel, probes_ladder, probes_resources, probes_storage
from immured.host.check import Check, Status, in_child
from immured.host.doctor import Daemon, Report, examine
from immured.host.ids import BROKER_IDS, SLOT_SIZE, preferred_broker_id
from immured.host.landlock import LADDER
from immured.service.broker_user import ID_LOCKS, User, lock_id
from tests.patience import PATIENCE_S
from tests.walls.acting import as_user

UNIFIED = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "38 31 0:35 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def test_a_unified_hierarchy_is_found() -> None:
    found = probes_cgroups.mounts(UNIFIED)
    assert (found.unified, found.hybrid) == (Path("/sys/fs/cgroup"), False)


def test_a_hybrid_hierarchy_is_found_with_what_v1_holds() -> None:
    found = probes_cgroups.mounts(HYBRID)
    assert found.unified == Path("/sys/fs/cgroup/unified")
    assert found.held_by_v1 == {"memory", "io"}
    assert found.hybrid


def test_a_host_without_cgroup_v2_cannot_run_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("22 27 0:21 / /proc rw - proc proc rw\n")
    (check,) = probes_cgroups.probe(tmp_path)
    assert check.status is Status.FAIL


def test_a_controller_that_v1_holds_is_weaker_and_says_by_what() -> None:
    check = probes_cgroups.controller("memory", frozenset(), probes_cgroups.mounts(HYBRID))
    assert check.status is Status.WARN
    assert "RLIMIT_AS" in check.found
    assert check.remedy


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("6.1.0-18-amd64", Status.OK),
        ("6.18.44", Status.OK),
        ("10.0", Status.OK),
        ("6.0.19", Status.FAIL),
        ("5.15.0-1055-aws", Status.FAIL),
        ("nonsense", Status.FAIL),
    ],
)
def test_the_kernels_floor(release: str, status: Status) -> None:
    assert probes_kernel.version(release).status is status


def test_an_architecture_without_a_filter_cannot_run_the_daemon() -> None:
    assert probes_kernel.architecture("riscv64").status is Status.FAIL


BLOCK = range(0x30000000, 0x30000000 + 4 * SLOT_SIZE)


def test_ids_that_somebody_else_claims_are_named(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("# comment\nalice:100000:65536\nbob:1879048192:65536\n")
    claims = list(probes_ids.subordinate(tmp_path / "subuid"))
    check = probes_ids.ids(claims, [probes_ids.OUR_BLOCKS])
    assert check.status is Status.WARN
    assert "bob" in check.found
    assert "alice" not in check.found
    assert "slot_base" in check.remedy


def test_the_block_next_to_a_claim_is_free() -> None:
    first = BLOCK.start
    claims = [probes_ids.Claim(first - 65536, first, "below"), probes_ids.Claim(BLOCK.stop, BLOCK.stop + 1, "above")]
    assert probes_ids.ids(claims, [BLOCK]).status is Status.OK


@pytest.mark.parametrize(
    ("first", "owner"),
    [
        (1000 - SLOT_SIZE + 65536, None),
        (60000, "systemd-homed"),
        (61184, "DynamicUser"),
        (524288, "nspawn"),
        (0x6FFF0000, "nspawn"),
        (0xFFFE0000, "nobody to every"),
    ],
)
def test_a_configured_block_among_systemds_ids_is_named(first: int, owner: str | None) -> None:
    check = probes_ids.ids(probes_ids.SYSTEMD, [range(first, first + SLOT_SIZE * 2)])
    assert check.status is Status.WARN
    assert owner is None or owner in check.found


def test_our_own_blocks_and_brokers_are_nobody_elses() -> None:
    assert probes_ids.ids(probes_ids.SYSTEMD, [probes_ids.OUR_BLOCKS, BROKER_IDS]).status is Status.OK


def test_an_account_within_the_block_is_named() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    assert probes_ids.named([range(nobody, nobody + 1)])[0].owner == "user nobody"
    assert probes_ids.named([BLOCK]) == []


def test_a_directory_of_accounts_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_ids, "_NSS_S", 0.2)
    assert probes_ids.bounded(lambda: [os.read(os.pipe()[0], 1)]) is None  # type: ignore[list-item]
    assert probes_ids.bounded(lambda: [probes_ids.Claim(1, 2, "x")]) == [probes_ids.Claim(1, 2, "x")]


def test_then_only_the_files_are_read_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_ids, "bounded", lambda work: None)
    (tmp_path / "passwd").write_text(f"eve:x:{BLOCK.start + 5}:100:::\n")
    checks = {check.name: check for check in probes_ids.probe(tmp_path, BLOCK, None, etc=tmp_path)}
    assert "user eve" in checks["host.ids"].found
    assert checks["host.accounts"].status is Status.WARN


def test_ids_that_a_container_has_not_are_named(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "uid_map").write_text("         0     100000      65536\n")
    check = probes_ids.map_holds(tmp_path, [BLOCK])
    assert check.status is Status.FAIL
    assert check.remedy


@pytest.mark.needs_root
def test_the_block_of_a_daemon_that_runs_is_known_to_others() -> None:
    with ThrowawayDaemon() as daemon:
        claims = [claim for claim in probes_ids.launchers() if str(daemon.socket) in claim.owner]
        assert len(claims) == 1
        assert claims[0].first in probes_ids.OUR_BLOCKS
        beside = probes_ids.probe(Path("/nowhere"), range(claims[0].first, claims[0].first + SLOT_SIZE), None)
        assert str(daemon.socket) in next(beside).found
        itself = probes_ids.probe(daemon.state, range(claims[0].first, claims[0].first + SLOT_SIZE), None)
        assert str(daemon.socket) not in next(itself).found


@pytest.mark.needs_root
def test_whom_the_broker_is_is_said_before_and_while_it_runs(tmp_path: Path) -> None:
    uid = BROKER_IDS[3]
    said = probes_ids.broker(tmp_path, uid, "", "").found
    assert f"becomes uid {uid}" in said
    assert said.endswith(f"for {tmp_path}")  # every directory's is another
    with ThrowawayDaemon() as daemon:
        told = json.loads(ThrowawayDaemon.immure("doctor", "--json", "--state", str(daemon.state)).stdout)
        found = {check["name"]: check for check in told["checks"]}["broker.user"]
        assert found["stands"] is True
        assert found["facts"]["pid"] == daemon.pid
        assert found["facts"]["running_uid"] == found["facts"]["uid"]
        assert found["facts"]["uid"] in BROKER_IDS


@pytest.mark.needs_root
def test_an_id_that_another_daemon_has_is_not_said_to_be_this_ones(tmp_path: Path) -> None:
    uid = preferred_broker_id(bytes(tmp_path))
    (tmp_path / "config.toml").write_text(f"[broker]\nuser = '{uid}'\n")

    def told() -> object:
        done = ThrowawayDaemon.immure("doctor", "--json", "--state", str(tmp_path))
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}["broker.user"]["facts"]["uid"]

    locked, fd = lock_id(ID_LOCKS, User(uid, uid))
    assert fd is not None
    assert locked.uid == uid
    assert told() == BROKER_IDS[BROKER_IDS.index(uid) + 1]
    os.close(fd)
    assert told() == uid


def test_a_broker_that_can_become_nobody_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[broker]\nuser = 'root'\n")
    done = ThrowawayDaemon.immure("doctor", "--json", "--state", str(tmp_path), check=False)
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}["broker.user"]
    assert (done.returncode, found["status"]) == (1, "fail")
    assert "[broker] user" in found["remedy"]


def test_a_broker_with_rights_is_not_called_confined(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "77").mkdir(parents=True)
    (proc / "77" / "status").write_text("Uid:\t0\t0\t0\t0\nCapPrm:\tff\nCapEff:\tff\nCapBnd:\tff\nSeccomp:\t0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes_ids, "_daemon", lambda state: 77)
        check = probes_ids.broker(tmp_path, 5, "", "", proc)
    assert (check.status, check.stands) == (Status.WARN, False)


@pytest.mark.parametrize("abi", [0, 1, 6, len(LADDER)])
def test_every_rung_of_landlock_stands_or_says_what_does_instead(abi: int) -> None:
    rungs = list(probes_ladder.landlock_rungs(abi))
    assert [rung.stands for rung in rungs] == [rung.abi <= abi for rung in LADDER]
    assert all("instead: " in rung.found for rung in rungs if not rung.stands)


def test_the_rungs_of_an_older_kernel_are_named() -> None:
    assert probes_ladder.wait_killable(False).stands is None  # the report makes a no of the warning
    assert probes_ladder.sync_wake_up(22).stands is False
    assert probes_ladder.core_pattern("|/usr/lib/systemd/systemd-coredump %P").stands is False
    assert probes_ladder.core_pattern("core").stands is True


def test_a_host_that_is_open_elsewhere_says_which_wall_of_ours_stands(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/dmesg_restrict").write_text("0\n")
    found = {check.name: check for check in probes_ladder.settings(tmp_path)}
    assert found["sysctl.dmesg"].stands is False
    assert "instead: syslog is refused inside" in found["sysctl.dmesg"].found
    assert "not in this kernel" in found["sysctl.kptr"].found


def test_a_missing_subuid_file_claims_nothing(tmp_path: Path) -> None:
    assert list(probes_ids.subordinate(tmp_path / "subuid")) == []


def test_the_file_system_of_a_path_is_told_from_mountinfo() -> None:
    assert probes_storage.file_system(Path("/proc"), Path("/proc/self/mountinfo").read_text()) == "proc"


def test_a_state_directory_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert probes_storage.existing(tmp_path / "not" / "yet") == tmp_path


@pytest.mark.parametrize(
    ("soft", "hard", "status"),
    [
        (16384, 0, Status.OK),
        (0, 0, Status.OK),
        (4096, 0, Status.WARN),
        (0, 4096, Status.WARN),
        (65536, 8192, Status.WARN),
    ],
)
def test_pipes_that_would_be_too_few_for_the_broker_are_named(
    tmp_path: Path, soft: int, hard: int, status: Status
) -> None:
    (tmp_path / "sys/fs").mkdir(parents=True)
    (tmp_path / "sys/fs/pipe-user-pages-soft").write_text(f"{soft}\n")
    (tmp_path / "sys/fs/pipe-user-pages-hard").write_text(f"{hard}\n")
    check = probes_resources.pipes(tmp_path)
    assert check.status is status
    assert ("refused" in check.found) == (hard != 0)


def test_a_report_with_a_failure_is_not_able() -> None:
    assert not Report((Check("a", Status.OK, ""), Check("b", Status.FAIL, "", "mend it"))).able


def test_a_report_with_warnings_is_able() -> None:
    assert Report((Check("a", Status.WARN, "", "mend it"), Check("b", Status.INFO, ""))).able


def test_an_attempt_that_fails_gives_its_errno() -> None:
    def attempt() -> None:
        raise PermissionError(1, "no")

    assert in_child(attempt) == 1


def test_an_attempt_that_does_not_come_back_is_ended() -> None:
    def attempt() -> None:
        os.read(os.pipe()[0], 1)

    assert in_child(attempt, timeout=0.2) == 110


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """This host's."""
    return examine(Daemon(tmp_path_factory.mktemp("state"), uid=BROKER_IDS[0]))


@pytest.mark.needs_root
def test_the_daemon_can_run_here(report: Report) -> None:
    assert report.able, [check for check in report.checks if check.status is Status.FAIL]


def test_every_weakness_has_its_remedy(report: Report) -> None:
    assert all(check.remedy for check in report.checks if check.status in (Status.WARN, Status.FAIL))


@pytest.mark.needs_root
def test_without_root_only_root_itself_is_missed(report: Report) -> None:
    """What a probe could not try, it draws no conclusion from."""

    def examined() -> list[str]:
        return [check.name for check in examine(Daemon(Path("/nowhere"))).checks if check.status is Status.FAIL]

    assert as_user(pwd.getpwnam("nobody").pw_uid, examined) == ["host.root"]


@pytest.mark.needs_root
def test_a_chroot_is_named_as_what_forbids_user_namespaces(tmp_path: Path) -> None:
    program = (
        "import os, sys; from immured.host import probes_kernel, syscalls; os.chroot(sys.argv[1]); os.chdir('/');"
        "print(probes_kernel.namespace('user', syscalls.CLONE_NEWUSER).remedy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.startswith("in a chroot the kernel makes none: enter that root by pivot_root")


def test_every_name_stands_once(report: Report) -> None:
    names = [check.name for check in report.checks]
    assert len(names) == len(set(names))


def test_no_cgroup_is_left(report: Report) -> None:
    found = probes_cgroups.mounts(Path("/proc/self/mountinfo").read_text())
    assert found.unified is not None
    assert not (found.unified / f"immured-doctor-{os.getpid()}").exists()


def test_the_ladder_has_every_wall_with_yes_or_no(report: Report) -> None:
    told = report.as_map()["ladder"]
    assert isinstance(told, dict)
    for name in (
        *("namespace.time", "cgroup.memory", "kernel.seccomp", "kernel.seccomp.wait-killable", "landlock.1"),
        *("kernel.seccomp.sync-wake-up", "kernel.openat2", "kernel.pidfd", "kernel.memfd", "storage.verity"),
        *("sysctl.dmesg", "sysctl.core-pattern", "host.ids", "broker.user"),
    ):
        assert isinstance(told[name], bool), name


@pytest.mark.needs_root
def test_the_ladder_holds_what_only_root_can_try(report: Report) -> None:
    names = {check.name for check in report.ladder}
    assert {"cgroup.kill", "cgroup.birth", "storage.idmap.state", "storage.idmap.home", "storage.idmap.tmp"} <= names
    assert "kernel.mount-setattr" in names


def test_the_report_is_json(report: Report) -> None:
    assert json.loads(json.dumps(report.as_map()))["able"] is report.able


def test_the_report_holds_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t-of-the-environment")
    assert "s3cr3t" not in json.dumps(examine(Daemon(tmp_path)).as_map())
