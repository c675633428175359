"""Under each class, what its users do all day: a filter, a build, a shell, servers, a contestant's program. And what it
keeps from them. As the caller, who has a directory of his own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.programs.conftest import CALLER
from tests.walls.acting import AsUserError, as_user

As = Callable[..., RunResult]
AUTHOR = {f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def caller(daemon: ThrowawayDaemon, caller_key: Path) -> Callable[[Callable[[Client], Any]], Any]:
    """`caller(work)`: what `work(client)` gives, done by the caller."""

    def act(work: Callable[[Client], Any]) -> Any:
        def connected() -> Any:
            with daemon.client(caller_key) as client:
                return work(client)

        return as_user(CALLER, connected)

    return act


@pytest.fixture
def under(caller: Callable[[Callable[[Client], Any]], Any], project: Path) -> As:
    """`under(class, argv, writing=..., tables=..., **options)`: a run of the caller's."""

    def run(class_: str, argv: Sequence[str], *, tables: dict[str, Any] | None = None, **options: Any) -> RunResult:
        manifest = {"schema": 1, "name": "own", "class": class_, **(tables or {})}
        result: RunResult = caller(lambda client: client.run(list(argv), manifest=manifest, **options))
        return result

    return run


def shell(script: str) -> list[str]:
    return ["/bin/bash", "-euo", "pipefail", "-c", script]


def said(result: RunResult) -> str:
    """What a command that succeeds wrote to stdout."""
    assert (result.cause, result.exit_code) == ("exited", 0), (result, result.stderr.decode())
    return result.stdout.decode()


@contextmanager
def owned(path: Path) -> Iterator[Path]:
    """A new directory of the caller's."""
    path.mkdir()
    os.chown(path, CALLER, CALLER)
    yield path


# -- strict

WEAKER = {"limits": {"strict": False}}
"""Elsewhere than on a host with the controllers the class refuses, which is tested too."""


def test_strict_filters_text(under: As) -> None:
    result = under("strict", shell("sort | uniq -c | awk '{print $2, $1}'"), tables=WEAKER, stdin=b"b\na\nb\n")
    assert said(result) == "a 1\nb 2\n"


def test_strict_filters_with_an_interpreter(under: As) -> None:
    program = "import json, sys; print(sum(json.load(sys.stdin)), end='')"
    assert said(under("strict", ["python3", "-c", program], tables=WEAKER, stdin=b"[1, 2, 3]")) == "6"


@pytest.mark.needs_cgroup2
def test_strict_holds_its_limits_in_full(under: As) -> None:
    result = under("strict", ["/bin/cat"], stdin=b"as it is")
    assert said(result) == "as it is"
    assert result.enforcement["memory"] == "cgroup memory.max"
    assert result.enforcement["pids"] == "cgroup pids.max"


@pytest.mark.needs_cgroup2
def test_strict_ends_what_wants_too_much(under: As) -> None:
    assert under("strict", ["python3", "-c", "b'x' * (1 << 30)"]).cause == "oom"


def test_strict_holds_by_no_weaker_means(under: As, client: Client) -> None:
    """Where the controllers are, it runs; where one is missing, it says so and does not run."""
    weaker = client.plan(["/bin/true"], manifest={"schema": 1, "class": "strict", **WEAKER})["enforcement"]
    assert isinstance(weaker, dict)
    if all(weaker[name].startswith("cgroup") for name in ("memory", "pids", "cpus")):
        assert under("strict", ["/bin/true"]).exit_code == 0
        return
    with pytest.raises(AsUserError) as refused:
        under("strict", ["/bin/true"])
    assert refused.value.code == "weaker_enforcement"


def test_strict_takes_no_variables(under: As) -> None:
    with pytest.raises(AsUserError, match="lets no run set 'LD_PRELOAD'") as refused:
        under("strict", ["/bin/true"], tables=WEAKER, env={"LD_PRELOAD": "/tmp/x.so"})
    assert refused.value.code == "denied"


def test_strict_has_no_sockets(under: As) -> None:
    result = under("strict", ["python3", "-c", "import socket; socket.socket()"], tables=WEAKER)
    assert result.exit_code == 1
    assert b"PermissionError" in result.stderr


def test_strict_executes_nothing_that_it_was_given(under: As) -> None:
    program = Path("/bin/true").read_bytes()
    result = under("strict", shell("cp /tmp/given /tmp/own; chmod +x /tmp/own; /tmp/own || echo $?"), tables=WEAKER,
                   files={"/tmp/given": program})  # fmt: skip
    assert said(result) == "126\n"


