"""Profiles of the OCI and Docker form: what is read, what becomes of it, and that it answers as libseccomp's would."""

from __future__ import annotations

import errno
import itertools
import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured import _core
from immured.errors import ConfigurationError
from immured.isolation import syscalls
from immured.isolation.oci import Imported, Target, import_profile
from immured.isolation.profiles import Profiles, parse_profile, permits
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile
from immured.isolation.syscalls import Architecture
from tests.seccomp import libseccomp as ls
from tests.seccomp.model import ALL, ALLOW, KILL, KILL_THREAD, LOG, TRAP, errno_action

EPERM, ENOSYS = errno_action(errno.EPERM), errno_action(errno.ENOSYS)
HERE = Target("x86_64", (6, 1))
NEEDED = sorted(syscalls.walls().needed)


def allowing(*names: str, **more: object) -> dict[str, object]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **more}


def document(*entries: dict[str, object], **more: object) -> dict[str, object]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allowing(*NEEDED), *entries], **more}


def imported(value: object, target: Target = HERE) -> Imported:
    return import_profile(json.dumps(value).encode(), name="mine", target=target)


def program_of(value: object, target: Target = HERE) -> bytes:
    profiles = Profiles(MappingProxyType({"mine": parse_profile("mine", imported(value, target).text)}))
    return compile_profile("mine", arch=target.architecture, profiles=profiles)


def answer(value: object, call: str, *arguments: int, target: Target = HERE) -> int:
    number = syscalls.numbers(target.architecture)[call]
    return _core.seccomp_evaluate(program_of(value, target), AUDIT_ARCH[target.architecture], number, arguments)


def fault(value: object) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        imported(value) if not isinstance(value, bytes) else import_profile(value, name="mine", target=HERE)
    assert refusal.value.code == "bad_profile"
    return refusal.value.message


def condition(index: int, op: str, value: int, two: int | None = None) -> dict[str, object]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value} | ({} if two is None else {"valueTwo": two})


@pytest.mark.parametrize(
    ("action", "more", "expected"),
    [
        ("ALLOW", {}, ALLOW),
        ("LOG", {}, LOG),
        ("TRAP", {}, TRAP),
        ("KILL", {}, KILL_THREAD),
        ("KILL_THREAD", {}, KILL_THREAD),
        ("KILL_PROCESS", {}, KILL),
        ("ERRNO", {"errnoRet": 13}, errno_action(13)),
        ("ERRNO", {"errno": "EACCES"}, errno_action(13)),
        ("ERRNO", {"errnoRet": 0}, errno_action(0)),
        ("ERRNO", {"errnoRet": 4000}, errno_action(errno.EPERM)),
        ("ERRNO", {"errno": "EACCES", "errnoRet": 13}, errno_action(13)),
    ],
)
def test_an_action_becomes_ours(action: str, more: dict[str, object], expected: int) -> None:
    entry: dict[str, object] = {"names": ["lseek"], "action": f"SCMP_ACT_{action}", **more}
    assert answer(document(entry), "lseek") == expected


@pytest.mark.parametrize("action", ["SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"])
def test_what_asks_somebody_else_is_answered_as_where_nobody_listens_and_told(action: str) -> None:
    entry: dict[str, object] = {"names": ["lseek"], "action": action}
    assert answer(document(entry), "lseek") == ENOSYS
    assert f"syscalls[1]: {action} becomes ENOSYS" in "\n".join(imported(document(entry)).report)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, EPERM),
        ({"defaultErrnoRet": 38}, ENOSYS),
        ({"defaultErrno": "ENOSYS"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_KILL_PROCESS"}, KILL),
        ({"defaultAction": "SCMP_ACT_LOG"}, LOG),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, ALLOW),
        ({"defaultAction": "SCMP_ACT_TRACE"}, ENOSYS),
    ],
)
def test_the_default_becomes_ours(more: dict[str, object], expected: int) -> None:
    assert answer({**document(), **more}, "lseek") == expected


@pytest.mark.parametrize(
    ("op", "two", "holds"),
    [
        ("EQ", None, [5]),
        ("NE", None, [0, 4, 6, (1 << 32) + 5, ALL]),
        ("LT", None, [0, 4]),
        ("LE", None, [0, 4, 5]),
        ("GT", None, [6, (1 << 32) + 5, ALL]),
        ("GE", None, [5, 6, (1 << 32) + 5, ALL]),
        ("MASKED_EQ", 4, [4, 6]),
        ("MASKED_EQ", 6, [4, 6]),  # bits past the mask count for nothing
    ],
)
def test_an_argument_is_compared_in_64_bits(op: str, two: int | None, holds: list[int]) -> None:
    value = document(allowing("lseek", args=[condition(2, op, 5, two)]))
    asked = [0, 4, 5, 6, (1 << 32) + 5, ALL]
    assert [n for n in asked if answer(value, "lseek", 0, 0, n) == ALLOW] == holds


