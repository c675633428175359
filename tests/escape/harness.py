"""Runs an idea: in a sandbox of a real daemon as an unprivileged caller (as its run, or as an exec in one that lives),
and in its control."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from immured import Client, RunResult
from immured.errors import ImmuredError
from tests.escape.catalogue import HERE, Idea
from tests.patience import PATIENCE_S
from tests.warden.cell import Cell, Peer, Run, Wish, bind, file

ROOT: Final = HERE.parents[1]
PLACE: Final = "/tmp/idea"
WALL_S: Final = 100
"""Less than the patience of who waits for the result."""
CALLER: Final = 0x60000000 + os.getpid() % 0x10000
"""A uid that nobody on the host has: what it may do, it may do to the tests' own things alone."""

Verdict = tuple[str, str]
Judge = Callable[[str], str]


@dataclass
class Outcome:
    """What is known from outside of a run that ended. `cause` is `exited` for a control's."""

    stdout: bytes
    stderr: bytes = b""
    cause: str = "exited"
    signal: int | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def said(self) -> Verdict | None:
        """What the idea itself says."""
        for line in reversed(self.stdout.splitlines()):
            try:
                words = json.loads(line)
            except ValueError:
                continue
            if isinstance(words, dict) and (kind := next(iter(words), "")) in {"got", "contained"}:
                return kind, words[kind]
        return None

    def __str__(self) -> str:
        tail = self.stderr[-2000:].decode(errors="replace")
        return f"{self.cause}, signal {self.signal}: {self.stdout[-500:]!r}\n{tail}"


@dataclass
class Scene:
    """What stands around an idea. `binds`: (host's path, place inside, to be written).

    `prefix` is what a shell does before it. `judge` answers what the idea says with `holding`; `after` may give the
    verdict when the run is over, from outside: None leaves it to the idea. A race has several `rounds`.
    """

    arguments: Sequence[str] = ()
    binds: Sequence[tuple[Path | str, str, bool]] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    fence: Mapping[str, Any] = field(default_factory=dict)
    fence_descriptors: Sequence[int] = ()
    prefix: str = ""
    judge: Judge | None = None
    after: Callable[[Outcome], Verdict | None] = lambda outcome: None
    rounds: int = 1


class Broken(AssertionError):
    """An idea that said nothing, or what it should not have been able to meet."""


