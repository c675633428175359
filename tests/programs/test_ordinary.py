"""Ordinary programs under the default manifest: what a sandbox is for goes on working."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client

PYTHON = "/usr/bin/python3"
WALL = {"wall": "60s"}


def output(client: Client, *command: str, **how: Any) -> str:
    """What a command that succeeds wrote to stdout."""
    result = client.run(command, limits=WALL, **how)
    assert (result.cause, result.exit_code) == ("exited", 0), (result, result.stderr.decode())
    return result.stdout.decode()


def python(client: Client, program: str) -> str:
    return output(client, PYTHON, "-c", program)


def shell(client: Client, script: str, **how: Any) -> str:
    return output(client, "/bin/bash", "-euo", "pipefail", "-c", script, **how)


@pytest.fixture
def tree() -> Iterator[Path]:
    """A directory that the sandbox may be shown."""
    place = Path(tempfile.mkdtemp(prefix="immured-programs-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_threads(client: Client) -> None:
    program = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(16) as pool:
    print(sum(pool.map(int, range(100))))
"""
    assert python(client, program) == "4950\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(client: Client, method: str) -> None:
    program = f"""
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(3) as pool:
        print(pool.map(abs, [-1, -2, -3]))
"""
    assert shell(client, "cat > /tmp/pool.py; python3 /tmp/pool.py", stdin=program.encode()) == "[1, 2, 3]\n"


def test_shared_memory_and_semaphores(client: Client) -> None:
    program = """
from multiprocessing import Lock, shared_memory
block = shared_memory.SharedMemory(create=True, size=1 << 20)
with Lock():
    block.buf[:2] = b"ok"
    print(bytes(block.buf[:2]).decode())
block.close()
block.unlink()
"""
    assert python(client, program) == "ok\n"


def test_a_database_with_a_write_ahead_log(client: Client) -> None:
    program = """
import sqlite3
base = sqlite3.connect("/tmp/base.db")
print(*base.execute("pragma journal_mode = wal").fetchone())
with base:
    base.execute("create table t (a)")
    base.execute("insert into t values (42)")
print(*base.execute("select a from t").fetchone())
"""
    assert python(client, program) == "wal\n42\n"


def test_tls_has_its_ciphers_and_randomness(client: Client) -> None:
    program = (
        "import secrets, ssl; print(len(ssl.create_default_context().get_ciphers()) > 9, len(secrets.token_bytes(8)))"
    )
    assert python(client, program) == "True 8\n"


def test_an_event_loop_serves_on_the_loopback(client: Client) -> None:
    program = """
import asyncio

async def greet(reader, writer):
    writer.write((await reader.readline()).upper())
    writer.close()

async def main():
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    print((await reader.read()).decode(), end="")
    writer.close()
    server.close()
    child = await asyncio.create_subprocess_exec("true")
    print(await child.wait())

asyncio.run(main())
"""
    assert python(client, program) == "HELLO\n0\n"


def test_a_virtual_environment(client: Client) -> None:
    script = "python3 -m venv --without-pip /tmp/venv; /tmp/venv/bin/python -c 'import sys; print(sys.prefix)'"
    assert shell(client, script) == "/tmp/venv\n"


def test_a_compiler_and_what_it_makes(client: Client) -> None:
    source = b'#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n'
    assert shell(client, "cd /tmp; gcc -O2 -Wall -x c - -o hello; ./hello", stdin=source) == "hello\n"


def test_a_makefile(client: Client) -> None:
    rules = b"all: a b\n\t@cat a b\na b:\n\t@echo $@ > $@\n"
    assert shell(client, "cd /tmp; cat > Makefile; make -j2 -s", stdin=rules) == "a\nb\n"


