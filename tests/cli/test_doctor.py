"""The examination of a host."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from immured.host import probes_cgroups, probes_kernel, probes_resources, probes_storage
from immured.host.check import Check, Status, in_child
from immured.host.doctor import Report, examine
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


def test_ids_that_somebody_else_claims_are_named(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("# comment\nalice:100000:65536\nbob:1879048192:65536\n")
    claims = list(probes_resources.subordinate(tmp_path / "subuid"))
    check = probes_resources.ids(claims)
    assert check.status is Status.WARN
    assert "bob" in check.found
    assert "alice" not in check.found


def test_the_block_next_to_a_claim_is_free() -> None:
    first = probes_resources.SLOT_BASE
    assert probes_resources.ids([probes_resources.Claim(first - 65536, first, "neighbour")]).status is Status.OK


def test_a_missing_subuid_file_claims_nothing(tmp_path: Path) -> None:
    assert list(probes_resources.subordinate(tmp_path / "subuid")) == []


def test_the_file_system_of_a_path_is_told_from_mountinfo() -> None:
    assert probes_storage.file_system(Path("/proc"), Path("/proc/self/mountinfo").read_text()) == "proc"


def test_a_state_directory_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert probes_storage.existing(tmp_path / "not" / "yet") == tmp_path


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
    return examine(tmp_path_factory.mktemp("state"))


@pytest.mark.needs_root
def test_the_daemon_can_run_here(report: Report) -> None:
    assert report.able, [check for check in report.checks if check.status is Status.FAIL]


def test_every_weakness_has_its_remedy(report: Report) -> None:
    assert all(check.remedy for check in report.checks if check.status in (Status.WARN, Status.FAIL))


@pytest.mark.needs_root
def test_without_root_only_root_itself_is_missed(report: Report) -> None:
    """What a probe could not try, it draws no conclusion from."""

    def examined() -> list[str]:
        return [check.name for check in examine(Path("/nowhere")).checks if check.status is Status.FAIL]

    assert as_user(pwd.getpwnam("nobody").pw_uid, examined) == ["host.root"]


@pytest.mark.needs_root
def test_a_chroot_is_named_as_what_forbids_user_namespaces(tmp_path: Path) -> None:
    program = (
        "import os, sys; from immured.host import probes_kernel, syscalls; os.chroot(sys.argv[1]); os.chdir('/');"
        "print(probes_kernel.namespace('user', syscalls.CLONE_NEWUSER).remedy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("in a chroot the kernel makes none: enter that root by pivot_root")


def test_every_name_stands_once(report: Report) -> None:
    names = [check.name for check in report.checks]
    assert len(names) == len(set(names))


def test_no_cgroup_is_left(report: Report) -> None:
    found = probes_cgroups.mounts(Path("/proc/self/mountinfo").read_text())
    assert found.unified is not None
    assert not (found.unified / f"immured-doctor-{os.getpid()}").exists()


def test_the_report_is_json(report: Report) -> None:
    assert json.loads(json.dumps(report.as_map()))["able"] is report.able


def test_the_report_holds_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t-of-the-environment")
    assert "s3cr3t" not in json.dumps(examine(tmp_path).as_map())