def test_conditions_on_several_arguments_go_together() -> None:
    value = document(allowing("lseek", args=[condition(0, "EQ", 1), condition(2, "GE", 2)]))
    assert [answer(value, "lseek", one, 0, two) for one, two in ((1, 2), (1, 1), (0, 2))] == [ALLOW, EPERM, EPERM]


def test_conditions_on_one_argument_are_alternatives_and_told() -> None:
    value = document(allowing("lseek", args=[condition(0, "EQ", 1), condition(0, "EQ", 3), condition(1, "EQ", 0)]))
    assert [answer(value, "lseek", one, two) for one, two in ((1, 9), (3, 9), (7, 0), (7, 9))] == [ALLOW] * 3 + [EPERM]
    assert "syscalls[1]: conditions on one argument are alternatives, as runc takes them" in imported(value).report


@pytest.mark.parametrize(
    ("more", "applies"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"excludes": {"arches": ["s390x"]}}, True),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"excludes": {"minKernel": "10.1"}}, True),
        ({"includes": {}, "excludes": {}, "args": None, "comment": "x"}, True),
    ],
)
def test_an_entry_is_for_a_process_without_capabilities(more: dict[str, object], applies: bool) -> None:
    value = document(allowing("lseek", **more))
    assert (answer(value, "lseek") == ALLOW) == applies
    told = [line for line in imported(value).report if line.startswith("syscalls[1]: left out: it applies ")]
    assert bool(told) != applies


def test_arches_are_those_of_the_asked_architecture() -> None:
    value = document(allowing("lseek", includes={"arches": ["arm64"]}))
    assert answer(value, "lseek", target=Target("aarch64", (6, 1))) == ALLOW


def test_one_name_is_read_as_well_as_many() -> None:
    assert answer(document({"name": "lseek", "action": "SCMP_ACT_ALLOW"}), "lseek") == ALLOW


def test_an_entry_that_says_what_the_default_says_is_no_rule() -> None:
    refused: dict[str, object] = {"names": ["lseek"], "action": "SCMP_ACT_ERRNO"}
    assert answer(document(refused, allowing("lseek")), "lseek") == ALLOW


def test_of_two_answers_the_stricter_one_decides_and_it_is_told() -> None:
    refused: dict[str, object] = {"names": ["lseek"], "action": "SCMP_ACT_TRAP", "args": [condition(0, "LT", 9)]}
    value = document(allowing("lseek", args=[condition(0, "GT", 3)]), refused)
    assert [answer(value, "lseek", n) for n in (3, 4, 8, 9)] == [TRAP, TRAP, TRAP, ALLOW]
    assert "lseek: entries with different answers can hold at once; the stricter one decides" in imported(value).report


def test_answers_that_cannot_meet_are_not_told() -> None:
    refused: dict[str, object] = {"names": ["lseek"], "action": "SCMP_ACT_TRAP", "args": [condition(0, "LE", 3)]}
    value = document(allowing("lseek", args=[condition(0, "GT", 3)]), refused)
    assert not any("can hold at once" in line for line in imported(value).report)


def test_what_no_profile_allows_is_told_and_refused() -> None:
    value = document(allowing("mount", "bpf", "openat2"), defaultErrnoRet=38)
    assert [answer(value, call) for call in ("mount", "bpf", "openat2")] == [EPERM, EPERM, ENOSYS]
    report = "\n".join(imported(value).report)
    assert "walls: no profile can allow it: refused with EPERM: bpf mount" in report
    assert "walls: no profile can allow it: answered ENOSYS: openat2" in report


def test_what_the_walls_guard_is_told_and_guarded() -> None:
    value = document(allowing("clone", "chmod"))
    assert (answer(value, "chmod", 0, 0o4755), answer(value, "clone", 0x10000000)) == (EPERM, EPERM)
    assert "walls: allowed only as walls.toml guards them: chmod clone" in imported(value).report


def test_what_every_program_needs_is_allowed_and_told() -> None:
    value = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allowing("lseek")]}
    assert {answer(value, call) for call in NEEDED} == {ALLOW}
    assert f"walls: no program runs without it: allowed: {' '.join(NEEDED)}" in imported(value).report


def test_other_architectures_calls_are_told() -> None:
    report = imported(document(allowing("socketcall", "lseek", "mmap2"))).report
    assert "syscalls[1]: no calls of x86_64 or aarch64, without effect: socketcall mmap2" in report