def test_strict_ends_what_writes_elsewhere(under: As) -> None:
    result = under("strict", shell("echo x > /usr/x; echo went on"), tables=WEAKER)
    assert result.cause == "violation"
    assert b"went on" not in result.stdout


# -- build

MAKEFILE = """
CFLAGS = -O2 -Wall -Werror
program: main.o half.o
\tcc -o $@ $^
check: program
\t./program
.PHONY: check
"""
SERVER_TEST = """
import socket, threading
with socket.create_server(("127.0.0.1", 0)) as server:
    threading.Thread(target=lambda: server.accept()[0].sendall(b"tested")).start()
    print(socket.create_connection(server.getsockname()).recv(9).decode())
"""


@pytest.fixture
def checkout(project: Path) -> Iterator[Path]:
    """A repository of the caller's with a C program in it, and a commit."""
    with owned(project / f"checkout{os.urandom(3).hex()}") as place:
        files = {
            "half.h": "int half(int of);\n",
            "half.c": '#include "half.h"\nint half(int of) { return of / 2; }\n',
            "main.c": '#include <stdio.h>\n#include "half.h"\nint main(void) { return !printf("%d\\n", half(84)); }\n',
            "Makefile": MAKEFILE,
            "test_server.py": SERVER_TEST,
        }
        for name, text in files.items():
            (place / name).write_text(text)
            os.chown(place / name, CALLER, CALLER)
        git = ["git", "-C", str(place)]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run(
                [*git, *words], check=True, user=CALLER, group=CALLER, extra_groups=[],
                env={**AUTHOR, "PATH": os.environ["PATH"], "HOME": str(place)},
            )  # fmt: skip
        yield place


def writing(place: Path) -> dict[str, Any]:
    return {"filesystem": {"write": [str(place)]}, "command": {"cwd": str(place)}}


def test_build_compiles_in_parallel_and_tests_what_it_built(under: As, checkout: Path) -> None:
    result = under("build", ["make", "-s", "-j4", "check"], tables=writing(checkout), env={"CC": "gcc"})
    assert said(result) == "42\n"
    assert (checkout / "program").stat().st_uid == CALLER


def test_build_compiles_cplusplus(under: As, checkout: Path) -> None:
    script = """
printf '#include <algorithm>\\n#include <iostream>\\n#include <vector>\\n' > v.cc
printf 'int main() { std::vector<int> v{3,1,2}; std::sort(v.begin(), v.end()); std::cout << v[0] << v[2]; }' >> v.cc
g++ -O2 -std=c++17 -o v v.cc && ./v
"""
    assert said(under("build", shell(script), tables=writing(checkout))) == "13"


def test_build_tests_a_server_on_loopback(under: As, checkout: Path) -> None:
    assert said(under("build", ["python3", "test_server.py"], tables=writing(checkout))) == "tested\n"


@pytest.mark.parametrize(
    "path", [".git/hooks/pre-commit", ".git/config", ".envrc", ".mcp.json", "immure.toml", ".bashrc"]
)
def test_build_leaves_nothing_that_runs_later(under: As, checkout: Path, path: str) -> None:
    result = under("build", shell(f"echo x >> {path}"), tables=writing(checkout))
    assert result.exit_code == 1
    assert b"Read-only file system" in result.stderr or b"Permission denied" in result.stderr
    assert "x" not in (checkout / path).read_text().splitlines() if (checkout / path).exists() else True


def test_build_by_a_manifest_with_arguments_and_parameters(under: As, checkout: Path, project: Path) -> None:
    """What docs/manifest.md has as its example, as a caller would use it."""
    tables = {
        "command": {
            "allow": [{"program": "make", "arguments": [["-s", "-j${jobs}"], ["-s", "-j${jobs}", "${target}"]]}],
            "pin": False,
            "cwd": "${project}",
        },
        "filesystem": {"write": ["${project}"]},
        "parameters": {
            "project": {"type": "path", "within": [str(project)]},
            "jobs": {"type": "integer", "least": 1, "most": 16, "default": 4},
            "target": {"type": "text", "pattern": "a-z0-9_-", "longest": 32, "default": "all"},
        },
    }
    values: dict[str, Any] = {"project": str(checkout), "jobs": 2, "target": "check"}
    assert said(under("build", ["make", "-s", "-j2", "check"], tables=tables, parameters=values)) == "42\n"
    for argv, given, code in (
        (["make", "-s", "-j3", "check"], values, "denied"),
        (["make", "-s", "-j2", "check", "-f/dev/stdin"], values, "denied"),
        (["sh", "-c", "make"], values, "denied"),
        (["make", "-s", "-j2"], {**values, "project": "/etc"}, "bad_argument"),
        (["make", "-s", "-j2"], {"jobs": 2}, "bad_argument"),
    ):
        with pytest.raises(AsUserError) as refused:
            under("build", argv, tables=tables, parameters=given)
        assert refused.value.code == code


