"""The acts. Each returns what happened, in a sentence, or raises Unexpected when that is not what should happen."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
from typing import TYPE_CHECKING

from demo import evidence, living, manifests
from demo.by_hand import exchange, signed
from demo.cli import immure
from demo.expect import expect
from demo.ground import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from demo.ground import Ground
    from immured import RunResult
    from immured.wire.messages import Reply

__all__ = ["ACTS"]

WALLS = frozenset({"EROFS", "EACCES", "EPERM", "ENOENT"})
UNREACHED = frozenset({"ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED"})
MEMORY = "64M"
PIDS = 32
WALL = "1s"


def honest_work(ground: Ground) -> str:
    """A program reads what it may and writes where it may; the result is on the host, and belongs to the caller."""
    result = _run(ground, "honest.py", str(ground.input), str(ground.out))
    expect(result.cause == "exited" and result.exit_code == 0, result)
    report = ground.out / "report.json"
    counted = json.loads(report.read_text())
    expect(counted["words"] > 100, f"the report says {counted}")
    expect(report.stat().st_uid == ground.uid, f"the report belongs to uid {report.stat().st_uid}")
    return f"{result.stdout.decode().strip()}; out/report.json is there and belongs to {name_of(ground.uid)}"


def write_outside(ground: Ground) -> str:
    """Read-only input, the host's programs, a password file, a home, a path that climbs out: all refused."""
    own, climbing = f"{ground.input}/planted", f"{ground.out}/../planted"
    places = [own, climbing, "/usr/bin/planted", "/etc/passwd", "/root/planted"]
    result = _run(ground, "write_outside.py", *places)
    met = result.stdout.decode().split()
    expect(len(met) == len(places) and set(met) <= WALLS, f"the writes met {met}")
    expect(not any(ground.workspace.rglob("planted")), "a file was planted")
    named = {violation.path for violation in result.violations}
    expect({own, "/usr/bin/planted", "/etc/passwd"} <= named, f"only these were named: {named}")
    refused = f"{len(met)} of {len(places)} writes refused ({', '.join(sorted(set(met)))})"
    return f"{refused}, {len(named)} of them named in the result; nothing changed on the host"


def connect_out(ground: Ground) -> str:
    """An address on the internet, a port on the host, a host's abstract socket: nobody is reached."""
    name = secrets.token_hex(8)
    with socket.socket() as port, socket.socket(socket.AF_UNIX) as abstract:
        port.bind(("127.0.0.1", 0))
        abstract.bind("\0" + name)
        for listener in (port, abstract):
            listener.listen()
            listener.setblocking(False)
        result = _run(ground, "connect_out.py", "1.1.1.1:443", f"127.0.0.1:{port.getsockname()[1]}", f"@{name}")
        met = result.stdout.decode().split()
        expect(len(met) == 3 and set(met) <= UNREACHED, f"the connections met {met}")
        expect(not any(map(_somebody_came, (port, abstract))), "a listener on the host was reached")
    return f"internet {met[0]}, the host's port {met[1]}, the host's abstract socket {met[2]}"


def fork_bomb(ground: Ground) -> str:
    """Ended by the pids controller where there is one; where not, held by the weaker means until its time is over."""
    result = _run(ground, "fork_bomb.py", pids=PIDS, wall="2s")
    means = str(result.enforcement.get("pids", "nothing"))
    expect(result.cause in ({"pids"} if _by_cgroup(means) else {"pids", "timeout"}), result)
    how = "killed at" if result.cause == "pids" else "held at"
    return f"cause {result.cause}: {how} {PIDS} tasks by {means}; its whole tree is gone"


def memory_hog(ground: Ground) -> str:
    """Killed by the memory controller where there is one; where not, its own allocation fails."""
    result = _run(ground, "memory_hog.py", memory=MEMORY, wall="20s")
    means = str(result.enforcement.get("memory", "nothing"))
    if _by_cgroup(means):
        expect(result.cause == "oom", result)
        return f"cause oom: killed at {MEMORY} by {means}"
    expect(result.cause == "exited" and b"MemoryError" in result.stderr, result)
    return f"allocation failed (MemoryError) at {MEMORY}, held by {means}"


def past_its_time(ground: Ground) -> str:
    """Ended by the daemon's own deadline."""
    result = ground.client.run(["/bin/sleep", "600"], manifest=ground.manifest(wall=WALL))
    expect(result.cause == "timeout", result)
    return f"cause timeout: asked for 600 s, ended after {result.usage['wall_ms'] / 1000:.2f} s of {WALL}"


def tampered(ground: Ground) -> str:
    """One byte of a signed command changed on its way."""
    _, body = signed(ground.key, ground.daemon_key, "run", _tally(ground))
    bent = body.replace(b"tally.py", b"tally.pz")
    expect(bent != body, "nothing was changed")
    _, reply = _send(ground, bent)
    code = _code(reply.error)
    expect(not reply.ok and code == "bad_signature", f"the reply is {reply.error or reply.result}")
    expect(_tallied(ground) == 0, "the changed command ran")
    return f"refused: {code}; nothing ran"


