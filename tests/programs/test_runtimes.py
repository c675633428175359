"""Language runtimes and their package managers, as they are installed on the host."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

import pytest

from immured import Client

PYTHON = "/usr/bin/python3"
WALL = {"wall": "60s"}


def shell(client: Client, script: str, **how: object) -> str:
    """What a script that succeeds wrote to stdout."""
    result = client.run(["/bin/bash", "-euo", "pipefail", "-c", script], limits=WALL, **how)  # type: ignore[arg-type]
    assert (result.cause, result.exit_code) == ("exited", 0), (result, result.stderr.decode())
    return result.stdout.decode()


def wheel() -> bytes:
    """`greeting-1.0-py3-none-any.whl`: a module, a console script, and a RECORD that holds."""
    info = "greeting-1.0.dist-info"
    files = {
        "greeting.py": b"def main():\n    print('hello from a wheel')\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\ngreet = greeting:main\n",
    }
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


@pytest.mark.slow
def test_pip_installs_a_wheel_into_a_virtual_environment(client: Client) -> None:
    script = f"""
{PYTHON} -m venv /tmp/venv
/tmp/venv/bin/pip install -q --no-index --disable-pip-version-check /tmp/greeting-1.0-py3-none-any.whl
/tmp/venv/bin/greet
/tmp/venv/bin/pip uninstall -q -y greeting
! /tmp/venv/bin/python -c 'import greeting' 2> /dev/null
"""
    assert shell(client, script, files={"/tmp/greeting-1.0-py3-none-any.whl": wheel()}) == "hello from a wheel\n"


def node(client: Client, program: str) -> str:
    return shell(client, 'exec "$(command -v node || command -v nodejs)" -e "$PROGRAM"', env={"PROGRAM": program})


def test_node_computes(client: Client) -> None:
    assert node(client, "console.log([1, 2, 3].map(n => n * n).join())") == "1,4,9\n"


def test_node_uses_its_thread_pool_and_children(client: Client) -> None:
    program = """
const { execFileSync } = require("child_process");
const fs = require("fs/promises");
const crypto = require("crypto");
(async () => {
  await fs.writeFile("/tmp/note", "kept");
  console.log((await fs.readFile("/tmp/note")).toString());
  await new Promise(done => crypto.pbkdf2("a", "b", 1000, 32, "sha256", done));
  console.log(execFileSync("/bin/echo", ["child"]).toString().trim());
})();
"""
    assert node(client, program) == "kept\nchild\n"


def test_node_serves_and_asks_on_the_loopback(client: Client) -> None:
    program = """
const http = require("http");
const server = http.createServer((_, answer) => answer.end("served")).listen(0, "127.0.0.1", () =>
  http.get(server.address(), answer => answer.on("data", text => console.log(text.toString()))
                                            .on("end", () => server.close())));
"""
    assert node(client, program) == "served\n"


def test_node_runs_workers(client: Client) -> None:
    program = """
const { Worker } = require("worker_threads");
new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true })
  .on("message", answer => console.log(answer));
"""
    assert node(client, program) == "42\n"


def test_asyncio_talks_to_its_children(client: Client) -> None:
    program = """
import asyncio, sys

async def double(number):
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(int(input()) * 2)", stdin=-1, stdout=-1)
    said, _ = await child.communicate(str(number).encode())
    return int(said)

async def main():
    print(await asyncio.gather(*map(double, range(5))))
    slow = await asyncio.create_subprocess_shell("sleep 60")
    slow.terminate()
    print(await slow.wait())

asyncio.run(main())
"""
    assert shell(client, f"{PYTHON} -", stdin=program.encode()) == "[0, 2, 4, 6, 8]\n-15\n"