# -- interactive


def test_interactive_is_a_shell_with_git(caller: Callable[[Callable[[Client], Any]], Any], checkout: Path) -> None:
    """A person at a terminal: looks around, edits, sees what changed, commits to a clone and not in place."""
    from immured.client import Terminal

    manifest = {"schema": 1, "name": "own", "class": "interactive", **writing(checkout)}
    typed = (
        "stty -echo; PS1=''\n"
        "test -t 0 && echo a-terminal\n"
        "git log --format=%s; git status --porcelain\n"
        "sed -i s/84/86/ main.c; git diff --stat | cat\n"
        "git commit -q -a -m second || echo not-in-place\n"
        "git clone -q . /tmp/clone && cd /tmp/clone && sed -i s/84/88/ main.c && git commit -q -a -m third\n"
        "git log --format=%s | cat; exit\n"
    )

    def sit(client: Client) -> tuple[str, int | None]:
        with client.sandbox(manifest=manifest, env=AUTHOR, ttl="5m") as sandbox:
            run = sandbox.stream(
                ["/bin/bash", "--norc", "--noprofile", "-i"], terminal=Terminal(), stdin=typed.encode()
            )
            output = b"".join(data for _, data in run).decode().replace("\r\n", "\n")
            return output, run.result.exit_code

    output, exit_code = caller(sit)
    assert exit_code == 0, output
    lines = output.splitlines()
    assert "a-terminal" in lines
    assert any("main.c" in line and "|" in line for line in lines), output
    assert "not-in-place" in lines
    assert lines[-3:-1] == ["third", "first"] or lines[-2:] == ["third", "first"], output
    assert "86" in (checkout / "main.c").read_text()


# -- networked

SERVE = """
import http.server, threading, urllib.request, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8080), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
def ask(number):
    return len(urllib.request.urlopen("http://127.0.0.1:8080/").read()) > 0
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(32) as pool:
    print(sum(pool.map(ask, range(200))))
"""


def test_networked_serves_itself(under: As) -> None:
    assert said(under("networked", ["python3", "-c", SERVE])) == "200\n"


def test_networked_reaches_a_server_of_another_exec(caller: Callable[[Callable[[Client], Any]], Any]) -> None:
    def work(client: Client) -> str:
        with client.sandbox(manifest={"schema": 1, "name": "own", "class": "networked"}, ttl="5m") as sandbox:
            sandbox.start(["python3", "-m", "http.server", "8000", "--bind", "127.0.0.1", "--directory", "/usr/share"])
            fetch = "for i in $(seq 1000); do exec 3<>/dev/tcp/127.0.0.1/8000 && break; sleep 0.1; done 2>/dev/null"
            ask = f"{fetch}; printf 'HEAD / HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3"
            return sandbox.exec(["/bin/bash", "-c", ask]).stdout.decode()

    assert caller(work).startswith("HTTP/1.0 200")


def test_networked_reaches_nothing_of_the_host(under: As) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"""
import socket
for address in (("127.0.0.1", {port}), ("192.0.2.1", 80), ("10.0.0.1", 53)):
    try:
        socket.create_connection(address, timeout=5)
        print("reached", address)
    except OSError as error:
        print(type(error).__name__)
"""
        found = said(under("networked", ["python3", "-c", program])).split()
    assert "reached" not in found
    assert len(found) == 3


# -- judge

SOLUTION = r"""
#include <stdio.h>
int main(void) { long n, sum = 0; while (scanf("%ld", &n) == 1) sum += n; printf("%ld\n", sum); return 0; }
"""