def test_a_repository_that_is_read_only_is_cloned_and_committed_to(client: Client, tree: Path) -> None:
    author = {f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        surroundings = {**os.environ, **author, "GIT_CONFIG_GLOBAL": "/dev/null"}
        subprocess.run(["git", *command], cwd=tree, env=surroundings, check=True)
    script = f"""
git clone -q {tree} /tmp/clone
cd /tmp/clone
echo changed > file
git add file
git commit -q -m two
git gc -q
git log --format=%s
"""
    shown = {"filesystem": {"read": [str(tree)]}}
    assert shell(client, script, manifest={"schema": 1, **shown}, env=author) == "two\none\n"


def test_pipelines_substitutions_and_here_documents(client: Client) -> None:
    script = """
seq 1000 | sort -rn | head -n 1 || true
diff <(echo same) <(echo same) && echo equal
cat <<END
$((6 * 7))
END
test -e "$(mktemp)"
"""
    assert shell(client, script) == "1000\nequal\n42\n"


def test_jobs_in_the_background(client: Client) -> None:
    assert shell(client, "sleep 0.01 & true & wait; trap 'echo told' TERM; kill -TERM $$") == "told\n"


def test_perl(client: Client) -> None:
    program = 'use POSIX; print floor(7 / 2), " ", join(",", sort { $b <=> $a } 1..3), " ", `echo child`'
    assert output(client, "/usr/bin/perl", "-e", program) == "3 3,2,1 child\n"


@pytest.mark.parametrize("compression", ["--gzip", "--auto-compress"])
def test_archives_keep_links_modes_and_times(client: Client, compression: str) -> None:
    script = f"""
cd /tmp
mkdir -p one/deep
echo text > one/deep/file
chmod 640 one/deep/file
touch -d 2001-02-03T04:05:06Z one/deep/file
ln -s deep/file one/link
tar --create {compression} --file one.tar.gz one
rm -r one
tar --extract --preserve-permissions --file one.tar.gz
stat -c '%a %Y' one/deep/file
cat one/link
"""
    assert shell(client, script) == "640 981173106\ntext\n"


def test_who_and_where_it_is(client: Client) -> None:
    assert shell(client, "echo $(whoami) $(id -gn) $(hostname) $HOME") == "sandbox sandbox sandbox /tmp\n"


def test_text_is_utf_8(client: Client) -> None:
    assert shell(client, "locale charmap; python3 -c 'print(\"d\\u00e9j\\u00e0\".upper())'") == "UTF-8\nDÉJÀ\n"


def test_a_name_on_the_outside_fails_at_once_and_politely(client: Client) -> None:
    program = """
import socket
try:
    socket.create_connection(("example.com", 443), timeout=30)
except socket.gaierror as error:
    print("no such name")
"""
    assert python(client, program) == "no such name\n"


def test_a_script_that_wants_no_core_dumps_goes_on(client: Client) -> None:
    """What it sets is what it has: the limit stays where it writes none and starts no handler of the host's."""
    assert shell(client, "ulimit -c 0; ulimit -c; ulimit -c unlimited; ulimit -c") == "0\n0\n"


def test_the_limit_on_core_dumps_is_the_one_that_starts_no_handler(client: Client) -> None:
    assert python(client, "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))") == "(1, 1)\n"


@pytest.mark.needs_cgroup2  # elsewhere its shadow memory, which is address space alone, counts as memory
@pytest.mark.parametrize("sanitizer", ["address", "undefined"])
def test_a_program_under_a_sanitizer(client: Client, sanitizer: str) -> None:
    source = b'#include <stdio.h>\nint main(void) { return puts("clean") < 0; }\n'
    options = {"ASAN_OPTIONS": "detect_leaks=0"}  # its search for leaks traces its own threads
    assert (
        shell(client, f"cd /tmp; gcc -fsanitize={sanitizer} -x c - -o it; ./it", stdin=source, env=options) == "clean\n"
    )


@pytest.mark.needs_cgroup2
def test_leaks_are_searched_for_where_the_manifest_allows_tracing(client: Client) -> None:
    source = b"#include <stdlib.h>\nint main(void) { return !malloc(77); }\n"
    result = client.run(
        ["/bin/bash", "-c", "cd /tmp; gcc -fsanitize=address -x c - -o it; ./it"],
        manifest={"schema": 1, "syscalls": {"allow": ["ptrace"]}},
        stdin=source,
    )
    assert b"77 byte(s) leaked" in result.stderr
