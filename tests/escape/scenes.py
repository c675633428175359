"""What stands around an idea: things of the caller's and of root's, listeners, victims, neighbours, accomplices.

A scene is a context manager by the name that an idea's `Scene:` gives. It is set twice, for the sandbox and for the
control; `stage.control` says for which. Everything is made below the tests' own directory, or is a process of theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from tests.escape.accomplices import (
    Exchanging,
    compile_library,
    connects,
    mounted,
    open_terminal,
    reads_by_a_look_and_an_open,
    writes_by_a_look_and_an_open,
)
from tests.escape.catalogue import HERE, Idea
from tests.escape.harness import CALLER, PLACE, Outcome, Scene, Verdict
from tests.patience import PATIENCE_S
from tests.warden.conftest import cgroup_mount

__all__ = ["SCENES", "set_scene"]

SECRET: Final = b"root's secret\n"
NEIGHBOUR: Final = (HERE / "neighbour.py").read_text()
ROUNDS: Final = 8
CAP_SYS_RESOURCE: Final = 24


@dataclass
class Stage:
    """What scenes are made of. `place` is a directory of this scene's alone, where the caller may look."""

    client: Client
    daemon: ThrowawayDaemon
    place: Path
    control: bool
    idea: Idea

    def directory(self, name: str, *, owner: int = CALLER, mode: int = 0o755) -> Path:
        path = self.place / name
        path.mkdir()
        os.chown(path, owner, owner)
        path.chmod(mode)
        return path

    def file(self, path: Path, content: bytes = b"a note\n", *, owner: int = CALLER, mode: int = 0o644) -> Path:
        path.write_bytes(content)
        os.chown(path, owner, owner)
        path.chmod(mode)
        return path


Make = Callable[[Stage], AbstractContextManager[Scene]]
SCENES: dict[str, Make] = {}


def scene(make: Callable[[Stage], Iterator[Scene]]) -> Callable[[Stage], Iterator[Scene]]:
    SCENES[make.__name__] = contextmanager(make)
    return make


def set_scene(
    client: Client, daemon: ThrowawayDaemon, ground: Path
) -> Callable[[Idea, bool], AbstractContextManager[Scene]]:
    """What builds an idea's scene."""

    @contextmanager
    def build(idea: Idea, control: bool) -> Iterator[Scene]:
        place = Path(tempfile.mkdtemp(dir=ground))
        place.chmod(0o755)
        try:
            with SCENES[idea.scene](Stage(client, daemon, place, control, idea)) as made:
                yield made
        finally:
            shutil.rmtree(place, ignore_errors=True)

    return build


@scene
def nothing(stage: Stage) -> Iterator[Scene]:
    yield Scene()


@scene
def several_times(stage: Stage) -> Iterator[Scene]:
    """For what a busy machine may keep from showing at the first try."""
    yield Scene(rounds=2)


# --- directories and files of the caller's ---------------------------------------------------------------------------


@scene
def note_of_the_callers(stage: Stage) -> Iterator[Scene]:
    """A directory bound read-only; for the control, to be written."""
    own = stage.directory("own")
    note = stage.file(own / "note")
    os.setxattr(note, "user.x", b"x")
    stage.directory("own/empty")
    yield Scene([str(note)], [(own, str(own), stage.control)])


@scene
def directory_of_the_callers(stage: Stage) -> Iterator[Scene]:
    """A writable directory, in which no setuid or setgid bit may be afterwards."""
    own = stage.directory("own")

    def look(outcome: Outcome) -> Verdict | None:
        planted = [path.name for path in own.rglob("*") if path.lstat().st_mode & 0o6000]
        return ("got", f"{planted} with the bit") if planted else None

    yield Scene([str(own)], [(own, str(own), True)], after=look)


@scene
def program_of_the_callers(stage: Stage) -> Iterator[Scene]:
    own = stage.directory("own")
    program = stage.file(own / "sleep", Path("/bin/sleep").read_bytes(), mode=0o755)
    yield Scene([str(program)], [(own, str(own), stage.control)])


