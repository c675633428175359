"""An OCI bundle with the walls of a default run, as far as the runtime specification's words reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["Bundle", "make_root"]

_IDS: Final = [{"containerID": 0, "hostID": 0x70000000, "size": 65536}]
_NAMESPACES: Final = "user mount pid network ipc uts cgroup".split()
_MASKED: Final = "acpi interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats".split()
_READ_ONLY: Final = "bus fs irq sys sysrq-trigger".split()


def make_root(root: Path) -> Path:
    """A root directory with places for mounts, and links like a merged /usr has."""
    for name in ("usr", "etc", "proc", "sys", "dev", "tmp", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if (Path("/usr") / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")
    return root


class Bundle:
    """A directory with a root and a config.json; `holding` makes one for each command."""

    def __init__(self, place: Path, name: str) -> None:
        self.name = name
        self._place = place
        self._root = make_root(place / "root")
        self._made: dict[tuple[str, ...], Path] = {}

    def holding(self, command: Sequence[str]) -> Path:
        """The directory of a bundle that runs it."""
        key = tuple(command)
        if key not in self._made:
            directory = self._place / f"bundle-{len(self._made)}"
            directory.mkdir(mode=0o755)
            (directory / "config.json").write_text(json.dumps(self._config(command)))
            self._made[key] = directory
        return self._made[key]

    def _config(self, command: Sequence[str]) -> dict[str, Any]:
        none: dict[str, list[str]] = {kind: [] for kind in ("bounding", "effective", "permitted")}
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": 1000, "gid": 1000},
                "args": list(command),
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
                "capabilities": none,
                "noNewPrivileges": True,
            },
            "root": {"path": str(self._root), "readonly": True},
            "hostname": "sandbox",
            "mounts": [
                _mount("/proc", "proc"),
                _mount("/dev", "tmpfs", "nosuid", "mode=755", "size=65536k"),
                _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
                _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
                _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
                _mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nosuid"]},
            ],
            "linux": {
                "uidMappings": _IDS,
                "gidMappings": _IDS,
                "namespaces": [{"type": name} for name in _NAMESPACES],
                "maskedPaths": [f"/proc/{name}" for name in _MASKED],
                "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
            },
        }


def _mount(place: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}
