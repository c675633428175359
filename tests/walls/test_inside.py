"""From inside: no host process, file, interface, capability, setuid gain or foreign descriptor is reachable."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

Facts = dict[str, Any]


def test_the_payload_is_nobody_special(inside: Facts) -> None:
    assert inside["uid"] == [1000, 1000, 1000]
    assert inside["gid"] == [1000, 1000, 1000]
    assert set(inside["groups"]) <= {1000}


@pytest.mark.parametrize("kind", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
def test_no_capability_is_held_or_reachable(inside: Facts, kind: str) -> None:
    assert int(inside["status"][kind], 16) == 0


def test_privileges_cannot_grow(inside: Facts) -> None:
    assert inside["status"]["NoNewPrivs"] == "1"


def test_a_filter_stands(inside: Facts) -> None:
    assert inside["status"]["Seccomp"] == "2"


def test_no_host_process_is_visible(inside: Facts) -> None:
    assert set(inside["processes"]) == {1, inside["pid"]}


def test_it_has_a_session_of_its_own(inside: Facts) -> None:
    assert inside["session"] == inside["pid"]


def test_only_the_three_descriptors_are_open(inside: Facts) -> None:
    assert inside["fds"] == [0, 1, 2]


def test_lo_is_the_only_interface(inside: Facts) -> None:
    assert inside["interfaces"] == ["lo"]


def test_the_loopback_works(inside: Facts) -> None:
    assert inside["loopback"] == "ok"


def test_every_namespace_is_its_own(inside: Facts) -> None:
    shared = [name for name, link in inside["namespaces"].items() if link == os.readlink(f"/proc/self/ns/{name}")]
    assert shared == []


def test_host_ids_come_from_the_block_and_never_hold_root(inside: Facts) -> None:
    inner, outer, count = (int(word) for word in inside["uid_map"][:3])
    assert len(inside["uid_map"]) == 3
    assert inner == 0
    assert outer >= 0x70000000
    assert outer + count <= 0x7FFFFFFF


def test_its_own_cgroup_is_the_root_that_it_sees(inside: Facts) -> None:
    assert [line for line in inside["cgroup"] if line.startswith("0::")] in (["0::/"], [])


def test_the_hostname_is_not_the_hosts(inside: Facts) -> None:
    assert inside["hostname"] != socket.gethostname()


@pytest.mark.parametrize("flag", ["nosuid"])
def test_every_mount_is_nosuid(inside: Facts, flag: str) -> None:
    without = [(mount[1], mount[3]) for mount in inside["mounts"] if flag not in mount[3].split(",")]
    assert without == []


def test_device_nodes_work_only_below_dev(inside: Facts) -> None:
    without = [mount[1] for mount in inside["mounts"] if "nodev" not in mount[3].split(",")]
    assert [path for path in without if not path.startswith("/dev")] == []


def test_nothing_sensitive_of_the_host_is_in_view(inside: Facts) -> None:
    assert [path for path, there in inside["paths"].items() if there] == []


def test_the_hosts_environment_stays_outside(inside: Facts) -> None:
    assert set(inside["environment"]) <= {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TMPDIR",
        "TERM",
        "SHELL",
        "PWD",
        "LC_CTYPE",
    }


ALLOWED = ("write /tmp", "write /dev/shm")
WALLS = {
    "write /usr": {"EROFS", "EACCES"},
    "write /": {"EROFS", "EACCES"},
    "write /etc": {"EROFS", "EACCES"},
    "write /dev": {"EROFS", "EACCES"},
    "write /proc/sys": {"EROFS", "EACCES"},
    "write sysrq": {"EROFS", "EACCES", "ENOENT"},
    "read /proc/kcore": {"empty", "EACCES", "EPERM"},
    "kill 1": {"EPERM", "ok"},  # PID 1 of a namespace takes no signal from inside it; it still stands, see below
    "kill all": {"ok"},  # its own processes are all that there are
    "netlink audit": {"EPERM", "EPROTONOSUPPORT"},
    "clone3": {"ENOSYS"},
    "connect outside": {"ENETUNREACH", "EHOSTUNREACH"},
    "read /proc/1/root": {"EACCES", "EPERM"},
    "read /proc/1/environ": {"EACCES", "EPERM"},
    "read /proc/1/mem": {"EACCES", "EPERM"},
    "oom_score_adj": {"EACCES", "EPERM", "EROFS"},
    "setpriority": {"EACCES", "EPERM"},
    "TIOCSTI": {"EPERM"},
}


def test_what_should_work_works(inside: Facts) -> None:
    assert {name: inside["attempts"][name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "ok")


def test_every_other_attempt_meets_a_wall(inside: Facts) -> None:
    through = {
        name: got
        for name, got in inside["attempts"].items()
        if name not in ALLOWED and got not in WALLS.get(name, {"EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT"})
    }
    assert through == {}


def test_no_call_sets_a_setuid_or_setgid_bit(inside: Facts) -> None:
    assert {name: got for name, got in inside["setid"].items() if got not in ("EPERM", "ENOSYS")} == {}


def test_a_hosts_abstract_socket_is_out_of_reach(inside: Facts) -> None:
    assert inside["abstract"] == "ECONNREFUSED"