def replayed(ground: Ground) -> str:
    """The same envelope twice."""
    ground.nonce, body = signed(ground.key, ground.daemon_key, "run", _tally(ground))
    first, reply = _send(ground, body)
    expect(reply.ok, f"the first was refused: {reply.error}")
    second, _ = _send(ground, body)
    expect(second == first, "the second reply is another one")
    expect(_tallied(ground) == 1, f"it ran {_tallied(ground)} times")
    return "the recorded reply again, byte for byte; it ran once"


def nonce_again(ground: Ground) -> str:
    """The nonce of that envelope on another command."""
    _, body = signed(ground.key, ground.daemon_key, "status", {}, ground.nonce)
    _, reply = _send(ground, body)
    code = _code(reply.error)
    expect(not reply.ok and code == "replayed", f"the reply is {reply.error or reply.result}")
    return f"refused: {code}"


def verified(ground: Ground) -> str:
    """Everything above is in the ledger, and the ledger is whole: checked offline, by the command line."""
    done = immure("ledger", "verify", "--state", str(ground.daemon.state), "--json")
    expect(done.returncode == 0, done.stdout + done.stderr)
    report = json.loads(done.stdout)
    return f"whole: {report['entries']} entries, linked and signed"


def flipped(ground: Ground) -> str:
    """One bit of one byte, in a copy."""
    copy = ground.workspace / "copy"
    shutil.copytree(ground.daemon.state / "ledger", copy / "ledger")
    (copy / "keys").mkdir()
    shutil.copy(ground.daemon.state / "keys" / "ledger.vkey", copy / "keys")
    line = _flip_one_bit(copy / "ledger" / "current.jsonl")
    done = immure("ledger", "verify", "--state", str(copy), "--json")
    expect(done.returncode == 1, f"exit status {done.returncode}: {done.stdout}{done.stderr}")
    found = json.loads(done.stdout)["problem"]
    expect(found["line"] == line, f"line {line} was changed, and line {found['line']} is named")
    return f"found: line {line}, {found['code']}"


ACTS: tuple[tuple[str, Callable[[Ground], str]], ...] = (
    ("honest work: read, count, write", honest_work),
    ("writes outside its allowance", write_outside),
    ("connections to the outside", connect_out),
    (f"a fork bomb, {PIDS} tasks allowed", fork_bomb),
    (f"a memory hog, {MEMORY} allowed", memory_hog),
    (f"a run past its time, {WALL} allowed", past_its_time),
    ("a sandbox that lives, and its files", living.lives),
    ("a change set, accepted as a whole", living.changes_accepted),
    ("the daemon killed, a sandbox alive", living.outlives_its_daemon),
    ("a signed manifest, loaded and run", manifests.loaded),
    ("its growth, under dual control", manifests.grown),
    ("preflight: would a run be let in?", manifests.foreseen),
    ("consent: asked, given, taken back", manifests.asked),
    ("an executable, pinned by its digest", manifests.pinned),
    ("a tampered envelope", tampered),
    ("a replayed envelope", replayed),
    ("its nonce on another command", nonce_again),
    ("the ledger, verified offline", verified),
    ("a copy with one bit flipped", flipped),
    ("one's own receipt, as a proof", evidence.proven),
    ("a witness, and a ledger written anew", evidence.cosigned),
    ("an export, and one line of it altered", evidence.compared),
)


def _run(ground: Ground, program: str, *arguments: str, **limits: object) -> RunResult:
    return ground.client.run(ground.argv(program, *arguments), manifest=ground.manifest(**limits))


def _send(ground: Ground, body: bytes) -> tuple[bytes, Reply]:
    with ground.as_user():
        return exchange(ground.daemon.socket, ground.daemon_key, body)


def _tally(ground: Ground) -> dict[str, object]:
    return {"argv": ground.argv("tally.py", str(ground.out / "tally")), "manifest": ground.manifest()}


def _tallied(ground: Ground) -> int:
    path = ground.out / "tally"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _flip_one_bit(path: Path) -> int:
    """Change the middle line's middle byte to another printable one. Returns the line's number, from 1."""
    lines = path.read_bytes().split(b"\n")
    number = len(lines) // 2
    line = bytearray(lines[number])
    line[len(line) // 2] ^= 1
    lines[number] = bytes(line)
    path.write_bytes(b"\n".join(lines))
    return number + 1


def _somebody_came(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _by_cgroup(means: str) -> bool:
    return means.startswith("cgroup")


def _code(error: Mapping[str, object] | None) -> str:
    return str((error or {}).get("code", ""))
