"""The launcher's own check of plans: each rule of protocol.h refuses the plan that breaks it, and no bytes hurt it."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from immured.isolation import abi
from immured.isolation.abi import Op
from immured.isolation.plan import UNLIMITED, Step
from tests.launcher.conftest import FLAGS, HERE, SOURCES

Judge = Callable[[Sequence[bytes]], list[str]]

BENEATH = abi.BindFlag.BENEATH
FILTER = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
WHOLE: dict[str, Step] = {
    "deadlines": Step(Op.DEADLINES, (10**10, 0, 1)),
    "cgroup": Step(Op.CGROUP, (1 << 30, 64, 150000, 100000, 0, 0), (b"tenant", b"s-1")),
    "collect": Step(Op.COLLECT, (1 << 20,), (b"/tmp/out",)),
    "rootfs": Step(Op.ROOTFS, (), (b"/srv/root",)),
    "bind": Step(Op.BIND, (abi.BindFlag.WRITE,), (b"/home/u/work", b"/home/u/work")),
    "tmpfs": Step(Op.TMPFS, (1 << 20, 1024, 0o1777, 0), (b"/tmp",)),
    "hide": Step(Op.HIDE, (), (b"/home/u/work/.git",)),
    "protect": Step(Op.PROTECT, (0,), (b"/home/u/work/lock",)),
    "file": Step(Op.FILE, (0o644,), (b"/tmp/in", b"\0any bytes\0")),
    "volume": Step(Op.VOLUME, (0, 1 << 20, 64), (b"tenant/cache", b"/cache")),
    "seal": Step(Op.SEAL_ROOT),
    "loopback": Step(Op.LOOPBACK),
    "rlimit": Step(Op.RLIMIT, (7, 1024, UNLIMITED)),
    "affinity": Step(Op.AFFINITY, (1, 3), (b"0-1,3",)),
    "umask": Step(Op.UMASK, (0o22,)),
    "identity": Step(Op.IDENTITY, (1000, 1000)),
    "drop": Step(Op.DROP_CAPABILITIES),
    "no_new_privs": Step(Op.NO_NEW_PRIVS),
    "pin": Step(Op.PIN),
    "seccomp": Step(Op.SECCOMP, (), (FILTER,)),
    "exec": Step(Op.EXEC, (2,), (b"/", b"/bin/true", b"", b"A=b", b"EMPTY=")),
}


def pack(steps: Sequence[Step], *, count: int | None = None, tail: bytes = b"") -> bytes:
    """A plan with no check of our own."""
    body = b"".join(step.pack() for step in steps) + tail
    head = struct.pack(
        "=IIII", abi.PLAN_MAGIC, abi.PROTOCOL_VERSION, len(steps) if count is None else count, 16 + len(body)
    )
    return head + body


def plan(**changes: Step | Sequence[Step] | None) -> bytes:
    """The whole plan with steps replaced by one, by several, or (None) left out."""
    steps: list[Step] = []
    for name, step in WHOLE.items():
        change = changes.get(name, step)
        if isinstance(change, Step):
            steps.append(change)
        elif change is not None:
            steps += change
    return pack(steps)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """native/launcher/plan.c in tests/fuzz/fuzz_plan.c, built with the sanitizers."""
    program = tmp_path_factory.mktemp("native") / "fuzz_plan"
    sources = [HERE.parent / "fuzz" / "fuzz_plan.c", SOURCES / "plan.c", SOURCES / "error.c"]
    subprocess.run(["gcc", *FLAGS, *sources, "-o", program], check=True)
    return program


@pytest.fixture(scope="session")
def judge(program: Path) -> Judge:
    """The verdicts on plans: `ok`, or the step and why not."""

    def judge(plans: Sequence[bytes]) -> list[str]:
        feed = b"".join(struct.pack("=I", len(one)) + one for one in plans)
        done = subprocess.run([program, "-"], input=feed, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "backslashreplace").split("\0")[:-1]

    return judge


def test_a_plan_with_every_operation_passes(judge: Judge) -> None:
    assert judge([plan()]) == ["ok"]


def test_a_plan_in_a_file_is_judged_alike(program: Path, tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(plan())
    done = subprocess.run([program, tmp_path / "plan"], capture_output=True, check=True, timeout=60)
    assert done.stdout == b"ok\0"


@pytest.mark.parametrize(
    "name",
    [
        *("collect", "rootfs", "bind", "tmpfs", "hide", "protect", "file", "volume", "loopback", "rlimit"),
        *("affinity", "umask"),
    ],
)
def test_what_is_optional_may_be_left_out(judge: Judge, name: str) -> None:
    assert judge([plan(**{name: None})]) == ["ok"]


@pytest.mark.parametrize("name", ["deadlines", "cgroup", "seal", "identity", "drop", "no_new_privs", "seccomp", "exec"])
def test_no_wall_may_be_left_out(judge: Judge, name: str) -> None:
    (verdict,) = judge([plan(**{name: None})])
    assert verdict == f"-1 {WHOLE[name].op.name} is missing"


@pytest.mark.parametrize("name", ["collect", "bind", "tmpfs", "hide", "protect", "file", "volume", "rlimit"])
def test_what_may_repeat_repeats(judge: Judge, name: str) -> None:
    assert judge([plan(**{name: [WHOLE[name]] * 3})]) == ["ok"]


@pytest.mark.parametrize(
    "name",
    [
        "deadlines",
        "cgroup",
        "rootfs",
        "seal",
        "loopback",
        "affinity",
        "umask",
        "identity",
        "drop",
        "no_new_privs",
        "seccomp",
        "exec",
    ],
)
def test_what_stands_once_stands_once(judge: Judge, name: str) -> None:
    (verdict,) = judge([plan(**{name: [WHOLE[name]] * 2})])
    assert verdict.endswith(f"{WHOLE[name].op.name} comes twice")


def test_steps_of_the_view_mix_in_any_order(judge: Judge) -> None:
    view = ["file", "protect", "hide", "tmpfs", "bind"]
    steps = {**dict.fromkeys(view), "bind": [WHOLE[name] for name in view]}
    assert judge([plan(**steps)]) == ["ok"]


@pytest.mark.parametrize("late", range(1, len(WHOLE)))
def test_a_step_that_stands_too_late_is_refused(judge: Judge, late: int) -> None:
    steps = list(WHOLE.values())
    moved = [*steps[:late], *steps[late + 1 :], steps[late]]
    before = [*steps[: late - 1], steps[late], steps[late - 1], *steps[late + 1 :]]
    ranks = {Op.BIND, Op.TMPFS, Op.HIDE, Op.PROTECT, Op.FILE, Op.VOLUME}
    same_rank = {steps[late].op, steps[late - 1].op} <= ranks
    assert judge([pack(before)]) == ["ok"] if same_rank else "out of order" in judge([pack(before)])[0]
    assert steps[late].op is Op.EXEC or "out of order" in judge([pack(moved)])[0]


@pytest.mark.parametrize("directory", [b"/", b"/home", b"/home/u", b"/home/u/work"])
def test_a_bind_beneath_a_directory_that_holds_it_passes(judge: Judge, directory: bytes) -> None:
    assert judge([plan(bind=Step(Op.BIND, (BENEATH,), (b"/home/u/work", b"/home/u/work", directory)))]) == ["ok"]


def test_a_plan_needs_no_pin_and_swap_goes_with_memory(judge: Judge) -> None:
    swap = Step(Op.CGROUP, (1 << 30, 64, 150000, 100000, 0, 1 << 40), (b"tenant", b"s-1"))
    assert judge([plan(pin=None), plan(cgroup=swap)]) == ["ok", "ok"]


REFUSED: dict[str, tuple[dict[str, Step | Sequence[Step] | None], str]] = {
    "kill_on_pids is a truth": ({"deadlines": Step(Op.DEADLINES, (1, 1, 2))}, "kill_on_pids is 2"),
    "wall beyond the clock": ({"deadlines": Step(Op.DEADLINES, (1 << 63, 0, 0))}, "wall_ns is"),
    "a number too few": ({"deadlines": Step(Op.DEADLINES, (1, 1))}, "with 2 numbers"),
    "a number too many": ({"seal": Step(Op.SEAL_ROOT, (1,))}, "with 1 numbers"),
    "a string too many": ({"umask": Step(Op.UMASK, (0,), (b"x",))}, "1 numbers and 1 strings"),
    "a tenant that climbs": ({"cgroup": Step(Op.CGROUP, (0,) * 6, (b"..", b"s"))}, "tenant is not a name"),
    "a tenant with a slash": ({"cgroup": Step(Op.CGROUP, (0,) * 6, (b"a/b", b"s"))}, "tenant is not a name"),
    "a tenant without a name": ({"cgroup": Step(Op.CGROUP, (0,) * 6, (b"", b"s"))}, "tenant is not a name"),
    "a long sandbox": ({"cgroup": Step(Op.CGROUP, (0,) * 6, (b"t", b"s" * 65))}, "sandbox is not a name"),
    "a sandbox in capitals": ({"cgroup": Step(Op.CGROUP, (0,) * 6, (b"t", b"S"))}, "sandbox is not a name"),
    "a sandbox with a NUL": ({"cgroup": Step(Op.CGROUP, (0,) * 6, (b"t", b"s\0x"))}, "sandbox is not a name"),
    "a period of nothing": ({"cgroup": Step(Op.CGROUP, (0, 0, 1000, 0, 0, 0), (b"t", b"s"))}, "cpu_period_us is 0"),
    "a small quota": ({"cgroup": Step(Op.CGROUP, (0, 0, 1, 1000, 0, 0), (b"t", b"s"))}, "cpu_quota_us is 1"),
    "swap without memory": ({"cgroup": Step(Op.CGROUP, (0, 0, 0, 0, 0, 1), (b"t", b"s"))}, "swap_max is 1, beyond 0"),
    "swap beyond all": ({"cgroup": Step(Op.CGROUP, (1, 0, 0, 0, 0, 1 << 63), (b"t", b"s"))}, "swap_max is"),
    "a CGROUP of before": ({"cgroup": Step(Op.CGROUP, (0,) * 5, (b"t", b"s"))}, "CGROUP with 5 numbers"),
    "a pin twice": ({"pin": [Step(Op.PIN), Step(Op.PIN)]}, "PIN comes twice"),
    "a pin with an operand": ({"pin": Step(Op.PIN, (0,))}, "PIN with 1 numbers"),
    "a bind beneath nothing": ({"bind": Step(Op.BIND, (BENEATH,), (b"/a", b"/b"))}, "a bind of 2 strings"),
    "a directory for nothing": ({"bind": Step(Op.BIND, (0,), (b"/a", b"/b", b"/a"))}, "a bind of 3 strings"),
    "a bind beneath another": (
        {"bind": Step(Op.BIND, (BENEATH,), (b"/srv/ab", b"/b", b"/srv/a"))},
        "source does not lie beneath /srv/a",
    ),
    "a bind beneath what climbs": (
        {"bind": Step(Op.BIND, (BENEATH,), (b"/srv/../a", b"/b", b"/srv"))},
        "source has a `..`",
    ),
    "a bind beneath a place with a slash": (
        {"bind": Step(Op.BIND, (BENEATH,), (b"/srv/a", b"/b", b"/srv/"))},
        "source does not lie beneath /srv/",
    ),
    "a bind beneath a relative place": (
        {"bind": Step(Op.BIND, (BENEATH,), (b"/srv/a", b"/b", b"srv"))},
        "directory is not absolute",
    ),
    "a period of a minute": ({"cgroup": Step(Op.CGROUP, (0, 0, 1000, 60000000, 0, 0), (b"t", b"s"))}, "cpu_period_us"),
    "too many to collect": ({"collect": [WHOLE["collect"]] * 65}, "more than 64 files"),
    "collecting by a relative path": ({"collect": Step(Op.COLLECT, (1,), (b"out",))}, "path is not absolute"),
    "a root that climbs": ({"rootfs": Step(Op.ROOTFS, (), (b"/srv/../etc",))}, "source has a `..`"),
    "a source that climbs": ({"bind": Step(Op.BIND, (0,), (b"/a/..", b"/b"))}, "source has a `..`"),
    "a relative source": ({"bind": Step(Op.BIND, (0,), (b"a", b"/b"))}, "source is not absolute"),
    "an empty source": ({"bind": Step(Op.BIND, (0,), (b"", b"/b"))}, "source is not absolute"),
    "a source with a NUL": ({"bind": Step(Op.BIND, (0,), (b"/a\0b", b"/b"))}, "source holds a NUL"),
    "a source beyond PATH_MAX": ({"bind": Step(Op.BIND, (0,), (b"/" + b"a" * 4095, b"/b"))}, "source is longer"),
    "an unknown flag": ({"bind": Step(Op.BIND, (64,), (b"/a", b"/b"))}, "unknown flags: 0x40"),
    "a target that climbs": ({"bind": Step(Op.BIND, (0,), (b"/a", b"/b/../c"))}, "target has a `..`"),
    "the root as a target": ({"bind": Step(Op.BIND, (0,), (b"/a", b"/"))}, "target is the root itself"),
    "a target with a dot": ({"hide": Step(Op.HIDE, (), (b"/a/./b",))}, "target is not in its shortest form"),
    "a target with two slashes": (
        {"protect": Step(Op.PROTECT, (0,), (b"/a//b",))},
        "target is not in its shortest form",
    ),
    "a target with a last slash": (
        {"tmpfs": Step(Op.TMPFS, (1, 1, 0, 0), (b"/a/",))},
        "target is not in its shortest form",
    ),
    "a tmpfs without bound": ({"tmpfs": Step(Op.TMPFS, (0, 1, 0, 0), (b"/a",))}, "size is 0"),
    "a tmpfs with any number of inodes": ({"tmpfs": Step(Op.TMPFS, (1, 0, 0, 0), (b"/a",))}, "inodes is 0"),
    "a tmpfs half executable": ({"tmpfs": Step(Op.TMPFS, (1, 1, 0, 2), (b"/a",))}, "noexec is 2"),
    "an absent place of no kind": ({"protect": Step(Op.PROTECT, (3,), (b"/a",))}, "absent is 3"),
    "a setuid directory": ({"tmpfs": Step(Op.TMPFS, (1, 1, 0o4755, 0), (b"/a",))}, "mode is"),
    "a setuid file": ({"file": Step(Op.FILE, (0o4755,), (b"/a", b""))}, "mode is"),
    **{
        f"a volume as {name!r}": ({"volume": Step(Op.VOLUME, (0, 1, 1), (name, b"/c"))}, reason)
        for name, reason in (
            (b"tenant", "not the name"),
            (b"tenant/", "not a name"),
            (b"/cache", "not a name"),
            (b"../cache", "not a name"),
            (b"tenant/..", "not a name"),
            (b"tenant/.gone-1", "not a name"),
            (b"tenant/a/b", "not the name"),
            (b"tenant/" + b"a" * 65, "not the name"),
            (b"tenant/a\0", "name holds a NUL"),
        )
    },
    "a volume without bound": ({"volume": Step(Op.VOLUME, (0, 0, 1), (b"t/v", b"/c"))}, "size is 0"),
    "a volume of any number of files": ({"volume": Step(Op.VOLUME, (0, 1, 0), (b"t/v", b"/c"))}, "inodes is 0"),
    "a volume as the root": ({"volume": Step(Op.VOLUME, (0, 1, 1), (b"t/v", b"/"))}, "target is the root itself"),
    "a volume by the caller's right": ({"volume": Step(Op.VOLUME, (1, 1, 1), (b"t/v", b"/c"))}, "unknown flags: 0x1"),
    **{
        f"an image as {name!r}": ({"rootfs": Step(Op.IMAGE, (0, 0, 0), (name,))}, "64 hex digits")
        for name in (b"", b"..", b"a" * 63, b"a" * 65, b"A" * 64, b"../" + b"a" * 61, b"a" * 63 + b"\0")
    },
    "an image's layer without bound": ({"rootfs": Step(Op.IMAGE, (1, 0, 1), (b"a" * 64,))}, "size is 0"),
    "a layer that is not there": ({"rootfs": Step(Op.IMAGE, (0, 1, 1), (b"a" * 64,))}, "a layer that is not there"),
    "two roots": ({"rootfs": [WHOLE["rootfs"], Step(Op.IMAGE, (0, 0, 0), (b"a" * 64,))]}, "two roots"),
    "a snapshot in a run": (
        {"volume": Step(Op.RESTORE, (8, 1, 1), (b"t/s/0", b"/c"))},
        "RESTORE is nothing for a plan of kind 0",
    ),
    "an unknown resource": ({"rlimit": Step(Op.RLIMIT, (16, 0, 0))}, "resource is 16"),
    "a soft limit over the hard": ({"rlimit": Step(Op.RLIMIT, (7, 2, 1))}, "soft limit is 2"),
    "no processor at all": ({"affinity": Step(Op.AFFINITY, (0, 0), (b"",))}, "processors neither named nor counted"),
    "more processors than a set holds": ({"affinity": Step(Op.AFFINITY, (1025, 0), (b"",))}, "count is 1025"),
    "an unknown kind of affinity": ({"affinity": Step(Op.AFFINITY, (1, 4), (b"",))}, "flags is 4"),
    **{
        f"processors as {text!r}": ({"affinity": Step(Op.AFFINITY, (0, 0), (text,))}, "processors are no ascending")
        for text in (
            b"a",
            b"-",
            b"1-",
            b"-1",
            b"1-0",
            b"0,0",
            b"2,1",
            b"0-2,2",
            b"0,",
            b",0",
            b"0 1",
            b"1024",
            b"00000",
        )
    },
    "a mask of more than modes": ({"umask": Step(Op.UMASK, (0o1000,))}, "mask is"),
    "root inside": ({"identity": Step(Op.IDENTITY, (0, 1000))}, "uid is 0"),
    "root's group inside": ({"identity": Step(Op.IDENTITY, (1000, 0))}, "gid is 0"),
    "an id beyond the cell's": ({"identity": Step(Op.IDENTITY, (65534, 1000))}, "uid is 65534"),
    "half an instruction": ({"seccomp": Step(Op.SECCOMP, (), (FILTER[:7],))}, "a filter of 7 bytes"),
    "an empty filter": ({"seccomp": Step(Op.SECCOMP, (), (b"",))}, "a filter of 0 bytes"),
    "a filter too long": ({"seccomp": Step(Op.SECCOMP, (), (FILTER * 4097,))}, "instructions is 4097"),
    "no arguments": ({"exec": Step(Op.EXEC, (1,), (b"/",))}, "no cwd or no argv"),
    "argc of nothing": ({"exec": Step(Op.EXEC, (0,), (b"/", b"x"))}, "argc is 0"),
    "argc beyond the strings": ({"exec": Step(Op.EXEC, (2,), (b"/", b"x"))}, "argc is 2"),
    "an empty program": ({"exec": Step(Op.EXEC, (1,), (b"/", b""))}, "argv[0] is empty"),
    "a relative cwd": ({"exec": Step(Op.EXEC, (1,), (b".", b"x"))}, "cwd is not absolute"),
    "an argument with a NUL": ({"exec": Step(Op.EXEC, (1,), (b"/", b"x\0y"))}, "argv holds a NUL"),
    "an environment without names": ({"exec": Step(Op.EXEC, (1,), (b"/", b"x", b"A"))}, "environment entry"),
    "an environment of values": ({"exec": Step(Op.EXEC, (1,), (b"/", b"x", b"=A"))}, "environment entry"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_step_out_of_bounds_is_refused(judge: Judge, case: str) -> None:
    changes, reason = REFUSED[case]
    (verdict,) = judge([plan(**changes)])
    assert reason in verdict


def test_the_refusal_names_the_step(judge: Judge) -> None:
    (verdict,) = judge([plan(identity=Step(Op.IDENTITY, (0, 0)))])
    assert int(verdict.split()[0]) == list(WHOLE).index("identity")


def cut(*fields: int) -> bytes:
    """A plan of one step whose head (operation, numbers, strings), and what follows in words, is all there is."""
    return pack([], tail=struct.pack("=IHH" + "I" * (len(fields) - 3), *fields), count=1)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "0 bytes are no plan"),
    "a header cut short": (lambda whole: whole[:15], "15 bytes are no plan"),
    "another magic": (lambda whole: b"X" + whole[1:], "not a plan of version"),
    "another version": (lambda whole: whole[:4] + b"\1" + whole[5:], "not a plan of version"),
    "a length that lies": (lambda whole: whole[:12] + b"\0\0\0\0" + whole[16:], "the plan says"),
    "an unknown operation": (lambda _: cut(99, 0, 0), "unknown operation 99"),
    "bytes after the end": (lambda _: pack(list(WHOLE.values()), tail=b"\0" * 8), "8 bytes after the last step"),
    "a step too few": (lambda _: pack(list(WHOLE.values()), count=len(WHOLE) + 1), "ends within a step"),
    "too many steps": (lambda _: pack([], count=513), "steps is 513"),
    "numbers cut off": (lambda _: cut(1, 3, 0), "ends within a step's numbers"),
    "strings cut off": (lambda _: cut(4, 0, 1), "ends within a step's strings"),
    "a string cut off": (lambda _: cut(4, 0, 1, 4, 0), "ends within string 0"),
    "a string without end": (lambda _: cut(4, 0, 1, 0xFFFFFFF8, 0), "is longer than"),
    "padding that is not NUL": (lambda whole: whole.replace(b"/srv/root\0", b"/srv/root\1"), "not padded with NULs"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bytes_that_are_no_plan_are_refused(judge: Judge, case: str) -> None:
    change, reason = BROKEN[case]
    (verdict,) = judge([change(plan())])
    assert reason in verdict


def test_every_cut_of_a_plan_is_refused(judge: Judge) -> None:
    whole = plan()
    cuts = [whole[:12] + struct.pack("=I", length) + whole[16:length] for length in range(16, len(whole), 4)]
    assert "ok" not in judge(cuts)


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_reads_beyond_the_plan(judge: Judge, seed: int) -> None:
    rng = random.Random(seed)
    assert len(judge([mutated(plan(), rng) for _ in range(2000)])) == 2000


EDGES = (0, 1, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF7, 0xFFFFFFF8, 0xFFFFFFFF)


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """A plan with a few words, bytes or runs of bytes changed; its length is made right again two times of three."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(0, len(data), 4)
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + 4] = struct.pack("=I", rng.choice(EDGES))
        elif kind == 1:
            data[at : at + 2] = struct.pack("=H", rng.choice(EDGES) & 0xFFFF)
        elif kind == 2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del data[at : at + 8 * rng.randint(1, 4)]
        else:
            data[at:at] = data[at : at + 8 * rng.randint(1, 4)]
        if len(data) < 16:
            return bytes(data)
    if rng.randrange(3):
        data[12:16] = struct.pack("=I", len(data))
    return bytes(data)