def test_what_surrounds_the_rules_is_told() -> None:
    value = document(
        archMap=[
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        flags=["SECCOMP_FILTER_FLAG_LOG"],
        listenerPath="/run/agent.sock",
    )
    assert imported(value).report == (
        "architectures: a call of SCMP_ARCH_X86, SCMP_ARCH_X32 ends the process: filters here serve one architecture",
        "flags: not carried over: SECCOMP_FILTER_FLAG_LOG",
        "listenerPath: not carried over: there is no agent that listens",
    )


def test_an_architecture_that_is_not_listed_is_told() -> None:
    assert (
        imported(document(architectures=["SCMP_ARCH_S390X"]))
        .report[0]
        .startswith("architectures: SCMP_ARCH_X86_64 is not among them")
    )


def test_a_document_that_is_the_same_here_has_no_report() -> None:
    assert imported(document(allowing("lseek", "getpid"), architectures=["SCMP_ARCH_X86_64"])).report == ()


def test_the_report_is_in_the_profiles_head() -> None:
    text = imported(document(allowing("mount", "getpid"))).text
    assert "# * walls: no profile can allow it: refused with EPERM: mount\n" in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"{", "Expecting property name"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * ((1 << 20) + 1), "at most 1048576"),
        (b'{"defaultAction": 1, "defaultAction": 2}', "a name twice"),
        ([], "the profile is no object"),
        ({}, "no defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALOW"}, "'SCMP_ACT_ALOW' is not known, did you mean SCMP_ACT_ALLOW?"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscals": []}, "unknown name 'syscals', did you mean syscalls?"),
        (document(allowing("opn")), "system call 'opn' is not known, did you mean open?"),
        (document(allowing()), "names no system call"),
        (document(allowing("lseek", name="read")), "name and names"),
        (document({"names": ["lseek"]}), "no action"),
        (document(allowing("lseek", arg=[])), "unknown name 'arg', did you mean args?"),
        (document(allowing("lseek", args=[condition(6, "EQ", 1)])), "index is not a number from 0 to 5"),
        (document(allowing("lseek", args=[condition(0, "EQ", -1)])), "value is not a number"),
        (document(allowing("lseek", args=[condition(0, "EQ", 1 << 64)])), "value is not a number"),
        (document(allowing("lseek", args=[condition(0, "EQUAL", 1)])), "did you mean SCMP_CMP_"),
        (document(allowing("lseek", args=[{"index": 0, "value": True, "op": "SCMP_CMP_EQ"}])), "value is not a number"),
        (document(allowing("lseek", args=[{"index": 0, "value": 1.5, "op": "SCMP_CMP_EQ"}])), "value is not a number"),
        (document(allowing("lseek", args={})), "args is no list"),
        (document(allowing("lseek", comment=1)), "comment is no text"),
        (document(allowing("lseek", includes={"cap": []})), "unknown name 'cap', did you mean caps?"),
        (document(allowing("lseek", includes={"caps": ["CAP_SYS_ADMINN"]})), "did you mean CAP_SYS_ADMIN?"),
        (document(allowing("lseek", excludes={"arches": ["amd46"]})), "did you mean amd64?"),
        (document(allowing("lseek", includes={"minKernel": "4"})), "minKernel is not a version"),
        (document({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}), "errnoRet is not a number"),
        (document({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errno": "EPREM"}), "did you mean EPERM?"),
        (document({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errno": "EIO", "errnoRet": 1}), "errnoRet is 1"),
        (document(architectures=["SCMP_ARCH_X68"]), "did you mean SCMP_ARCH_X86?"),
        (document(architectures=["SCMP_ARCH_X86"], archMap=[{}]), "exclude each other"),
        (document(archMap=[{"architecture": "SCMP_ARCH_X86", "subArches": []}]), "unknown name 'subArches'"),
        (document(flags=["SECCOMP_FILTER_FLAG_LOGS"]), "did you mean SECCOMP_FILTER_FLAG_LOG?"),
        (document(allowing("lseek", args=[condition(0, "EQ", n) for n in range(65)])), "too many rules"),
    ],
)
def test_a_fault_is_named_with_its_place(value: object, said: str) -> None:
    assert said in fault(value)


@pytest.mark.parametrize("name", ["", "default", "walls", "explain", "a/b", "A", "../x", "x" * 65])
def test_a_profile_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name for a profile"):
        import_profile(json.dumps(document()).encode(), name=name, target=HERE)


# A profile that uses what real ones use, at once: conditions by mask, by order and by value, errnos beside allowances,
# entries that capabilities and architectures turn off, a default of its own.
RICH = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        allowing(*NEEDED, *sorted(syscalls.groups()["files"] | syscalls.groups()["memory"]), "stat64"),
        allowing("getpriority", "personality", args=[condition(0, "EQ", 0)]),
        allowing("personality", args=[condition(0, "EQ", 0xFFFFFFFF)]),
        allowing("socket", args=[condition(0, "NE", 16)], excludes={"caps": ["CAP_AUDIT_WRITE"]}),
        allowing("socket", args=[condition(2, "NE", 9)], excludes={"caps": ["CAP_AUDIT_WRITE"]}),
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 22,
            "args": [condition(0, "EQ", 16), condition(2, "EQ", 9)],
        },
        allowing("clone", args=[condition(0, "MASKED_EQ", 0x7E020000, 0)], excludes={"caps": ["CAP_SYS_ADMIN"]}),
        allowing("clone", "unshare", includes={"caps": ["CAP_SYS_ADMIN"]}),
        {"names": ["ptrace", "kcmp", "getsid"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["times", "getrusage"], "action": "SCMP_ACT_LOG", "args": [condition(1, "GE", 1 << 33)]},
        {"names": ["nanosleep", "syslog"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM"},
        {
            "names": ["alarm", "pause"],
            "action": "SCMP_ACT_TRAP",
            "args": [condition(0, "LE", 3), condition(0, "GT", 9)],
        },
    ],
}


def as_runc_does(value: dict[str, Any], architecture: Architecture) -> bytes:
    """The document by way of libseccomp, step by step as runc reads it, for a process without capabilities."""
    actions = {"ALLOW": ALLOW, "LOG": LOG, "KILL_PROCESS": KILL, "TRAP": TRAP}
    words = {"EQ": ls.EQ, "NE": ls.NE, "LE": ls.LE, "LT": ls.LT, "GE": ls.GE, "GT": ls.GT, "MASKED_EQ": ls.MASKED_EQ}

    def action_of(entry: dict[str, Any], key: str, number: str) -> int:
        kind = entry[key].removeprefix("SCMP_ACT_")
        return errno_action(errno.EPERM if entry.get("errno") else entry[number]) if kind == "ERRNO" else actions[kind]

    default = action_of(value, "defaultAction", "defaultErrnoRet")
    with ls.new_filter(default, KILL, architecture) as made:
        for entry in value["syscalls"]:
            action = action_of(entry, "action", "errnoRet")
            if entry.get("includes", {}).get("caps") or action == default:
                continue
            arguments = [
                (one["index"], words[one["op"].removeprefix("SCMP_CMP_")], one["value"], one.get("valueTwo", 0))
                for one in entry.get("args", [])
            ]
            alone = len({one[0] for one in arguments}) < len(arguments)
            for name, listed in itertools.product(
                entry["names"], [[one] for one in arguments] if alone else [arguments]
            ):
                number = ls.number_of(name)
                if number >= 0 and ls.number_of(name, architecture) >= 0:
                    made.rule(action, number, *listed)
        return made.export()


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_call_is_answered_as_runc_and_libseccomp_would_but_for_the_walls(architecture: Architecture) -> None:
    ours = program_of(RICH, Target(architecture, (6, 1)))
    theirs = as_runc_does(RICH, architecture)
    guarded = compile_profile("default", ["@debug", "@numa"], arch=architecture)
    walls, numbers, audit = syscalls.walls(), syscalls.numbers(architecture), AUDIT_ARCH[architecture]
    values = [0, 1, 3, 4, 9, 10, 16, 17, 0xFFFFFFFF, 1 << 32, 1 << 33, 0x10000000, 0o4755]
    tuples = [(one, two, three, 0o644, 0, 0) for one in values for two in (0, 1, 1 << 33) for three in (0, 6, 9)]
    different = []
    for name, number in numbers.items():
        if name in walls.absent or ls.number_of(name, architecture) < 0 or ls.number_of(name) < 0:
            continue
        for arguments in tuples:
            expected = _core.seccomp_evaluate(theirs, audit, number, arguments)
            if permits(expected) and name in walls.never:
                expected = EPERM
            elif permits(expected) and name in walls.guards:
                guard = _core.seccomp_evaluate(guarded, audit, number, arguments)
                expected = expected if guard == ALLOW else guard
            if _core.seccomp_evaluate(ours, audit, number, arguments) != expected:
                different.append((name, arguments))
    assert different == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70) | st.sampled_from(["lseek", "SCMP_ACT_ALLOW", "SCMP_CMP_EQ", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["defaultAction", "syscalls", "names", "action", "args", "index", "value", "op", "includes"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON)
def test_any_document_is_a_profile_or_a_named_fault(value: object) -> None:
    try:
        text = imported(value).text
    except ConfigurationError:
        return
    assert parse_profile("mine", text).name == "mine"
