"""From [filesystem] to steps: what is mounted where, in an order in which nothing covers what it should not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.abi import Absent, BindFlag, Op
from immured.isolation.plan import Step
from immured.manifest.items import show
from immured.manifest.paths import beneath
from immured.manifest.protect import protected_places
from immured.manifest.schema import Tmpfs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from immured.manifest.schema import Bind, Manifest

__all__ = ["Grants", "View", "file_steps", "view_of"]

_PAGE: Final = 4096
_READ: Final = BindFlag(0)
_SHM: Final = b"/dev/shm"
_TMP: Final = b"/tmp"
_SHM_MAX: Final = 64 << 20
_SHM_SHARE: Final = 8  # an eighth of `disk`, at most _SHM_MAX
_MIN_INODES: Final = 1024
_MAX_INODES: Final = 1 << 18
_BYTES_PER_INODE: Final = 4096
_FILE_MODE: Final = 0o755  # so that a script or a program put in can be run


@dataclass(frozen=True, slots=True)
class Grants:
    """Directories of the operator's configuration: below them a path is opened by the daemon's own right."""

    read: tuple[bytes, ...] = ()
    write: tuple[bytes, ...] = ()

    def cover(self, path: bytes, *, write: bool) -> bool:
        """Whether the operator granted this path. What may be written may be read."""
        return any(beneath(path, one) for one in (self.write if write else (*self.read, *self.write)))


@dataclass(frozen=True, slots=True)
class View:
    """The steps that build what the payload sees, and what `file_steps` needs to know of it."""

    root: Step | None
    steps: tuple[Step, ...]
    writable: tuple[tuple[bytes, bool], ...]  # every mount: its place, whether the payload may write there
    closed: tuple[bytes, ...]  # protected and hidden


def view_of(manifest: Manifest, grants: Grants, *, learn: bool = False) -> View:
    """Mounts from the outer to the inner, then what is hidden and protected over them. `learn`: what is written goes to
    layers that end with the run.

    Raises Refused `bad_argument` where a run's tighter limit `disk` no longer holds the manifest's tmpfs sizes.
    """
    filesystem = manifest.filesystem
    protected = protected_places(filesystem)
    noexec = frozenset(filesystem.noexec)
    mounts = [(bind.target, False, _bind_step(bind, grants, noexec)) for bind in filesystem.read]
    writing = BindFlag.LAYER if learn else BindFlag.WRITE
    mounts += [(bind.target, True, _bind_step(bind, grants, noexec, write=writing)) for bind in filesystem.write]
    for one, size in _sized(manifest, {target for target, _, _ in mounts}):
        inodes = max(_MIN_INODES, min(_MAX_INODES, size // _BYTES_PER_INODE))
        operands = (size, inodes, one.mode, int(one.target in noexec))
        mounts.append((one.target, True, Step(Op.TMPFS, operands, (one.target,))))
    mounts.sort(key=lambda mount: _depth(mount[0]))
    covers = [(path, Step(Op.HIDE, (), (path,))) for path in filesystem.hide]
    covers += [(one.path, Step(Op.PROTECT, (int(Absent[one.absent.upper()]),), (one.path,))) for one in protected]
    covers.sort(key=lambda cover: _depth(cover[0]))
    return View(
        root=None if filesystem.root is None else Step(Op.ROOTFS, (), (filesystem.root,)),
        steps=(*(step for _, _, step in mounts), *(step for _, step in covers)),
        writable=tuple((target, write) for target, write, _ in mounts),
        closed=(*filesystem.hide, *(one.path for one in protected)),
    )


def file_steps(view: View, files: Mapping[bytes, bytes]) -> list[Step]:
    """The steps that put a run's files in. Raises Refused `bad_argument` for a place that is not the run's to write."""
    for path in files:
        if any(beneath(path, one) for one in view.closed):
            raise _misplaced(path, "which the manifest protects or hides")
        covering = [(len(target), write) for target, write in view.writable if beneath(path, target) and path != target]
        if not covering or not max(covering)[1]:
            raise _misplaced(path, "where this run cannot write")
    return [Step(Op.FILE, (_FILE_MODE,), (path, data)) for path, data in files.items()]


def _bind_step(bind: Bind, grants: Grants, noexec: frozenset[bytes], *, write: BindFlag = _READ) -> Step:
    flags = write
    if bind.noexec or bind.target in noexec:
        flags |= BindFlag.NOEXEC
    if bind.optional:
        flags |= BindFlag.OPTIONAL
    # A layer shows what the caller may read, and nothing by the daemon's right.
    if write is not BindFlag.LAYER and grants.cover(bind.source, write=bool(write)):
        flags |= BindFlag.GRANTED
    return Step(Op.BIND, (int(flags),), (bind.source, bind.target))


def _sized(manifest: Manifest, taken: set[bytes]) -> list[tuple[Tmpfs, int]]:
    """Every private file system with its size. Together they are at most the limit `disk`: /dev/shm has an eighth
    (64 MiB at most), those without a size of their own share the rest.
    """
    found = list(manifest.filesystem.tmpfs)
    named = {one.target for one in found} | taken
    if _TMP not in named:
        found.append(Tmpfs(_TMP))
    disk = manifest.limits.disk if manifest.limits.disk is not None else manifest.limits.memory
    if _SHM not in named:
        found.append(Tmpfs(_SHM, _page(min(_SHM_MAX, disk // _SHM_SHARE))))
    sharing = sum(one.size is None for one in found)
    rest = disk - sum(one.size or 0 for one in found)
    if manifest.limits.disk is not None and rest < sharing * _PAGE:
        raise Refused(
            "bad_argument",
            f"limits.disk of {disk} bytes does not hold the manifest's tmpfs sizes",
            "ask for more disk, or use a manifest with smaller ones",
            details={"field": "limits.disk"},
        )
    share = _page(rest // sharing) if sharing else 0
    return [(one, share if one.size is None else one.size) for one in found]


def _page(size: int) -> int:
    return max(_PAGE, size // _PAGE * _PAGE)


def _depth(path: bytes) -> tuple[int, bytes]:
    return path.count(b"/"), path


def _misplaced(path: bytes, why: str) -> Refused:
    return Refused(
        "bad_argument",
        f"files holds {show(path)}, {why}",
        "put it below /tmp, a tmpfs or a writable directory",
        details={"field": "files"},
    )
