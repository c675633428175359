"""What the launcher reports of refused acts, read and put into the contract's words."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import pytest

from immured.isolation import abi, messages, syscalls
from immured.isolation.abi import Cause, Measured, Stage, ViolationKind
from immured.isolation.messages import Exited, Failed, ProtocolError, Violation, parse_exited
from immured.isolation.profiles import SHIPPED
from immured.isolation.seccomp import host_architecture
from immured.isolation.violations import violation_rows
from immured.manifest.builtin import default_manifest, parse_map
from immured.manifest.schema import Manifest
from immured.service.collect import Collected
from immured.service.run_records import outcome_data

NUMBERS = syscalls.numbers(host_architecture())
OUTCOME = struct.pack("=IIii14Q", Cause.EXITED, 0, 1, 0, *[0] * 14)


def inline(**tables: object) -> Manifest:
    return parse_map({"schema": 1, "name": "t", **tables})


def violation(
    kind: ViolationKind, call: str, target: bytes = b"", arguments: tuple[int, int, int] = (0, 0, 0)
) -> Violation:
    return Violation(kind, NUMBERS[call], 7, arguments, target, b"/usr/bin/x")


def exited(*violations: Violation, counts: Sequence[int] = ()) -> Exited:
    return Exited(Cause.EXITED, Measured(0), 1, 0, violations=violations, violation_counts=tuple(counts))


def packed(
    *records: tuple[int, int, int, bytes, bytes], counts: tuple[int, int, int] = (0, 0, 0), more: bytes = b""
) -> bytes:
    body = struct.pack("=II3Q", len(records), 5, *counts)
    for kind, number, pid, target, exe in records:
        body += struct.pack("=IIiHH3Q", kind, number, pid, len(target), len(exe), 1, 2, 3) + target + exe
    return OUTCOME + body + more


def test_an_outcome_without_violations_has_none() -> None:
    report = parse_exited(OUTCOME)
    assert (report.violations, report.violation_counts, report.unexplained) == ((), (), 0)


def test_records_and_counts_are_read() -> None:
    report = parse_exited(packed((1, 257, 9, b"/usr/x", b"/bin/sh"), (2, 272, 9, b"", b""), counts=(4, 1, 0)))
    assert report.violations == (
        Violation(ViolationKind.WRITE, 257, 9, (1, 2, 3), b"/usr/x", b"/bin/sh"),
        Violation(ViolationKind.SYSCALL, 272, 9, (1, 2, 3), b"", b""),
    )
    assert (report.violation_counts, report.unexplained) == ((4, 1, 0), 5)


@pytest.mark.parametrize(
    "body",
    [
        OUTCOME + b"\0",
        packed((1, 257, 9, b"/usr/x", b""))[:-1],
        packed((1, 257, 9, b"", b""))[:-1],
        packed((9, 257, 9, b"", b"")),
        packed(more=b"\0"),
    ],
    ids=["no head", "a target cut short", "a record cut short", "an unknown kind", "more than its records"],
)
def test_what_is_not_whole_is_no_outcome(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_exited(body)


def test_everything_that_may_be_told_fits_a_packet() -> None:
    record = (1, 257, 9, b"t" * 512, b"e" * 256)
    whole = packed(*[record] * abi.MAX_VIOLATIONS)
    assert messages.HEADER.size + len(whole) <= abi.MAX_PACKET
    assert len(parse_exited(whole).violations) == abi.MAX_VIOLATIONS


def test_a_run_that_never_began_broke_nothing() -> None:
    assert violation_rows(Failed(Stage.OPEN, 1, 2, ""), inline()) == []


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (b"/usr/x", "filesystem: read-only"),
        (b"/data/x", "filesystem.read: /data"),
        (b"/data", "filesystem.read: /data"),
        (b"/database", "filesystem: read-only"),
        (b"/data/../usr/x", "filesystem: read-only"),
        (b"/usr/../data//./x", "filesystem.read: /data"),
        (b"/data/keep/x", "filesystem.protect: /data/keep"),
        (b"/data/keep/secret/x", "filesystem.hide: /data/keep/secret"),
        (b"relative", "filesystem: read-only"),
    ],
)
def test_the_innermost_rule_is_named(path: bytes, rule: str) -> None:
    manifest = inline(filesystem={"read": ["/data"], "protect": ["/data/keep"], "hide": ["/data/keep/secret"]})
    (row,) = violation_rows(exited(violation(ViolationKind.WRITE, "openat", path)), manifest)
    assert row["rule"] == rule
    assert row["remedy"]


@pytest.mark.parametrize(
    ("call", "arguments", "rule"),
    [
        ("unshare", (0, 0, 0), "walls: never"),
        ("fchmodat", (0, 0, 0o4755), "walls: no setuid or setgid bit"),
        ("fchmodat", (0, 0, 0o755), "syscalls.deny"),
        ("socket", (17, 3, 0), "walls: no raw, packet, kernel-crypto or virtual machine sockets"),
        ("ptrace", (0, 0, 0), "syscalls.deny"),
        ("io_uring_setup", (0, 0, 0), "walls: never"),
    ],
)
def test_a_refused_call_has_its_rule(call: str, arguments: tuple[int, int, int], rule: str) -> None:
    manifest = inline(syscalls={"deny": ["ptrace", "fchmodat"]})
    (row,) = violation_rows(exited(violation(ViolationKind.SYSCALL, call, arguments=arguments)), manifest)
    assert (row["syscall"], row["rule"]) == (call, rule)


def test_a_call_that_the_profile_lacks_has_the_profiles_name() -> None:
    manifest = default_manifest()
    default = {"ptrace", "process_vm_readv", "sched_setattr", "syslog", "mbind", "kcmp"}
    missing = sorted(default - SHIPPED[manifest.syscalls.profile].calls - syscalls.walls().never)
    assert missing
    (row,) = violation_rows(exited(violation(ViolationKind.SYSCALL, missing[0])), manifest)
    assert row["rule"] == f"syscalls.profile: {manifest.syscalls.profile}"


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (struct.pack("=H", socket.AF_INET) + b"\0\x50" + bytes([192, 0, 2, 1]) + bytes(8), "192.0.2.1:80"),
        (struct.pack("=H", socket.AF_INET6) + b"\1\xbb" + bytes(4) + bytes(15) + b"\1" + bytes(4), "[::1]:443"),
        (struct.pack("=H", socket.AF_INET) + b"\0", "020000"),
        (b"", ""),
    ],
)
def test_an_address_is_readable(raw: bytes, address: str) -> None:
    (row,) = violation_rows(exited(violation(ViolationKind.CONNECT, "connect", raw)), inline())
    assert (row["kind"], row["address"]) == ("connect", address)
    assert "path" not in row


def test_counts_follow_the_rows_where_there_were_more() -> None:
    one = violation(ViolationKind.WRITE, "openat", b"/usr/x")
    rows = violation_rows(exited(one, counts=(1, 0, 3)), inline())
    assert rows[1:] == [{"kind": "connect", "count": 3}]
    assert violation_rows(exited(one, counts=(9, 0, 0)), inline())[1:] == [{"kind": "write", "count": 9}]


def test_names_that_are_no_text_stay_bytes() -> None:
    (row,) = violation_rows(exited(violation(ViolationKind.WRITE, "openat", b"/usr/\xff")), inline())
    assert row["path"] == b"/usr/\xff"


def test_an_entry_has_room_for_the_rest_of_a_run() -> None:
    many = [violation(ViolationKind.WRITE, "openat", b"/\x01" * 256) for _ in range(64)]
    rows = violation_rows(exited(*many, counts=(1000, 2, 0)), inline())
    kept = outcome_data(3, {"sandbox": "s", "violations": rows}, {}, Collected())["violations"]
    assert isinstance(kept, list)
    assert 1 < len(kept) < 64
    assert all("remedy" not in row for row in kept)
    assert kept[-2:] == [{"kind": "write", "count": 1000}, {"kind": "syscall", "count": 2}]