@scene
def program_not_to_be_run(stage: Stage) -> Iterator[Scene]:
    own = stage.directory("own")
    program = stage.file(own / "true", Path("/bin/true").read_bytes(), mode=0o755)
    entry = {"path": str(own), "noexec": not stage.control}
    yield Scene([str(program)], manifest={"filesystem": {"read": [entry]}})


def something_kept(stage: Stage, cover: str) -> Scene:
    """own/above/kept/hook in a writable directory, and `kept` covered; for the control, not."""
    own = stage.directory("own")
    above = stage.directory("own/above")
    kept = stage.directory("own/above/kept")
    stage.file(kept / "hook")
    manifest = {} if stage.control else {"filesystem": {cover: [str(kept)]}}
    return Scene([str(above)], [(own, str(own), True)], manifest)


@scene
def protected_directory(stage: Stage) -> Iterator[Scene]:
    yield something_kept(stage, "protect")


@scene
def hidden_directory(stage: Stage) -> Iterator[Scene]:
    yield something_kept(stage, "hide")


@scene
def replaced_from_outside(stage: Stage) -> Iterator[Scene]:
    """A protected file in a writable directory, over which the caller renames another while the run lives."""
    own = stage.directory("own")
    kept = stage.file(own / "kept")
    other = stage.file(own / ".kept.new")

    def replace(_: str) -> str:
        other.rename(kept)
        return "replaced"

    manifest = {} if stage.control else {"filesystem": {"protect": [str(kept)]}}
    yield Scene([str(kept)], [(own, str(own), True)], manifest, judge=replace)


@scene
def secret_beside_a_bind(stage: Stage) -> Iterator[Scene]:
    """A file that the caller could read, and did not name."""
    place = Path(tempfile.mkdtemp(prefix="immured-escape-", dir="/var/tmp"))  # /tmp is another in every fence
    try:
        place.chmod(0o755)
        own = place / "own"
        own.mkdir()
        os.chown(own, CALLER, CALLER)
        secret = stage.file(place / "secret")
        target = "/tmp/own" if stage.control else "/mnt/own"
        yield Scene([target, str(secret)], [(own, target, True)])
    finally:
        shutil.rmtree(place)


@scene
def file_of_roots(stage: Stage) -> Iterator[Scene]:
    own = stage.directory("own")
    file = stage.file(own / "theirs", owner=CALLER if stage.control else 0)
    yield Scene([str(file)], [(own, str(own), True)])


@scene
def device_in_a_bind(stage: Stage) -> Iterator[Scene]:
    own = stage.directory("own")
    device = own / "null"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(device, CALLER, CALLER)
    device.chmod(0o666)
    yield Scene([str(device)], [(own, str(own), False)])


