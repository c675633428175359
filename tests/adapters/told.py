"""A host that is told, for importers: what exists is what a test says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from immured.adapters.imported import Imported

__all__ = ["LINKS", "Told", "filesystem", "verdicts"]

LINKS = {"/bin": "/usr/bin", "/sbin": "/usr/sbin", "/lib": "/usr/lib", "/lib64": "/usr/lib64"}


@dataclass
class Told:
    """`directories` and `files` exist, and belong to 1000; beneath `roots` they belong to root."""

    cwd: str = "/home/ann/project"
    home: str = "/home/ann"
    environment: Mapping[str, str] = field(default_factory=lambda: {"HOME": "/home/ann", "TMPDIR": "/home/ann/tmp"})
    directories: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=lambda: dict(LINKS))
    roots: tuple[str, ...] = ("/usr", "/etc", "/srv", "/tmp", "/opt")

    def __post_init__(self) -> None:
        self.directories |= {
            "/",
            self.cwd,
            self.home,
            "/tmp",
            "/usr/bin",
            "/usr/lib",
            "/usr/share",
            "/usr/local",
            "/srv",
        }
        for path in [*self.directories, *self.files]:
            parts = path.split("/")
            self.directories |= {"/".join(parts[:count]) or "/" for count in range(1, len(parts))}

    def kind(self, path: str) -> str | None:
        if path in self.links:
            return "link"
        return "directory" if path in self.directories else "file" if path in self.files else None

    def owner(self, path: str) -> int | None:
        path = self.real(path)
        if self.kind(path) is None:
            return None
        return 0 if any(path == one or path.startswith(one + "/") for one in self.roots) or path == "/" else 1000

    def real(self, path: str) -> str:
        for link, target in self.links.items():
            if path == link or path.startswith(link + "/"):
                return self.real(target + path[len(link) :])
        return path

    def text(self, path: str) -> str | None:
        return self.files.get(path)

    def program(self, name: str) -> str | None:
        return f"/usr/bin/{name}"

    def walk(self, top: str, depth: int) -> Iterator[str]:
        top = top.rstrip("/")
        for path in sorted([*self.directories, *self.files]):
            if path.startswith(top + "/") and path[len(top) + 1 :].count("/") < depth:
                yield path


def filesystem(imported: Imported) -> dict[str, object]:
    found = imported.manifest["filesystem"]
    assert isinstance(found, dict)
    return found


def verdicts(imported: Imported) -> dict[str, str]:
    return {one.source: one.verdict for one in imported.findings}
