"""Profiles that the operator put into DIR/profiles: read strictly at start, and there for manifests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError, RemoteError
from immured.host.facts import HostFacts
from immured.isolation.compile import RunSpec, compile_plan
from immured.isolation.profiles import SHIPPED
from immured.manifest.builtin import parse_map
from immured.service.profiles import read_profiles

DEFAULT = """\
schema = 1
about = "The default, where one call says that the disk is broken"
groups = [
  "process", "confine", "identity", "scheduling", "signals", "futexes", "time", "memory", "random", "files",
  "attributes", "events", "pipes", "ipc", "sockets",
]

[[rules]]
calls = ["sync"]
then = "errno:EIO"

[[rules]]
calls = ["getpriority"]
when = ["arg0 == 1"]
then = "kill"

[[rules]]
calls = ["getpriority"]
then = "allow"
"""
SYNC = "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall(162), ctypes.get_errno())"
ASK = "import os, sys; print(os.getpriority(int(sys.argv[1]), 0))"
MANIFEST = {"schema": 1, "syscalls": {"profile": "broken-disk"}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    return tmp_path / "profiles"


def put(directory: Path, name: str, text: str = DEFAULT) -> Path:
    path = directory / f"{name}.toml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def fault(directory: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as refusal:
        read_profiles(directory)
    assert refusal.value.code == "bad_profile"
    return refusal.value


def test_without_a_directory_there_are_the_packages(tmp_path: Path) -> None:
    assert read_profiles(tmp_path / "profiles") is SHIPPED


def test_a_profile_is_there_beside_the_packages(directory: Path) -> None:
    put(directory, "broken-disk")
    assert read_profiles(directory).names() == tuple(sorted(["broken-disk", *SHIPPED.names()]))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("mine", "schema = 1\nabuot = ''\n", "did you mean about?"),
        ("mine", DEFAULT.replace("sync", "mount").replace("errno:EIO", "allow"), "no profile can allow mount"),
        ("default", DEFAULT, "the package has a profile default"),
        ("My Own", DEFAULT, "a profile's name is"),
        ("mine", "#" * 300_000, "262144"),
        ("mine", "about = " + "[" * 9000, "nested too deeply"),
    ],
)
def test_a_fault_names_the_file(directory: Path, name: str, text: str, said: str) -> None:
    path = put(directory, name, text)
    message = fault(directory).message
    assert said in message
    assert str(path.parent) in message


@pytest.mark.parametrize("which", ["file", "directory"])
def test_a_profile_that_others_may_write_is_refused(directory: Path, which: str) -> None:
    path = put(directory, "mine")
    (path if which == "file" else directory).chmod(0o777)
    assert fault(directory).remedy.startswith("chown root")


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_regular_file_is_not_waited_for(directory: Path, kind: str) -> None:
    path = directory / "mine.toml"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir()
    assert re.search("mine.toml is no regular file|Is a directory: .*mine.toml", fault(directory).message)


def test_a_profile_of_too_many_rules_is_refused_at_once(directory: Path) -> None:
    rules = "".join(
        f"[[rules]]\ncalls = ['{call}']\nwhen = "
        f"{[f'arg{n}:64 in {at}..{1 << place | at}' for n in range(6)]}\nthen = 'errno:EIO'\n"
        for place, call in enumerate(("lseek", "dup", "flock", "readv", "pipe", "sync"), 40)
        for at in range(60)
    )
    put(directory, "mine", DEFAULT.split("[[rules]]", maxsplit=1)[0] + rules)
    assert "does not compile" in fault(directory).message


def test_the_plan_carries_the_installed_profiles_filter(directory: Path) -> None:
    put(directory, "broken-disk")
    profiles = read_profiles(directory)
    spec = RunSpec("a", (b"/bin/true",))
    default = compile_plan(parse_map({"schema": 1}), spec, HostFacts(cpus=4), profiles=profiles)
    other = compile_plan(parse_map(MANIFEST), spec, HostFacts(cpus=4), profiles=profiles)
    assert default.plan.pack() != other.plan.pack()


@pytest.fixture(scope="module")
def daemon() -> ThrowawayDaemon:
    made = ThrowawayDaemon()
    (made.state / "profiles").mkdir(mode=0o755)
    put(made.state / "profiles", "broken-disk")
    return made


@pytest.mark.needs_root
def test_a_manifest_uses_an_installed_profile(daemon: ThrowawayDaemon) -> None:
    with daemon, daemon.client() as client:
        done = client.run(["python3", "-c", SYNC], manifest=MANIFEST)
        assert done.stdout.split() == [b"-1", str(errno.EIO).encode()]
        kept, killed = (client.run(["python3", "-c", ASK, which], manifest=MANIFEST) for which in ("0", "1"))
        assert (kept.exit_code, killed.signal) == (0, 31)
        lines = map(json.loads, (daemon.state / "ledger" / "current.jsonl").read_text().splitlines())
        digest = f"sha256:{hashlib.sha256(DEFAULT.encode()).hexdigest()}"
        started = [line["data"]["profiles"] for line in lines if line["type"] == "daemon.started"]
        assert started == [{"broken-disk": digest}]
        with pytest.raises(RemoteError) as refusal:
            client.run(["/bin/true"], manifest={"schema": 1, "syscalls": {"profile": "broken-dsk"}})
        assert (refusal.value.code, refusal.value.remedy) == ("manifest_invalid", "did you mean broken-disk?")


@pytest.mark.needs_root
def test_a_daemon_does_not_start_with_a_profile_at_fault() -> None:
    daemon = ThrowawayDaemon()
    (daemon.state / "profiles").mkdir(mode=0o755)
    put(daemon.state / "profiles", "mine", DEFAULT.replace("schema = 1", "schema = 3"))
    with pytest.raises(ConfigurationError) as refusal, daemon:
        pass
    assert "bad_profile" in json.dumps(refusal.value.details)
