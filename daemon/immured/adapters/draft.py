"""A manifest in the making: what a policy asks for, part by part, and what became of each part."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from immured.adapters.imported import Finding, Imported, Surroundings, invalid
from immured.wire.strict import shown

__all__ = ["OWN", "ROOMY", "Draft", "above", "beneath", "clean", "label"]

OWN: Final = ("/proc", "/sys", "/dev")
"""Where nothing can be placed: the sandbox has its own."""

ROOMY: Final[Mapping[str, object]] = {"memory": "8G", "pids": 4096, "files": 65536, "wall": "none", "disk": "none"}
"""Limits in place of a policy that has none."""

_PRIVATE: Final = ("/tmp", "/var/tmp")  # noqa: S108 - names, not files
_LABEL: Final = re.compile(r"[^a-z0-9_.-]+", re.ASCII)


def clean(path: str, cwd: str = "/") -> str:
    """A path in its shortest form, `..` taken away by name, from `cwd` where it is relative."""
    if "\0" in path:
        raise invalid(f"the path {shown(path)} holds a NUL")
    parts: list[str] = []
    for part in f"{cwd}/{path}".split("/") if not path.startswith("/") else path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def beneath(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or anything below it. Both clean."""
    return directory == "/" or path == directory or path.startswith(directory + "/")


def above(path: str) -> str:
    """The directory that it is in."""
    return path.rpartition("/")[0] or "/"


def label(text: str, otherwise: str) -> str:
    """A manifest's name from a policy's."""
    return _LABEL.sub("-", text.lower()).strip("-_.")[:64] or otherwise