def a_root(stage: Stage) -> Path:
    """A directory that could be a run's root."""
    root = stage.directory("root")
    for name in ("dev", "proc", "tmp", "usr", "mnt"):
        (root / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    return root


@scene
def device_in_a_root(stage: Stage) -> Iterator[Scene]:
    root = a_root(stage)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(root / "null", CALLER, CALLER)
    (root / "null").chmod(0o666)
    if stage.control:
        yield Scene(["/mnt/null"], [(root, "/mnt", False)])
        return
    yield Scene(["/null"], manifest={"filesystem": {"root": str(root), "read": ["/usr"]}})


@scene
def mount_below(stage: Stage) -> Iterator[Scene]:
    """A directory of the caller's with a file system mounted in it, to be written and with devices."""
    own = stage.directory("own")
    below = stage.directory("own/below")
    with mounted(below, flags=0):
        os.chown(below, CALLER, CALLER)
        note = stage.file(below / "note")
        os.mknod(below / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chown(below / "null", CALLER, CALLER)
        (below / "null").chmod(0o666)
        yield Scene([str(note), str(below / "null")], [(own, str(own), False)])


@scene
def proc_below(stage: Stage) -> Iterator[Scene]:
    """The host's /proc, mounted again in a directory that is bound."""
    own = stage.directory("own")
    below = own / "below"
    below.mkdir()
    with mounted(below, "proc"):
        yield Scene([str(below)], [(own, str(own), False)])


@scene
def service_in_a_bind(stage: Stage) -> Iterator[Scene]:
    """A socket and a pipe of root's, open to all, in a directory of the caller's."""
    own = stage.directory("own")
    path = own / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o666)
        os.mkfifo(own / "pipe")
        (own / "pipe").chmod(0o666)
        yield Scene([str(path), str(own / "pipe")], [(own, str(own), False)])


@scene
def agent_in_a_bind(stage: Stage) -> Iterator[Scene]:
    own = stage.directory("own")
    path = own / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        os.chown(path, CALLER, CALLER)
        path.chmod(0o600)
        yield Scene([str(path)], [(own, str(own), False)])


# --- setuid ----------------------------------------------------------------------------------------------------------


@scene
def setuid_program(stage: Stage) -> Iterator[Scene]:
    """`id`, which says whom it runs as, as root's setuid program; for the control of a second name, the caller's."""
    own = stage.directory("own")
    programs = stage.directory("own/programs")
    carried = stage.idea.name == "setid/carry_over"
    owner = CALLER if carried and stage.control else 0
    program = stage.file(programs / "id", Path("/usr/bin/id").read_bytes(), owner=owner, mode=0o4755)
    writable = stage.directory("own/writable")
    if carried and stage.control:
        yield Scene([str(program), str(writable)], [(own, str(own), True)])
        return
    binds = [(programs, str(programs), False), (writable, str(writable), True)]
    yield Scene([str(program), str(writable)], binds)


@scene
def program_with_capabilities(stage: Stage) -> Iterator[Scene]:
    own = stage.directory("own")
    program = stage.file(own / "cat", Path("/bin/cat").read_bytes(), mode=0o755)
    # Version 2, effective, CAP_SYS_ADMIN permitted.
    os.setxattr(
        program, "security.capability", b"".join(n.to_bytes(4, "little") for n in (0x02000001, 1 << 21, 0, 0, 0))
    )
    yield Scene([str(program)], [(own, str(own), False)])


@scene
def preloaded_library(stage: Stage) -> Iterator[Scene]:
    library = compile_library(stage.place)
    path = f"{PLACE}/loaded.so"
    yield Scene(options={"env": {"LD_PRELOAD": path}, "files": {path: library}})


# --- descriptors -----------------------------------------------------------------------------------------------------


@contextmanager
def directory_of_the_host(stage: Stage) -> Iterator[int]:
    place = stage.directory("host", owner=0)
    stage.file(place / "immured-marker", owner=0)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.set_inheritable(fd, True)
        yield fd
    finally:
        os.close(fd)


@scene
def leaked_directory(stage: Stage) -> Iterator[Scene]:
    with directory_of_the_host(stage) as fd:
        yield Scene(fence_descriptors=[fd])


@scene
def working_directory_by_descriptor(stage: Stage) -> Iterator[Scene]:
    with directory_of_the_host(stage) as fd:
        by_number = f"/proc/self/fd/{fd if stage.control else 7}"
        yield Scene(options={"cwd": by_number}, fence={"cwd": by_number}, fence_descriptors=[fd])


@scene
def passed_directory(stage: Stage) -> Iterator[Scene]:
    with directory_of_the_host(stage) as fd:
        # An interpreter with a directory for a standard stream does not start.
        prefix = "exec 7<&2 2>/dev/null;"
        yield Scene(["7"], options={"fds": {2: fd}}, fence={"stderr": fd}, fence_descriptors=[fd], prefix=prefix)


@scene
def file_for_input(stage: Stage) -> Iterator[Scene]:
    path = stage.file(stage.place / "input", owner=0)
    with path.open("rb") as file:
        yield Scene(options={"fds": {0: file.fileno()}})


# --- processes and cgroups -------------------------------------------------------------------------------------------


@scene
def victim(stage: Stage) -> Iterator[Scene]:
    """A process of the caller's on the host."""
    with subprocess.Popen(
        ["/bin/sleep", "600"], user=CALLER, group=CALLER, extra_groups=[], start_new_session=True
    ) as one:
        try:

            def look(outcome: Outcome) -> Verdict | None:
                said = outcome.said()
                # An idea that cannot tell whether it ended somebody did so where nothing kept it from that.
                must = stage.control and said is not None and said[0] == "contained"
                return ("got", "the process") if said and ended(one, PATIENCE_S if must else 0.1) else None

            yield Scene([str(one.pid)], after=look)
        finally:
            one.kill()


def ended(process: subprocess.Popen[bytes], patience_s: float = 0.1) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    return process.returncode is not None


@scene
def oom_score(stage: Stage) -> Iterator[Scene]:
    """The values to try. Only where the daemon has CAP_SYS_RESOURCE, which not every container's root has, does the
    kernel take what it sets for a floor; elsewhere the payload can be as the host's own processes, and no better."""
    values = ["-1000", "-1"]
    effective = int(Path("/proc/self/status").read_text().split("CapEff:\t")[1].split()[0], 16)
    if stage.control or effective >> CAP_SYS_RESOURCE & 1:
        values += ["0", "499"]
    yield Scene(values)


@scene
def named_cgroup(stage: Stage) -> Iterator[Scene]:
    """A cgroup of the test's own for the control."""
    mount = cgroup_mount()
    if not stage.control or mount is None:
        yield Scene()
        return
    path = mount / f"immured-escape-{os.getpid()}"
    path.mkdir()
    try:
        yield Scene(fence={"cgroup": str(path)})
    finally:
        path.rmdir()


@scene
def mark_left_later(stage: Stage) -> Iterator[Scene]:
    """Whether something still lives is seen by what it writes, a while after the reply."""
    own = stage.directory("own")

    def wait(outcome: Outcome) -> Verdict | None:
        patience = threading.Event()
        for _ in range(1200 if stage.control else 20):
            if (own / "still-here").exists():
                return "got", "a life after the run"
            patience.wait(0.05)
        return None

    yield Scene([str(own)], [(own, str(own), True)], after=wait)


# --- networks and neighbours -----------------------------------------------------------------------------------------


@scene
def host_listener(stage: Stage) -> Iterator[Scene]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Scene([str(server.getsockname()[1])])


@scene
def host_abstract(stage: Stage) -> Iterator[Scene]:
    """Whoever comes is handed a directory."""
    name = f"immured-{secrets.token_hex(8)}"
    with directory_of_the_host(stage) as fd, socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                peer, _ = listener.accept()
                with peer:
                    socket.send_fds(peer, [b"x"], [fd])

        threading.Thread(target=serve, daemon=True).start()
        yield Scene([name])
        listener.shutdown(socket.SHUT_RDWR)


@scene
def connects_to_the_inside(stage: Stage) -> Iterator[Scene]:
    yield Scene(judge=lambda port: "reached" if connects(int(port)) else "refused")


@scene
def neighbour(stage: Stage) -> Iterator[Scene]:
    """Another sandbox, or for the control a process of the caller's, that offers one of everything."""
    name = f"immured-{secrets.token_hex(8)}"
    argv = ["/usr/bin/python3", "-BEsS", "-c", NEIGHBOUR, name]
    ours, theirs = os.pipe()
    offered = threading.Event()
    told = bytearray()

    def hear(data: bytes) -> None:
        told.extend(data)
        if told.endswith(b"\n"):
            offered.set()

    def live() -> None:
        if stage.control:
            with subprocess.Popen(
                argv, stdin=ours, stdout=subprocess.PIPE, user=CALLER, group=CALLER, extra_groups=[], cwd="/"
            ) as process:
                assert process.stdout is not None
                hear(process.stdout.readline())
        else:
            with stage.daemon.client() as client:
                client.run(argv, fds={0: ours}, stream=True, on_stdout=hear)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert offered.wait(PATIENCE_S)
        yield Scene([json.dumps({"name": name, **json.loads(told)})])
    finally:
        os.close(theirs)
        thread.join(PATIENCE_S)
        os.close(ours)


SIGNALS = (
    "import ctypes, resource; resource.setrlimit(resource.RLIMIT_SIGPENDING, (512, 512));"
    " print(ctypes.CDLL(None).timer_create(1, None, ctypes.byref(ctypes.c_void_p())))"
)
QUEUES = "import ctypes, os; print(ctypes.CDLL(None).mq_open(b'/immured-probe', os.O_CREAT | os.O_RDWR, 0o600, None))"
INOTIFY = "import ctypes; print(ctypes.CDLL(None).inotify_init())"


def shared(stage: Stage, probe: str) -> Scene:
    """While the idea holds all that it could take, another run of the same caller asks for one: in a sandbox of its
    own, or in the control as the same user outside."""
    argv = ["/usr/bin/python3", "-BEsS", "-c", probe]

    def ask(_: str) -> str:
        if stage.control:
            answer = subprocess.run(
                argv, capture_output=True, user=CALLER, group=CALLER, extra_groups=[], check=True, cwd="/"
            ).stdout
        else:
            with stage.daemon.client() as client:
                answer = client.run(argv).stdout
        return "none left" if answer.strip() == b"-1" else f"some: {answer!r}"

    return Scene(judge=ask)


@scene
def shared_pending_signals(stage: Stage) -> Iterator[Scene]:
    yield shared(stage, SIGNALS)


@scene
def shared_message_queues(stage: Stage) -> Iterator[Scene]:
    made = shared(stage, QUEUES)
    made.fence = {"rlimits": [(resource.RLIMIT_MSGQUEUE, 819_200)]}
    yield made


@scene
def shared_inotify(stage: Stage) -> Iterator[Scene]:
    yield shared(stage, INOTIFY)


@scene
def terminal(stage: Stage) -> Iterator[Scene]:
    """A pseudo-terminal of the host's, the caller's own."""
    with open_terminal() as (fd, name):
        os.chown(name, CALLER, CALLER)
        yield Scene([name], fence={"terminal": fd}, fence_descriptors=[fd])


@scene
def mount_that_comes_later(stage: Stage) -> Iterator[Scene]:
    """A shared mount is bound; once the run is there, something is mounted below it."""
    own = stage.directory("own")
    with contextlib.ExitStack() as stack:
        stack.enter_context(mounted(own))
        later = own / "later"
        later.mkdir()
        os.chown(own, CALLER, CALLER)
        os.chown(later, CALLER, CALLER)

        def mount_now(_: str) -> str:
            stack.enter_context(mounted(later))
            (later / "immured-marker").touch()
            return "done"

        yield Scene([str(own)], [(own, str(own), False)], judge=mount_now)


# --- what is brought back --------------------------------------------------------------------------------------------


@scene
def collects_a_link(stage: Stage) -> Iterator[Scene]:
    secret = stage.file(stage.place / "secret", SECRET, owner=0, mode=0o600)
    own = stage.directory("own")
    link = own / "link"

    def look(outcome: Outcome) -> Verdict | None:
        back = link.read_bytes() if stage.control else outcome.files.get(str(link), b"")
        return ("got", "root's secret") if SECRET in back else None

    binds = [(own, str(own), True)]
    yield Scene([str(secret), str(link)], binds, options={"collect": [str(link)]}, after=look)


@scene
def collects_a_pipe(stage: Stage) -> Iterator[Scene]:
    own = stage.directory("own")
    pipe = own / "pipe"

    def look(outcome: Outcome) -> Verdict | None:
        if not stage.control:
            return None if outcome.cause == "exited" else ("got", outcome.cause)
        with subprocess.Popen(["/bin/cat", pipe], stdout=subprocess.DEVNULL) as naive:
            waits = not ended(naive)
            naive.kill()
        return ("got", "who never returns") if waits else None

    yield Scene([str(pipe)], [(own, str(own), True)], options={"collect": [str(pipe)]}, after=look)


# --- races -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moved:
    """`path`, a directory in `own`, which is exchanged for `link`; and root's closed one.

    `real` is a descriptor of the directory: by name it cannot be told from the link.
    """

    own: Path
    path: Path
    link: Path
    real: int
    closed: Path


@contextmanager
def to_be_moved(stage: Stage, *, link: str | None = None) -> Iterator[Moved]:
    """Nothing moves yet. The link leads to `link`, or the closed directory."""
    stage.directory("closed", owner=0, mode=0o700)
    closed = stage.directory("closed/inner", owner=0)
    stage.file(closed / "secret", SECRET, owner=0)
    own = stage.directory("own")
    path = stage.directory("own/moving")
    (own / "link").symlink_to(link or closed)
    os.chown(own / "link", CALLER, CALLER, follow_symlinks=False)
    real = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Moved(own, path, own / "link", real, closed)
    finally:
        os.close(real)


@contextmanager
def moving(stage: Stage, *, link: str | None = None) -> Iterator[Moved]:
    """An accomplice who is the caller exchanges the two without end."""
    with to_be_moved(stage, link=link) as moved, Exchanging(moved.path, moved.link, uid=CALLER):
        yield moved


@scene
def race_read(stage: Stage) -> Iterator[Scene]:
    with moving(stage) as moved:
        yield Scene(["/mnt/moving"], [(moved.path, "/mnt/moving", False)], rounds=ROUNDS)


@scene
def race_write(stage: Stage) -> Iterator[Scene]:
    with moving(stage) as moved:
        yield Scene(["/mnt/moving"], [(moved.path, "/mnt/moving", True)], rounds=ROUNDS)


@scene
def race_root(stage: Stage) -> Iterator[Scene]:
    """Both directories could be a root, so that the idea could run in either."""
    with to_be_moved(stage) as moved:
        for root in (moved.path, moved.closed):
            for name in ("dev", "proc", "tmp", "usr"):
                (root / name).mkdir()
            for name in ("bin", "lib", "lib64"):
                (root / name).symlink_to(f"usr/{name}")
        with Exchanging(moved.path, moved.link, uid=CALLER):
            if stage.control:
                yield Scene(["/mnt/moving"], [(moved.path, "/mnt/moving", False)], rounds=ROUNDS)
            else:
                filesystem = {"root": str(moved.path), "read": ["/usr"]}
                yield Scene([""], manifest={"filesystem": filesystem}, rounds=ROUNDS)


@scene
def race_target(stage: Stage) -> Iterator[Scene]:
    with moving(stage, link="../../dev") as moved:
        data = stage.directory("data")
        stage.file(data / "immured-marker")
        binds = [(moved.own, "/mnt/own", True), (data, "/mnt/own/moving", True)]
        yield Scene(binds=binds, rounds=ROUNDS)


@scene
def race_tmpfs(stage: Stage) -> Iterator[Scene]:
    with moving(stage, link="../../dev") as moved:
        yield Scene(
            binds=[(moved.own, "/mnt/own", True)],
            manifest={"filesystem": {"tmpfs": ["/tmp", "/mnt/own/moving"]}},
            fence={"tmpfs": ["/mnt/own/moving"]},
            rounds=ROUNDS,
        )


@scene
def race_cwd(stage: Stage) -> Iterator[Scene]:
    with moving(stage, link="/proc/1/cwd") as moved:
        cwd = "/mnt/own/moving"
        binds = [(moved.own, "/mnt/own", True)]
        yield Scene([cwd], binds, options={"cwd": cwd}, fence={"cwd": cwd}, rounds=ROUNDS)


@scene
def race_collect(stage: Stage) -> Iterator[Scene]:
    with moving(stage, link="closed/secret") as moved:
        # The exchanged are a file and a link here.
        (moved.own / "link-to-root").symlink_to(moved.closed / "secret")
        file = stage.file(moved.own / "file")
        inside = f"/mnt/own/{file.name}"

        def look(outcome: Outcome) -> Verdict | None:
            back = reads_by_a_look_and_an_open(file) if stage.control else outcome.files.get(inside, b"")
            return ("got", "root's secret") if SECRET in back else None

        with Exchanging(file, moved.own / "link-to-root", uid=CALLER):
            binds = [(moved.own, "/mnt/own", True)]
            yield Scene(binds=binds, options={"collect": [inside]}, after=look, rounds=ROUNDS)


@scene
def race_files(stage: Stage) -> Iterator[Scene]:
    with moving(stage) as moved:
        dropped = moved.closed / "dropped"

        def look(outcome: Outcome) -> Verdict | None:
            if stage.control:
                writes_by_a_look_and_an_open(moved.path, "dropped", until=dropped)
            # Where it should be, it is removed for the next round: by a name it might be removed where it should not.
            with contextlib.suppress(FileNotFoundError):
                os.unlink("dropped", dir_fd=moved.real)
            return ("got", "a file in root's directory") if dropped.exists() else None

        yield Scene(
            binds=[(moved.own, "/mnt/own", True)],
            options={"files": {"/mnt/own/moving/dropped": b"x"}},
            after=look,
            rounds=ROUNDS,
        )
