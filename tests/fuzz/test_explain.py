"""PID 1's word on a call beside what the kernel does with it, under the sanitizers."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immured.isolation import syscalls
from immured.isolation.seccomp import host_architecture
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

HERE = Path(__file__).parent
LAUNCHER = HERE.parents[1] / "native" / "launcher"
PARTS = "explain_calls explain_learn explain_path util error".split()
FLAGS = (
    "-std=gnu11 -D_GNU_SOURCE= -O1 -g -Wall -Wextra -Werror -Wno-unused-function -fsanitize=address,undefined"
    " -fno-sanitize-recover -fno-omit-frame-pointer"
).split()
ROOM = 8192
ANSWER = struct.Struct("=iiI512s")
TEXTS = (0x7E57000, 0x7E57001)
"""In an argument's place: the address of the first text, of the second."""

Ask = Callable[[str, list[int], bytes, bytes], tuple[bool, int, bytes]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """What PID 1 says of a call (forbidden, and named so), and what the kernel does (an errno or 0)."""
    program = tmp_path_factory.mktemp("fuzz_explain") / "fuzz_explain"
    sources = [HERE / "fuzz_explain.c", *(LAUNCHER / f"{part}.c" for part in PARTS)]
    core = LAUNCHER.parent / "core" / "seccomp_evaluate.c"
    subprocess.run(["gcc", *FLAGS, f"-I{LAUNCHER}", *sources, core, "-o", program], check=True)
    numbers = syscalls.numbers(host_architecture())
    ours, theirs = socket.socketpair()
    place = tempfile.mkdtemp(prefix="immured-fuzz-explain-")
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    with ours, theirs, subprocess.Popen([str(program), place], stdin=theirs.fileno(), env=environment) as process:
        theirs.close()
        ours.settimeout(PATIENCE_S)

        def one(name: str, args: list[int], first: bytes, second: bytes) -> tuple[bool, int, bytes]:
            args = args + [0] * (6 - len(args))
            ours.sendall(
                struct.pack(f"=6QIII{ROOM}s{ROOM}s", *args, numbers[name], len(first), len(second), first, second)
                + bytes(4)
            )
            said = ours.recv(ANSWER.size, socket.MSG_WAITALL)
            assert len(said) == ANSWER.size, (name, args, first, second)
            forbidden, error, length, target = ANSWER.unpack(said)
            return bool(forbidden), error, target[:length]

        yield one
        ours.close()
        assert process.wait(PATIENCE_S) == 0
    shutil.rmtree(place)


NAMES = (
    "file dir sub empty fifo link loop here opened to lost over astray absolute none new other self . .. rw ro proc fd"
    " 10 11 12 cwd root thread-self exe"
).split()
NAME = st.sampled_from(NAMES).map(str.encode) | st.sampled_from([b"x" * 255, b"x" * 256, b"\xff\xfe"])
PATH = (
    st.tuples(
        st.sampled_from(b" / /ro/ /rw/ ../ro/ /proc/self/ /proc/self/cwd/ /proc/self/fd/".split(b" ")),
        st.lists(NAME, max_size=4),
        st.sampled_from([b"", b"", b"", b"/", b"//"]),
        st.sampled_from([0] * 8 + [500, 2040, 2047, 4094]),
    )
    .map(lambda parts: (parts[0] + b"./" * (parts[3] // 2) + b"/".join(parts[1]) + parts[2])[:ROOM - 1])
)  # fmt: skip
TEXT = PATH.map(lambda path: path + b"\0") | st.sampled_from([b"", b"/ro/file", b"x" * 4095, b"/" * 4096, b"/" * 8192])
"""With its end, or cut off where memory ends."""
DIR = st.sampled_from([-100, 10, 11, 12, -1, 99, 2**31, -(2**31)]).map(lambda fd: fd & 2**64 - 1)
OPEN_BITS = [
    os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_NOFOLLOW, os.O_APPEND, os.O_DIRECTORY, os.O_TMPFILE,
    os.O_PATH, os.O_CLOEXEC,
]  # fmt: skip
OPEN = st.lists(st.sampled_from(OPEN_BITS), max_size=4).map(lambda bits: os.O_NONBLOCK | sum(set(bits)) & 0xFFFFFF)
A, B = (st.just(one) for one in TEXTS)
MODE = st.sampled_from([0o777, 0o666])
AT = st.sampled_from([0, 0x100, 0x1000])
NOTHING = st.just(0)
CALLS: dict[str, list[st.SearchStrategy[int]]] = {
    "openat": [DIR, A, OPEN, MODE],
    "mkdirat": [DIR, A, MODE],
    "mknodat": [DIR, A, st.sampled_from([stat.S_IFREG | 0o666, stat.S_IFIFO | 0o666])],
    "symlinkat": [B, DIR, A],
    "unlinkat": [DIR, A, st.sampled_from([0, 0x200])],
    "renameat2": [DIR, A, DIR, B, st.sampled_from([0, 1, 2])],
    "truncate": [A],
    "fchmodat": [DIR, A, MODE],
    "utimensat": [DIR, A, NOTHING, AT],
    "ftruncate": [DIR],
    "fchmod": [DIR, MODE],
}

QUICK = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
MADE = ("openat", "mkdirat", "mknodat", "symlinkat")


@QUICK
@given(st.data())
def test_what_succeeds_is_not_forbidden_and_what_is_read_only_is(ask: Ask, data: st.DataObject) -> None:
    """A halted run is ended at the former. Of the latter the names are left out that were not there to be removed, and
    what is no file. A rename of a name to itself does nothing, wherever it stands."""
    name = data.draw(st.sampled_from(sorted(CALLS)))
    args = [data.draw(argument) for argument in CALLS[name]]
    first, second = data.draw(TEXT), data.draw(TEXT)
    forbidden, error, target = ask(name, args, first, second)
    said = (name, args, first[:100], second[:100], errno.errorcode.get(error), target[:100])
    assert error != 0 or not forbidden or name == "renameat2", said
    assert error != errno.EROFS or forbidden or name not in MADE, said


AT_CWD = -100 & 2**64 - 1


@pytest.mark.parametrize(
    ("name", "args", "path"),
    [
        ("openat", [AT_CWD, TEXTS[0], os.O_PATH | os.O_RDWR], b"/ro/file\0"),
        ("openat", [AT_CWD, TEXTS[0], os.O_PATH | os.O_CREAT | os.O_TRUNC], b"/ro/file\0"),
        ("openat", [AT_CWD, TEXTS[0], os.O_ACCMODE], b"/ro/file\0"),
        ("utimensat", [AT_CWD, TEXTS[0], 0, 0x100], b"/ro/here/\0"),
    ],
)
def test_what_looks_like_a_write_and_is_none(ask: Ask, name: str, args: list[int], path: bytes) -> None:
    assert ask(name, args, path, b"")[:2] == (False, 0)


@pytest.mark.parametrize(
    ("name", "args", "path"),
    [
        ("openat", [AT_CWD, TEXTS[0], os.O_WRONLY], b"/ro/file\0"),
        ("openat", [AT_CWD, TEXTS[0], os.O_ACCMODE | os.O_TRUNC], b"/ro/file\0"),
        ("openat", [AT_CWD, TEXTS[0], os.O_RDWR], b"/proc/self/fd/11\0"),
        ("openat", [10, TEXTS[0], os.O_WRONLY | os.O_CREAT, 0o600], b"new\0"),
        ("openat", [AT_CWD, TEXTS[0], os.O_WRONLY], b"/ro/" + b"./" * 2043 + b"file\0"),
        ("utimensat", [AT_CWD, TEXTS[0], 0, 0x100], b"/ro/link\0"),
    ],
)
def test_writes_are_forbidden_by_whatever_way(ask: Ask, name: str, args: list[int], path: bytes) -> None:
    assert ask(name, args, path, b"")[:2] == (True, errno.EROFS)