@dataclass
class Draft:
    """Filled in by an importer; `finish` gives the result. Places are kept by target: what is placed later at one place
    takes the place of what was there.
    """

    name: str
    host: Surroundings
    root: str = "host"
    network: str = "none"
    profile: str = "default"
    findings: list[Finding] = field(default_factory=list)
    read: dict[str, dict[str, object]] = field(default_factory=dict)
    write: dict[str, dict[str, object]] = field(default_factory=dict)
    tmpfs: dict[str, dict[str, object]] = field(default_factory=dict)
    protect: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    hide: list[str] = field(default_factory=list)
    noexec: list[str] = field(default_factory=list)
    allow: list[str] = field(default_factory=list)
    deny: list[str] = field(default_factory=list)
    limits: dict[str, object] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    passed: list[str] | None = None
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def maps(self, source: str, words: str) -> None:
        self.say(source, "maps", words)

    def stricter(self, source: str, words: str) -> None:
        self.say(source, "stricter", words)

    def looser(self, source: str, words: str) -> None:
        self.say(source, "looser", words)

    def lost(self, source: str, words: str) -> None:
        self.say(source, "lost", words)

    def say(self, source: str, verdict: str, words: str) -> None:
        """Notes a finding, once."""
        found = Finding(source, verdict, words)
        if found not in self.findings:
            self.findings.append(found)

    def place_read(
        self, source: str, target: str | None = None, *, optional: bool = False, noexec: bool = False
    ) -> None:
        self._place(self.read, source, target or source, optional=optional, noexec=noexec)

    def place_write(
        self, source: str, target: str | None = None, *, optional: bool = False, noexec: bool = False
    ) -> None:
        self._place(self.write, source, target or source, optional=optional, noexec=noexec)

    def place_tmpfs(
        self, target: str, *, size: int | None = None, mode: int | None = None, noexec: bool = False
    ) -> None:
        self.forget(target)
        self.tmpfs[target] = {"path": target}
        if size is not None:
            self.tmpfs[target]["size"] = min(max(4096, size), 1 << 40)
        if mode is not None:
            self.tmpfs[target]["mode"] = f"{mode & 0o1777:04o}"
        if noexec:
            self.noexec.append(target)

    def forget(self, target: str) -> None:
        """Takes away what stands at `target` or below it: something is placed over it."""
        for places in (self.read, self.write, self.tmpfs):
            for known in [one for one in places if beneath(one, target)]:
                del places[known]
        self.noexec = [one for one in self.noexec if not beneath(one, target)]

    def placed(self, path: str) -> tuple[str, str] | None:
        """`(read | write | tmpfs, target)` of what `path` would be in; None: the root's own."""
        found = [
            (kind, one) for kind in ("read", "write", "tmpfs") for one in getattr(self, kind) if beneath(path, one)
        ]
        return max(found, key=lambda pair: len(pair[1]), default=None)

    def led(self, path: str, written: Iterable[str]) -> bool:
        """Whether a link leads to another place than the path's own, below one of those that are written, however that
        is spelled: a command before this one may have made it, so nothing is opened where it leads."""
        real = self.host.real(path)
        tops = [self.host.real(one) for one in written if one not in (path, "/")]
        at = above(path)
        while at != "/":
            place = self.host.real(at)
            if any(beneath(place, top) for top in tops) and real != place.rstrip("/") + path[len(at) :]:
                return True
            at = above(at)
        return False

    def leads(self, source: str) -> None:
        """Says so."""
        self.stricter(source, "a link that a command before this may have made: nothing is opened where it leads")

    def writable(self, path: str, source: str, *, optional: bool = False) -> bool:
        """Lets the host's `path` be written, in its own place; what cannot be is said. Returns whether it is a bind."""
        real = self.host.real(path)
        if any(beneath(real, own) for own in OWN):
            self.maps(source, f"{real} is the sandbox's own")
            return False
        if real in _PRIVATE:
            self.place_tmpfs(real)
            self.stricter(source, f"an empty {real} of the sandbox's own: the host's belongs to root")
            return False
        if self.host.kind(real) is None:
            if optional:
                self.stricter(source, f"{real} is not there, and is not made")
            return False
        if self.host.owner(real) == 0:
            self.lost(source, f"{real} belongs to root, and is only read: no tree of root's is ever writable")
            return False
        if real == "/":
            self.stricter(source, "the root is only read")
            return False
        self.place_write(real)
        return True

    def roomy(self, tool: str) -> None:
        """Limits for a tool that has none."""
        self.limits = {**ROOMY, **self.limits}
        said = ", ".join(f"{name} {value}" for name, value in ROOMY.items() if self.limits[name] == value)
        if said:
            self.stricter("limits", f"{tool} sets none; here: {said}, and no swap")

    def finish(self) -> Imported:
        """The result. The manifest names nothing that is the class's own anyway."""
        self._settle()
        filesystem: dict[str, object] = {"root": self.root}
        filesystem["read"] = [_entry(one) for one in self.read.values()]
        filesystem["write"] = [_entry(one) for one in self.write.values()]
        filesystem["tmpfs"] = [_entry(one) for one in self.tmpfs.values()]
        filesystem["protect"] = [f"@{one}" for one in self.groups] + [
            path if absent == "held" else {"path": path, "absent": absent} for path, absent in self.protect.items()
        ]
        hidden = list(dict.fromkeys(self.hide))
        filesystem["hide"] = [one for one in hidden if not any(one != top and beneath(one, top) for top in hidden)]
        filesystem["noexec"] = list(dict.fromkeys(self.noexec))
        command: dict[str, object] = {}
        if self.cwd is not None:
            command["cwd"] = self.cwd
        if self.variables:
            command["env"] = dict(self.variables)
        if self.passed is not None:
            command["pass_env"] = self.passed
        calls: dict[str, object] = {
            "profile": self.profile,
            "allow": sorted(set(self.allow)),
            "deny": sorted(set(self.deny)),
        }
        manifest: dict[str, object] = {
            "schema": 1,
            "name": self.name,
            "class": "default",
            "command": command,
            "filesystem": {name: value for name, value in filesystem.items() if value},
            "network": {"mode": self.network},
            "limits": dict(self.limits),
            "syscalls": {name: value for name, value in calls.items() if value},
        }
        return Imported(
            manifest={name: value for name, value in manifest.items() if value != {}},
            findings=tuple(self.findings),
            argv=self.argv,
            env=dict(self.env),
            cwd=self.cwd,
            files=dict(self.files),
        )

    def _settle(self) -> None:
        """Takes out what no manifest may name: places in the sandbox's own file systems, the root as a place, what is
        hidden anyway."""
        for places in (self.read, self.write, self.tmpfs):
            for target in [one for one in places if _fixed(one)]:
                del places[target]
                self.stricter(target, "nothing can be placed there")
        for target in [one for one in self.protect if _fixed(one)]:
            del self.protect[target]
            self.looser(target, "cannot be protected there: what is written is the sandbox's own")
        for target in [one for one in self.hide if _fixed(one)]:
            self.looser(target, "cannot be hidden: it is the sandbox's own, or the kernel's")
        self.hide = [one for one in self.hide if not _fixed(one)]
        for hidden in self.hide:
            self.forget(hidden)
            self.protect = {path: absent for path, absent in self.protect.items() if not beneath(path, hidden)}
        self.noexec = [one for one in self.noexec if one in self.tmpfs]

    def _place(
        self, places: dict[str, dict[str, object]], source: str, target: str, *, optional: bool, noexec: bool
    ) -> None:
        self.forget(target)
        entry: dict[str, object] = {"path": source}
        if target != source:
            entry["target"] = target
        if optional:
            entry["optional"] = True
        if noexec:
            entry["noexec"] = True
        places[target] = entry


def _fixed(path: str) -> bool:
    return path == "/" or any(beneath(path, own) for own in OWN)


def _entry(entry: Mapping[str, object]) -> object:
    return entry["path"] if len(entry) == 1 else dict(entry)
