"""From a manifest and a run to a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.host.facts import HostFacts
from immured.isolation import abi
from immured.isolation.abi import BindFlag, Op
from immured.isolation.compile import Compiled, RunSpec, compile_plan
from immured.isolation.filesystem import Grants
from immured.isolation.plan import SHAPES, Step
from immured.manifest.builtin import parse_map
from immured.manifest.parameters import fill

FULL = HostFacts(controllers=frozenset({"cpu", "memory", "pids", "io", "kill"}), cgroup="/sys/fs/cgroup/x", cpus=4)
HYBRID = HostFacts(controllers=frozenset({"kill"}), cgroup="/sys/fs/cgroup/unified/x", cpus=4)


def compiled(
    tables: dict[str, Any] | None = None, facts: HostFacts = FULL, grants: Grants | None = None, **run: Any
) -> Compiled:
    spec = RunSpec(**{"sandbox": "s1", "argv": (b"/bin/true",), **run})
    return compile_plan(parse_map({"schema": 1, **(tables or {})}), spec, facts, grants)


def steps(found: Compiled, *ops: Op) -> list[Step]:
    return [step for step in found.plan.steps if step.op in ops]


def one(found: Compiled, op: Op) -> Step:
    (step,) = steps(found, op)
    return step


def refusal(tables: dict[str, Any] | None = None, **run: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        compiled(tables, **run)
    return refused.value.code, refused.value.message


NAMES = st.text("abcdefgh", min_size=1, max_size=3)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/srv/" + "/".join(parts))
ENTRIES = PATHS | st.fixed_dictionaries({"path": PATHS, "target": PATHS}, optional={"optional": st.booleans()})
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.integers(1 << 20, 1 << 40),
        "pids": st.integers(1, 1 << 22),
        "cpus": st.integers(10, 4_096_000).map(lambda n: f"{n / 1000:.3f}"),
        "cpu_time": st.integers(1, 10**6).map(lambda n: f"{n}ms"),
        "wall": st.integers(1, 10**6).map(lambda n: f"{n}ms") | st.just("none"),
        "disk": st.integers(1 << 16, 1 << 40) | st.just("none"),
        "files": st.integers(4, 1 << 20),
    },
)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "filesystem": st.fixed_dictionaries(
            {},
            optional={
                "root": PATHS | st.just("host"),
                "read": st.lists(ENTRIES, max_size=5),
                "write": st.lists(ENTRIES, max_size=5),
                "tmpfs": st.lists(PATHS, max_size=3),
                "hide": st.lists(PATHS, max_size=3),
                "protect": st.lists(PATHS, max_size=3),
            },
        ),
        "limits": LIMITS,
        "network": st.sampled_from([{"mode": "none"}, {"mode": "loopback"}]),
    },
)
ARGUMENTS = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b""))


@settings(deadline=None)
@given(
    tables=TABLES,
    facts=st.sampled_from([FULL, HYBRID]),
    argv=st.lists(ARGUMENTS, max_size=5).map(lambda rest: (b"/bin/true", *rest)),
    env=st.dictionaries(NAMES.map(str.encode), ARGUMENTS, max_size=4),
    collect=st.lists(PATHS.map(str.encode), max_size=4, unique=True).map(tuple),
    files=st.dictionaries(NAMES.map(lambda name: b"/tmp/" + name.encode()), st.binary(max_size=300), max_size=4),
)
def test_every_plan_passes_the_launchers_check(
    launchers_verdict: Callable[[bytes], str],
    tables: dict[str, Any],
    facts: HostFacts,
    argv: tuple[bytes, ...],
    env: dict[bytes, bytes],
    collect: tuple[bytes, ...],
    files: dict[bytes, bytes],
) -> None:
    try:
        found = compiled(tables, facts, argv=argv, env=env, collect=collect, files=files)
    except Refused:
        return
    assert launchers_verdict(found.plan.pack()) == ""


@settings(deadline=None)
@given(tables=TABLES)
def test_no_mount_covers_one_that_stands_above_it_in_the_plan(tables: dict[str, Any]) -> None:
    try:
        found = compiled(tables)
    except Refused:
        return
    places = [step.strings[-1] for step in steps(found, Op.BIND, Op.TMPFS)]
    for index, place in enumerate(places):
        assert not any(earlier.startswith(place + b"/") for earlier in places[:index])


@settings(deadline=None)
@given(tables=TABLES)
def test_private_file_systems_together_hold_at_most_the_disk_limit(tables: dict[str, Any]) -> None:
    try:
        found = compiled(tables)
    except Refused:
        return
    disk = found.manifest.limits.disk
    if disk is not None:
        assert sum(step.numbers[0] for step in steps(found, Op.TMPFS)) <= disk


def test_equal_inputs_give_equal_bytes() -> None:
    tables = {"filesystem": {"read": ["/a", "/b"]}}
    assert compiled(tables).plan.digest == compiled(tables).plan.digest


def test_every_wall_is_in_every_plan() -> None:
    walls = {op for op, shape in SHAPES.items() if shape.required}
    assert walls <= {step.op for step in compiled().plan.steps}


def test_hidden_and_protected_places_are_covered_after_every_mount() -> None:
    tables = {"filesystem": {"read": ["/a/b/c"], "write": ["/z"], "hide": ["/a"], "protect": ["/z/keep"]}}
    ops = [step.op for step in steps(compiled(tables), Op.BIND, Op.TMPFS, Op.HIDE, Op.PROTECT)]
    assert ops[-2:] == [Op.HIDE, Op.PROTECT]


def test_tmp_is_there_whatever_the_manifest_lists() -> None:
    places = [step.strings[0] for step in steps(compiled({"filesystem": {"tmpfs": ["/scratch"]}}), Op.TMPFS)]
    assert {b"/tmp", b"/scratch"} <= set(places)


def test_a_bind_at_tmp_takes_its_place() -> None:
    tables = {"filesystem": {"write": [{"path": "/srv/t", "target": "/tmp"}]}}
    assert b"/tmp" not in [step.strings[0] for step in steps(compiled(tables), Op.TMPFS)]


def test_a_directory_as_root_is_a_step() -> None:
    assert one(compiled({"filesystem": {"root": "/srv/root"}}), Op.ROOTFS).strings == (b"/srv/root",)


@pytest.mark.parametrize(("mode", "count"), [("loopback", 1), ("none", 0)])
def test_lo_goes_up_only_where_the_manifest_has_it(mode: str, count: int) -> None:
    assert len(steps(compiled({"network": {"mode": mode}}), Op.LOOPBACK)) == count


def test_the_payload_is_the_protocols_user() -> None:
    assert one(compiled(), Op.IDENTITY).numbers == (abi.PAYLOAD_ID, abi.PAYLOAD_ID)


def test_the_cgroup_is_named_by_tenant_and_sandbox() -> None:
    assert one(compiled(tenant="spring", sandbox="s9"), Op.CGROUP).strings == (b"spring", b"s9")


def test_the_command_has_its_cwd_arguments_and_environment() -> None:
    step = one(compiled(argv=(b"sh", b"-c", b"x"), cwd=b"/tmp", env={b"A": b"1"}), Op.EXEC)
    assert step.numbers == (3,)
    assert step.strings[:4] == (b"/tmp", b"sh", b"-c", b"x")
    assert b"A=1" in step.strings[4:]
    assert b"HOME=/tmp" in step.strings[4:]


def test_a_runs_limits_tighten_the_manifests() -> None:
    found = compiled(limits={"memory": "64M"})
    assert one(found, Op.CGROUP).numbers[0] == found.manifest.limits.memory == 64 << 20


@pytest.mark.parametrize(("command", "count"), [({}, 0), ({"allow": ["make"]}, 1), ({"pin": True}, 1)])
def test_what_is_executed_is_pinned_where_the_manifest_says_so(command: dict[str, Any], count: int) -> None:
    found = compiled({"command": command}, argv=(b"make",))
    assert len(steps(found, Op.PIN)) == count
    assert not count or [step.op for step in found.plan.steps[-4:]] == [Op.PIN, Op.SECCOMP, Op.EXPLAIN, Op.EXEC]


def test_a_source_that_a_parameter_filled_stays_beneath_its_directory() -> None:
    tables = {
        "parameters": {"project": {"type": "path", "within": ["/srv", "/home"], "default": "/srv/p"}},
        "filesystem": {"write": ["${project}/w"], "read": ["/opt"]},
    }
    found = compile_plan(fill(parse_map({"schema": 1, **tables}), {"project": "/home/u"}), RunSpec("s1", (b"x",)), FULL)
    binds = {step.strings: BindFlag(step.numbers[0]) for step in steps(found, Op.BIND)}
    assert binds[(b"/home/u/w", b"/home/u/w", b"/home")] == BindFlag.WRITE | BindFlag.BENEATH
    assert binds[(b"/opt", b"/opt")] == BindFlag(0)
    shown = next(row for row in found.plan.describe() if row.get("source") == "/home/u/w")
    assert shown == {
        "step": "bind", "flags": ["write", "beneath"], "source": "/home/u/w", "target": "/home/u/w", "beneath": "/home"
    }  # fmt: skip


def test_collected_paths_are_in_their_order() -> None:
    found = compiled(collect=(b"/tmp/b", b"/tmp/a"))
    assert tuple(step.strings[0] for step in steps(found, Op.COLLECT)) == found.collect == (b"/tmp/b", b"/tmp/a")


def test_a_weaker_affinity_is_kept_by_the_filter() -> None:
    tables = {"limits": {"cpus": "1"}}
    assert one(compiled(tables, HYBRID), Op.SECCOMP) != one(compiled(tables, FULL), Op.SECCOMP)


def flags(found: Compiled, source: bytes) -> BindFlag:
    return next(BindFlag(step.numbers[0]) for step in steps(found, Op.BIND) if step.strings[0] == source)


def test_only_what_the_manifest_writes_is_writable() -> None:
    found = compiled({"filesystem": {"read": ["/a"], "write": ["/b"]}})
    assert (flags(found, b"/a"), flags(found, b"/b")) == (BindFlag(0), BindFlag.WRITE)


def test_no_path_is_opened_as_root_without_a_grant() -> None:
    found = compiled({"filesystem": {"read": ["/a"], "write": ["/b"]}})
    assert not any(BindFlag.GRANTED & step.numbers[0] for step in steps(found, Op.BIND))


@pytest.mark.parametrize(
    ("grants", "kind", "path", "granted"),
    [
        (Grants(read=(b"/srv",)), "read", "/srv/a", True),
        (Grants(read=(b"/srv",)), "read", "/srv", True),
        (Grants(read=(b"/srv",)), "read", "/srvx", False),
        (Grants(read=(b"/srv",)), "write", "/srv/a", False),
        (Grants(write=(b"/srv",)), "write", "/srv/a", True),
        (Grants(write=(b"/srv",)), "read", "/srv/a", True),
    ],
)
def test_a_grant_covers_its_directory_and_its_kind(grants: Grants, kind: str, path: str, granted: bool) -> None:
    found = compiled({"filesystem": {kind: [path]}}, grants=grants)
    assert bool(flags(found, path.encode()) & BindFlag.GRANTED) is granted


FILESYSTEM = {
    "read": ["/data"],
    "write": [{"path": "/srv/out", "target": "/out"}, "/data/cache"],
    "tmpfs": ["/scratch"],
    "protect": ["/out/keep"],
    "hide": ["/out/hidden"],
}


@pytest.mark.parametrize("path", [b"/tmp/a", b"/scratch/x/y", b"/out/a", b"/data/cache/a"])
def test_a_file_is_put_where_the_run_may_write(path: bytes) -> None:
    step = one(compiled({"filesystem": FILESYSTEM}, files={path: b"hello"}), Op.FILE)
    assert step.strings == (path, b"hello")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (b"/etc/passwd", "files holds '/etc/passwd', where this run cannot write"),
        (b"/data/a", "files holds '/data/a', where this run cannot write"),
        (b"/tmp", "files holds '/tmp', where this run cannot write"),
        (b"/out/keep/a", "files holds '/out/keep/a', which the manifest protects or hides"),
        (b"/out/hidden", "files holds '/out/hidden', which the manifest protects or hides"),
        (b"tmp/a", "files holds 'tmp/a', which is not absolute"),
        (b"/tmp/../etc/a", "files holds '/tmp/../etc/a', which is not in its shortest form: no `//`, `.` or `..`"),
    ],
)
def test_a_file_is_put_nowhere_else(path: bytes, message: str) -> None:
    assert refusal({"filesystem": FILESYSTEM}, files={path: b""}) == ("bad_argument", message)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"argv": ()}, "argv is empty: name a command"),
        ({"argv": (b"",)}, "argv[0] is empty: name a command"),
        ({"argv": (b"a", b"\0")}, "argv[1] holds a NUL"),
        ({"argv": (b"a", b"x" * 131_072)}, "argv[1] has 131072 bytes; at most 131071"),
        ({"argv": (b"a" * 4096,)}, "argv[0] has 4096 bytes; a path has at most 4095"),
        ({"argv": (b"a",) * 4097}, "argv has 4097 arguments; at most 4096"),
        ({"argv": (b"a",) + (b"x" * 131_071,) * 9}, "argv has more than 1048576 bytes"),
        ({"cwd": b"tmp"}, "cwd holds 'tmp', which is not absolute"),
        ({"collect": (b"/a", b"/a/")}, "collect names a path twice"),
        ({"collect": tuple(b"/%d" % i for i in range(65))}, "collect has 65 paths; at most 64"),
        ({"files": {b"/tmp/%d" % i: b"" for i in range(129)}}, "files has 129 entries; at most 128"),
        ({"tenant": "../x"}, "tenant '../x' is not a name: a-z, 0-9, `_`, `.` and `-`, at most 64"),
        ({"limits": {"memory": "1T"}}, "limits.memory is 1T, more than the manifest's 512M"),
        ({"limits": {"disk": "64K"}}, "limits.disk of 65536 bytes does not hold the manifest's tmpfs sizes"),
    ],
)
def test_a_run_that_cannot_be_is_refused_by_its_field(run: dict[str, Any], message: str) -> None:
    tables = {"filesystem": {"tmpfs": [{"path": "/scratch", "size": "1M"}]}}
    assert refusal(tables, **run) == ("bad_argument", message)


def test_a_command_that_the_manifest_does_not_name_is_denied() -> None:
    assert refusal({"command": {"allow": ["python3"]}}, argv=(b"sh",))[0] == "denied"


def test_a_system_call_that_there_is_not_is_refused() -> None:
    assert refusal({"syscalls": {"deny": ["ptracee"]}})[0] == "manifest_invalid"


def test_the_largest_plan_fits_the_protocol(launchers_verdict: Callable[[bytes], str]) -> None:
    found = compiled(
        {"filesystem": {"read": [f"/srv/{i}" for i in range(255)], "tmpfs": ["/tmp"]}},
        collect=tuple(b"/tmp/c%d" % i for i in range(64)),
        files={b"/tmp/f%d" % i: b"" for i in range(128)},
    )
    assert launchers_verdict(found.plan.pack()) == ""
