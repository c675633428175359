"""Every other runner that is installed, with the flags that come closest to a default run. None is ever required.

Each is tried once: one that refuses this host is in the report with its own words, not in the table.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.subjects import COMMAND
from bench.subjects.bundle import Bundle, make_root
from bench.subjects.spawned import Spawned
from bench.walls import NO_HOST_ROOT

__all__ = ["Refusal", "found"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A runner that is there and does not run here, in its own words."""

    name: str
    words: str


Maker = Callable[[str, Path], Spawned]


def found(stack: ExitStack) -> tuple[list[Spawned], list[Refusal], list[str]]:
    """Those that run here, those that refuse, and the names of those that are not installed."""
    running: list[Spawned] = []
    refused: list[Refusal] = []
    absent: list[str] = []
    for name, make in MAKERS.items():
        executable = shutil.which(name)
        if executable is None:
            absent.append(name)
            continue
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"immured-bench-{name}-")))
        place.chmod(0o755)
        subject = make(executable, place)
        words = refusal(subject)
        if words is None:
            running.append(subject)
        else:
            refused.append(Refusal(name, words))
    return running, refused, absent


def refusal(subject: Spawned) -> str | None:
    """None: it runs. Else the last that it said."""
    try:
        subject.output([COMMAND])
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        return said[-1] if said else f"exit status {error.returncode}, and no word"
    except subprocess.TimeoutExpired as error:
        return f"no end after {error.timeout:.0f} s"
    return None


def nsjail(executable: str, _: Path) -> Spawned:
    words = "-Mo --really_quiet --chroot / --user 65534 --group 65534 --tmpfsmount /tmp --tmpfsmount /dev"
    return _plain("nsjail", executable, words, end="--", told=[NO_HOST_ROOT])


def firejail(executable: str, _: Path) -> Spawned:
    words = "--quiet --noprofile --net=none --ipc-namespace --private-tmp --private-dev --caps.drop=all --nonewprivs"
    return _plain("firejail", executable, f"{words} --seccomp --noroot --hostname=sandbox", end="--")


def systemd_run(executable: str, _: Path) -> Spawned:
    walls = (
        "PrivateTmp PrivateDevices PrivateNetwork PrivateUsers PrivateIPC ProtectHostname ProtectKernelTunables"
        " ProtectControlGroups NoNewPrivileges DynamicUser"
    )
    words = ["--quiet", "--wait", "--pipe", "--collect", *(f"-p{wall}=yes" for wall in walls.split())]
    words += ["-pProtectSystem=strict", "-pProtectHome=tmpfs", "-pCapabilityBoundingSet=", "-pProtectProc=invisible"]
    words += ["-pSystemCallFilter=@system-service"]
    return _plain("systemd-run", executable, " ".join(words), end="--", told=[NO_HOST_ROOT])


def podman(executable: str, place: Path) -> Spawned:
    root = make_root(place / "root")
    (root / "var" / "tmp").mkdir(parents=True)
    for file in "etc/hosts etc/hostname etc/resolv.conf etc/passwd etc/group run/.containerenv".split():
        (root / file).touch()  # podman mounts its own there, and may not make them in a tree of root's
    words = "run --rm --network none --read-only --cap-drop all --security-opt no-new-privileges --ulimit host"
    words += " --uidmap 0:1879048192:65536 --gidmap 0:1879048192:65536 --user 1000:1000"
    words += f" --volume /usr:/usr:ro --tmpfs /tmp --hostname sandbox --rootfs {root}"
    return _plain("podman", executable, words, told=[NO_HOST_ROOT])


def runsc(executable: str, _: Path) -> Spawned:
    return _plain("runsc", executable, "--network=none --ignore-cgroups do --", told=[NO_HOST_ROOT])


def oci(name: str) -> Maker:
    """A low-level runtime with a bundle of ours."""

    def make(executable: str, place: Path) -> Spawned:
        bundle = Bundle(place, f"immured-bench-{name}")

        def words(command: Sequence[str]) -> list[str]:
            return [executable, "run", "--bundle", str(bundle.holding(command)), bundle.name]

        return Spawned(name, words, told=[NO_HOST_ROOT], how=f"`{name} run`, a minimal bundle with /usr bound")

    return make


def _plain(name: str, executable: str, words: str, *, end: str = "", told: Sequence[str] = ()) -> Spawned:
    before = [executable, *words.split(), *([end] if end else [])]
    return Spawned(name, lambda command: [*before, *command], told=told, how=f"`{name} {words}`")


MAKERS: Final[dict[str, Maker]] = {
    "nsjail": nsjail,
    "crun": oci("crun"),
    "runc": oci("runc"),
    "podman": podman,
    "firejail": firejail,
    "systemd-run": systemd_run,
    "runsc": runsc,
}