@cache
def numbers() -> bytes:
    """The module of this machine's system call numbers."""
    column = {"x86_64": 1, "aarch64": 2}[os.uname().machine]
    lines = (ROOT / "profiles/seccomp/numbers.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    known = {row[0]: int(row[column]) for row in rows if row[column] != "-"}
    return f"NUMBERS = {known}\n".encode()


def parts(idea: Idea) -> dict[str, bytes]:
    """What is put in, by its place below PLACE."""
    return {
        "main.py": idea.path.read_bytes(),
        "tests/escape/inside.py": (HERE / "inside.py").read_bytes(),
        "numbers_here.py": numbers(),
    }


def command(scene: Scene) -> list[str]:
    argv = ["/usr/bin/python3", "-BEsS", f"{PLACE}/main.py", *scene.arguments]
    return ["/bin/sh", "-c", f'{scene.prefix} exec "$@"', "sh", *argv] if scene.prefix else argv


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`other` over `one`; lists are joined."""
    result = dict(one)
    for key, value in other.items():
        if isinstance(value, Mapping):
            result[key] = merged(result.get(key, {}), value)
        elif isinstance(value, list):
            result[key] = [*result.get(key, []), *value]
        else:
            result[key] = value
    return result


Way = Callable[..., RunResult]
"""How a command is run: as `Client.run` takes it."""


def as_exec(client: Client) -> Way:
    """In a sandbox that lives, made for it, in which another ran before."""

    def run(argv: Sequence[str], *, manifest: Mapping[str, Any], timeout: float, **options: Any) -> RunResult:
        begin = {name: options.pop(name) for name in ("files", "env", "cwd") if name in options}
        with client.sandbox(manifest=manifest, **begin) as sandbox:
            sandbox.exec(["/bin/true"], cwd="/")
            result = sandbox.exec(argv, timeout=timeout, **options)
            # One that is killed with its sandbox ends for what ended that.
            cause = sandbox.refresh().cause if result.cause == "killed" else None
            return replace(result, cause=cause) if cause else result

    return run


def in_sandbox(idea: Idea, scene: Scene, run: Way, loosened: Mapping[str, Any] | None = None) -> Outcome:
    """The idea in a sandbox. What is refused before it runs has the refusal's code for its cause."""
    manifest = {"schema": 1, "name": "escape", "class": "default", "limits": {"wall": f"{WALL_S}s"}}
    manifest = merged(manifest, idea.manifest)
    manifest = merged(manifest, scene.manifest)
    for source, target, write in scene.binds:
        entry = {"path": str(source), "target": target}
        manifest = merged(manifest, {"filesystem": {"write" if write else "read": [entry]}})
    manifest = merged(manifest, loosened or {})
    options = dict(scene.options)
    options["files"] = {f"{PLACE}/{name}": data for name, data in parts(idea).items()} | options.get("files", {})
    stdout = bytearray()
    theirs, judge_end = os.pipe()
    if scene.judge:
        options["fds"] = {0: theirs, **options.get("fds", {})}
        options["on_stdout"] = lambda data: answer(scene.judge, data, stdout, judge_end)
    try:
        result = run(command(scene), manifest=manifest, timeout=PATIENCE_S, **options)
    except ImmuredError as refused:
        return Outcome(b"", str(refused).encode(), refused.code)
    finally:
        os.close(judge_end)
        os.close(theirs)
    cause = result.cause
    if result.failure is not None:
        return Outcome(b"", str(result.failure).encode(), str(result.failure["code"]))
    return Outcome(bytes(stdout) or result.stdout, result.stderr, cause, result.signal, result.files)


def answer(judge: Judge | None, data: bytes, stdout: bytearray, end: int) -> None:
    """Collects what the idea writes, and answers each whole line that asks."""
    before = len(stdout.splitlines()) if stdout.endswith(b"\n") else len(stdout.splitlines()) - 1
    stdout += data
    for line in stdout.splitlines(keepends=True)[max(before, 0) :]:
        if line.endswith(b"\n") and line.startswith(b'{"holding"') and judge:
            os.write(end, judge(json.loads(line)["holding"]).encode() + b"\n")


def in_fence(idea: Idea, scene: Scene, ground: Path, without: Sequence[str]) -> Outcome:
    """The idea in fence.py, without these walls."""
    scratch = Path(tempfile.mkdtemp(dir=ground))
    scratch.chmod(0o755)
    home = scratch / "home"
    for name, data in parts(idea).items():
        place = home / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    for name, data in scene.options.get("files", {}).items():
        if name.startswith(PLACE + "/"):
            place = home / name.removeprefix(PLACE + "/")
            place.write_bytes(data)
            place.chmod(0o755)
    spec = {
        "without": list(without),
        "uid": CALLER,
        "home": str(home),
        "scratch": str(scratch),
        "binds": [(str(source), target, write) for source, target, write in scene.binds],
        "argv": command(scene),
        "env": scene.options.get("env", {}),
        **scene.fence,
    }
    stdin = scene.options.get("fds", {}).get(0, subprocess.DEVNULL)
    process = subprocess.Popen(
        ["/usr/bin/python3", "-BEsS", str(HERE / "fence.py"), json.dumps(spec)],
        stdin=subprocess.PIPE if scene.judge else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=scene.fence_descriptors,
        start_new_session=True,
    )
    with process:
        stdout = bytearray()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                end = process.stdin.fileno() if process.stdin else -1
                answer(scene.judge, line, stdout, end)
            process.wait(PATIENCE_S)
        finally:
            process.kill()
        stderr = process.stderr.read() if process.stderr else b""
    return Outcome(bytes(stdout), stderr)


def without_filter(idea: Idea, scene: Scene, cell: Cell) -> Outcome:
    """The idea in a cell that has every wall but the filter."""
    mounts = [bind(source, target, int(write)) for source, target, write in scene.binds]
    files = [file(f"{PLACE}/{name}", data, 0o755) for name, data in parts(idea).items()]
    limits = tuple((number, value, value) for number, value in scene.fence.get("rlimits", []))
    wish = Wish(command(scene), mounts=[*mounts, *files], loopback=True, rlimits=limits, wall_s=WALL_S)
    run = cell.attempt(wish, Peer(CALLER, CALLER), in_memfd=True)
    assert isinstance(run, Run), run
    return Outcome(run.stdout, run.stderr, run.outcome.cause.name.lower())


@dataclass
class World:
    """Where ideas are tried. `scene(name, control)` builds what stands around one, `run` runs one in a sandbox."""

    run: Way
    ground: Path
    cell: Callable[[], Cell]
    scene: Callable[[Idea, bool], AbstractContextManager[Scene]]

    def contained(self, idea: Idea) -> tuple[Verdict, Outcome]:
        """The idea's verdict in the sandbox."""
        with self.scene(idea, False) as scene:
            verdict, outcome = ("silent", "never run"), Outcome(b"")
            for _ in range(scene.rounds):
                outcome = in_sandbox(idea, scene, self.run)
                verdict = scene.after(outcome) or self._contained(idea, outcome)
                if verdict[0] == "got":
                    break
            return verdict, outcome

    def _contained(self, idea: Idea, outcome: Outcome) -> Verdict:
        if said := outcome.said():
            return said
        end = {31: "SIGSYS", 25: "SIGXFSZ"}.get(outcome.signal or 0, outcome.cause)
        return ("contained", end) if end in idea.ends else ("silent", end)

    def control(self, idea: Idea) -> tuple[Verdict, Outcome]:
        """The idea's verdict where the wall is missing; a scene with more rounds is tried until it got something."""
        with self.scene(idea, True) as scene:
            verdict, outcome = ("silent", "never run"), Outcome(b"")
            for _ in range(4 * scene.rounds if scene.rounds > 1 else 1):
                outcome = self._control(idea, scene)
                verdict = scene.after(outcome) or outcome.said() or ("silent", outcome.cause)
                if verdict[0] == "got":
                    break
        return verdict, outcome

    def _control(self, idea: Idea, scene: Scene) -> Outcome:
        kind = idea.control.split()[0]
        if kind == "fence":
            return in_fence(idea, scene, self.ground, idea.without())
        if kind == "manifest":
            return in_sandbox(idea, scene, self.run, idea.loosened())
        if kind == "scene":
            return in_sandbox(idea, scene, self.run)
        assert idea.control == "no filter", idea.control
        return without_filter(idea, scene, self.cell())

    def lacking(self, idea: Idea) -> tuple[Verdict, Outcome]:
        """What root itself meets, of a kernel that lacks what the idea needs."""
        everything = ["ids", "capabilities", "new privileges", "view"]
        with self.scene(idea, True) as scene:
            outcome = in_fence(idea, scene, self.ground, everything)
        return outcome.said() or ("silent", ""), outcome