@pytest.fixture(scope="module")
def solution(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A contestant's program, as it was compiled elsewhere."""
    place = tmp_path_factory.mktemp("solution")
    (place / "sum.c").write_text(SOLUTION)
    subprocess.run(["gcc", "-O2", "-o", place / "sum", place / "sum.c"], check=True)
    return (place / "sum").read_bytes()


def judged(under: As, program: bytes | str, stdin: bytes = b"", **limits: Any) -> RunResult:
    if isinstance(program, bytes):
        argv, files = shell("chmod +x /tmp/p; exec /tmp/p"), {"/tmp/p": program}
    else:
        argv, files = ["python3", "/tmp/p"], {"/tmp/p": program.encode()}
    return under("judge", argv, stdin=stdin, files=files, limits=limits or None)


def test_judge_runs_a_compiled_program(under: As, solution: bytes) -> None:
    result = judged(under, solution, b"1 2 3\n4")
    assert said(result) == "10\n"
    assert result.usage["cpu_ms"] < 5_000


def test_judge_runs_an_interpreted_one(under: As) -> None:
    assert said(judged(under, "print(sum(map(int, open(0).read().split())))", b"1 2 3")) == "6\n"


@pytest.mark.parametrize("runtime", [["node", "-e"], ["perl", "-e"]])
def test_judge_runs_other_runtimes(under: As, runtime: list[str]) -> None:
    program = {"node": "console.log(6 * 7)", "perl": "print 6 * 7, qq(\\n)"}[runtime[0]]
    assert said(under("judge", [*runtime, program])) == "42\n"


def test_judge_runs_java(under: As) -> None:
    """It needs more memory where the memory controller is missing, and its manifest says so."""
    source = "public class P { public static void main(String[] a) { System.out.println(6 * 7); } }"
    tables = {"limits": {"memory": "1G", "cpu_time": "60s", "wall": "120s"}}
    argv = ["java", "-Xmx64m", "-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "/tmp/P.java"]
    assert said(under("judge", argv, files={"/tmp/P.java": source.encode()}, tables=tables)) == "42\n"


def test_judge_ends_a_loop_by_its_processor_time(under: As) -> None:
    result = judged(under, "while True: pass", cpu_time="1s")
    assert result.cause == "cpu_time"


def test_judge_ends_a_sleep_by_its_wall_time(under: As) -> None:
    assert judged(under, "import time; time.sleep(60)", wall="500ms").cause == "timeout"


def test_judge_ends_endless_output(under: As) -> None:
    assert judged(under, "while True: print('x' * 4096)", output="1M").cause == "output_limit"


def test_judge_gives_no_more_memory(under: As) -> None:
    result = judged(under, "x = b'x' * (1 << 30); print(len(x))")
    assert result.cause == "oom" or (result.exit_code == 1 and b"MemoryError" in result.stderr)


def test_judge_gives_no_more_processes(under: As) -> None:
    program = "import os\nfor _ in range(200):\n    if os.fork() == 0:\n        import time; time.sleep(20)"
    result = judged(under, program)
    assert result.cause == "pids" or (result.exit_code == 1 and b"BlockingIOError" in result.stderr)


def test_judge_gives_no_second_processor(under: As) -> None:
    program = """
import os, time
children = []
began = time.monotonic()
for _ in range(2):
    if (child := os.fork()) == 0:
        while time.thread_time() < 1: pass
        os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
print(time.monotonic() - began)
"""
    assert float(said(judged(under, program))) > 1.8


def test_judge_keeps_a_program_from_what_is_not_its_own(under: As) -> None:
    """Neither a network nor the other tests, nor the caller's environment."""
    program = """
import json, os, socket
def refused(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"
print(json.dumps({
    "socket": refused(socket.socket),
    "written": refused(lambda: open("/usr/answer", "w")),
    "home": refused(lambda: os.listdir("/home")),
    "root": refused(lambda: os.listdir("/root")),
    "variables": sorted(set(os.environ) - {"PWD", "SHLVL", "_"}),
}))
"""
    found = json.loads(said(judged(under, program)))
    assert found["socket"] == "PermissionError"
    assert found["written"] in ("OSError", "PermissionError")
    assert (found["home"], found["root"]) == ("FileNotFoundError", "FileNotFoundError")
    assert found["variables"] == [
        "HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "TMPDIR", "TZ", "USER",
    ]  # fmt: skip


def test_judge_answers_the_same_twice(under: As) -> None:
    program = "print(hash('order'), list({'a', 'b', 'c'}))"
    assert judged(under, program).stdout == judged(under, program).stdout


def test_a_class_that_there_is_not_is_refused(client: Client) -> None:
    with pytest.raises(ImmuredError, match="which is no class") as refused:
        client.run(["/bin/true"], manifest={"schema": 1, "class": "wide"})
    assert refused.value.code == "manifest_invalid"
