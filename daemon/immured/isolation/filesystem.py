"""From [filesystem] to steps: what is mounted where, in an order in which nothing covers what it should not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.abi import Absent, BindFlag, ImageFlag, Op
from immured.isolation.plan import Step
from immured.manifest.items import show
from immured.manifest.paths import beneath
from immured.manifest.protect import protected_in_captures, protected_places
from immured.manifest.schema import Tmpfs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from immured.manifest.schema import Bind, Filesystem, Manifest

__all__ = ["Grants", "Saved", "View", "Volume", "file_steps", "view_of"]

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
class Volume:
    """A volume as the launcher names it (`TENANT/NAME`), and its bounds."""

    name: bytes
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A writable place of a snapshot: as the launcher names it (`TENANT/SNAPSHOT/N`), and where it stood."""

    name: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Grants:
    """What a plan may hold by the operator's or the tenant's right, not the caller's.

    `read` and `write`: directories of the operator's configuration, below which a path is opened by the daemon's own
    right. `volumes`: those that the manifest names, by name. `saved`: what a snapshot restores.
    """

    read: tuple[bytes, ...] = ()
    write: tuple[bytes, ...] = ()
    volumes: tuple[tuple[str, Volume], ...] = ()
    saved: tuple[Saved, ...] = ()

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
    mounts: list[tuple[bytes, bool, Step | None]] = [
        (bind.target, False, _bind_step(bind, grants, noexec)) for bind in filesystem.read
    ]
    writing = BindFlag.LAYER if learn else BindFlag.WRITE
    mounts += [(bind.target, True, _bind_step(bind, grants, noexec, write=writing)) for bind in filesystem.write]
    share = _sized(manifest, _bound(filesystem))[1]
    mounts += [(bind.target, True, _capture_step(bind, share, noexec)) for bind in filesystem.capture]
    volumes = dict(grants.volumes)
    for volume in filesystem.volumes:
        mounts.append((volume.target, True, _volume_step(volumes[volume.name], volume.target, noexec)))
    saved = {one.target: one.name for one in grants.saved}
    for one, size in _sized(manifest, {target for target, _, _ in mounts})[0]:
        inodes = max(_MIN_INODES, min(_MAX_INODES, size // _BYTES_PER_INODE))
        operands = (size, inodes, one.mode, int(one.target in noexec))
        step = Step(Op.TMPFS, operands, (one.target,))
        if one.target in saved:
            flags = BindFlag.GRANTED | (BindFlag.NOEXEC if one.target in noexec else _READ)
            step = Step(Op.RESTORE, (int(flags), size, inodes), (saved.pop(one.target), one.target))
        mounts.append((one.target, True, step))
    if filesystem.root_layer:
        mounts.append((b"/", True, None))
    mounts.sort(key=lambda mount: _depth(mount[0]))
    covers = [(path, Step(Op.HIDE, (), (path,))) for path in filesystem.hide]
    captured = {target + b"/" + name for target, names in protected_in_captures(filesystem).items() for name in names}
    covers += [
        (one.path, Step(Op.PROTECT, (int(Absent[one.absent.upper()]),), (one.path,)))
        for one in protected
        if one.path not in captured  # what is written there is the layer's, and never accepted
    ]
    covers.sort(key=lambda cover: _depth(cover[0]))
    return View(
        root=_root_step(manifest),
        # What was saved of a layer, it begins with: the layer's own step makes it.
        steps=(
            *(_restore_step(manifest, target, name) for target, name in saved.items()),
            *(step for _, _, step in mounts if step is not None),
            *(step for _, step in covers),
        ),
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
    flags, strings = _sources(bind, flags)
    return Step(Op.BIND, (int(flags),), strings)


def _sources(bind: Bind, flags: BindFlag) -> tuple[BindFlag, tuple[bytes, ...]]:
    """A source that a parameter filled in stays beneath its directory, whatever links stand there."""
    if bind.beneath is None:
        return flags, (bind.source, bind.target)
    return flags | BindFlag.BENEATH, (bind.source, bind.target, bind.beneath)


def _capture_step(bind: Bind, size: int, noexec: frozenset[bytes]) -> Step:
    flags = BindFlag.NOEXEC if bind.noexec or bind.target in noexec else _READ
    inodes = max(_MIN_INODES, min(_MAX_INODES, size // _BYTES_PER_INODE))
    flags, strings = _sources(bind, flags)
    return Step(Op.CAPTURE, (int(flags), size, inodes), strings)


def _bound(filesystem: Filesystem) -> set[bytes]:
    """Where something of the caller's stands, and no file system of the sandbox's own."""
    return {one.target for one in (*filesystem.read, *filesystem.write, *filesystem.capture)}


def _volume_step(volume: Volume, target: bytes, noexec: frozenset[bytes]) -> Step:
    flags = BindFlag.NOEXEC if target in noexec else _READ
    return Step(Op.VOLUME, (int(flags), volume.bytes, volume.files), (volume.name, target))


def _restore_step(manifest: Manifest, target: bytes, name: bytes) -> Step:
    return Step(Op.RESTORE, (int(BindFlag.GRANTED), disk_of(manifest), _MAX_INODES), (name, target))


def _root_step(manifest: Manifest) -> Step | None:
    filesystem = manifest.filesystem
    if filesystem.image is not None:
        size = _layer_size(manifest) if filesystem.root_layer else 0
        inodes = max(_MIN_INODES, min(_MAX_INODES, size // _BYTES_PER_INODE)) if filesystem.root_layer else 0
        flags = ImageFlag.LAYER if filesystem.root_layer else ImageFlag(0)
        return Step(Op.IMAGE, (int(flags), size, inodes), (filesystem.image.encode(),))
    return None if filesystem.root is None else Step(Op.ROOTFS, (), (filesystem.root,))


def _layer_size(manifest: Manifest) -> int:
    """A layered root's share: as much as a tmpfs without a size of its own has."""
    return _sized(manifest, _bound(manifest.filesystem))[1]


def disk_of(manifest: Manifest) -> int:
    """Bytes that all that is written to memory may take together, by the limit `disk`, or else by `memory`."""
    return manifest.limits.disk if manifest.limits.disk is not None else manifest.limits.memory


def _sized(manifest: Manifest, taken: set[bytes]) -> tuple[list[tuple[Tmpfs, int]], int]:
    """Every private file system with its size. Together they are at most the limit `disk`: /dev/shm has an eighth
    (64 MiB at most), those without a size of their own share the rest, layers among them: that share second.
    """
    found = list(manifest.filesystem.tmpfs)
    named = {one.target for one in found} | taken
    if _TMP not in named:
        found.append(Tmpfs(_TMP))
    disk = manifest.limits.disk if manifest.limits.disk is not None else manifest.limits.memory
    if _SHM not in named:
        found.append(Tmpfs(_SHM, _page(min(_SHM_MAX, disk // _SHM_SHARE))))
    sharing = sum(one.size is None for one in found) + manifest.filesystem.root_layer
    sharing += len(manifest.filesystem.capture)
    rest = disk - sum(one.size or 0 for one in found)
    if manifest.limits.disk is not None and rest < sharing * _PAGE:
        raise Refused(
            "bad_argument",
            f"limits.disk of {disk} bytes does not hold the manifest's tmpfs sizes",
            "ask for more disk, or use a manifest with smaller ones",
            details={"field": "limits.disk"},
        )
    share = _page(rest // sharing) if sharing else 0
    return [(one, share if one.size is None else one.size) for one in found], share


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
