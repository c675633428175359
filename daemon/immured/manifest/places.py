"""What a manifest lets a run do at any place inside. Pure.

Every path inside has the rights of the innermost mount around it, less what hides or protects it. Where the innermost
mount, a hidden or a protected place changes, rights change, and nowhere else: so two manifests are compared whole by
comparing them at the places that either of them names (`Places.points`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from immured.manifest.paths import ALWAYS_MOUNTED, beneath
from immured.manifest.protect import protected_places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from immured.manifest.schema import Bind, Filesystem

__all__ = ["HOST_PROGRAMS", "Enclosing", "Place", "Places", "Right", "moved", "places_of"]

HOST_PROGRAMS: Final = (b"/usr", b"/bin", b"/sbin", b"/lib", b"/lib32", b"/lib64", b"/libx32")
"""Of the root `host`: what is the host's, under its own path, and all of it. The rest is made anew, or a few files."""


_MAX_KNOWN: Final = 1024


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One thing that may be done at a place. `what`: to which host path, volume (`NAME/PATH`) or image it is done.

    kind is one of
    read     the host path is read there            host    the host's own few files, as the root `host` shows them
    write    the host path is written there         image   the image's path is read there
    capture  written to a layer, to be accepted     volume  the volume's path is read there
    put      something can be written there         fill    the volume's path is written there
    execute  what lies there can be executed        links   symbolic links may lead to elsewhere on the host
    """

    kind: str
    what: bytes = b""


@dataclass(frozen=True, slots=True)
class Place:
    """What is at one place. `hidden`, `protected`: by which path, where it is."""

    rights: frozenset[Right]
    hidden: bytes | None = None
    protected: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Mount:
    """`sees`, `does`: kinds of rights whose object is `source` and what lies below it; `can`: those without one."""

    source: bytes
    sees: tuple[str, ...]
    does: tuple[str, ...]
    can: frozenset[Right]

    @property
    def writable(self) -> bool:
        return Right("put") in self.can


class Places:
    """One manifest's [filesystem]. `places_of` remembers those of the last ones."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._mounts = _mounts(filesystem)
        self._hidden = frozenset(filesystem.hide)
        self.absent: Final = {one.path: one.absent for one in protected_places(filesystem)}
        """Every protected place, and what becomes of it where it is not there."""
        self.points: Final = frozenset((*self._mounts, *self._hidden, *self.absent))
        self._around = Enclosing(self.points)
        # What is read-only already stays so; what stands in a captured directory is held back from being accepted.
        self._protected = {path for path in self.absent if self._mount(path)[1].writable}
        self._known: dict[bytes, Place] = {}
        self._filesystem = filesystem

    def withheld(self, path: bytes, right: Right) -> bool:
        """Whether it is hidden or protected places alone that keep from this."""
        place = self.at(path)
        if right in place.rights or (place.hidden is None and place.protected is None):
            return False
        return right in places_of(replace(self._filesystem, hide=(), protect=())).at(path).rights

    def at(self, path: bytes) -> Place:
        """What may be done at this path inside."""
        found = self._known.get(path)
        if found is None:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            found = self._known[path] = self._at(path)
        return found

    def _at(self, path: bytes) -> Place:
        above = self._around.of(path)
        for one in above:
            if one in self._hidden:
                return Place(frozenset(), hidden=one)
        target, mount = self._mount(path)
        if target == b"/" != path and mount.sees == ("host",):
            return Place(frozenset())  # nothing is there
        does, can = mount.does, mount.can
        closed = [one for one in above if one in self._protected]
        for one in closed:
            if not self._is_held_back(one):
                does, can = (), can - {Right("put")}
            elif self._mount(one)[0] == target:
                does = ()  # the layer is written to there, and that is never accepted
        source = _below(mount.source, target, path)
        rights = can.union(Right(kind, source) for kind in (*mount.sees, *does))
        return Place(rights, protected=closed[0] if closed else None)

    def shown_at(self, host: bytes) -> Iterator[bytes]:
        """The places at which a mount shows this host path."""
        for target, mount in self._mounts.items():
            if "read" in mount.sees and beneath(host, mount.source):
                yield _below(target, mount.source, host)

    def _mount(self, path: bytes) -> tuple[bytes, _Mount]:
        """The innermost mount around it, and where that stands."""
        target = next(one for one in self._around.of(path) if one in self._mounts)
        return target, self._mounts[target]

    def _is_held_back(self, protected: bytes) -> bool:
        target, mount = self._mount(protected)
        return "capture" in mount.does and protected != target


@lru_cache(maxsize=32)
def places_of(filesystem: Filesystem) -> Places:
    """The places of one."""
    return Places(filesystem)


class Enclosing:
    """Of a set of paths, `/` among them: those that enclose another one."""

    def __init__(self, points: Iterable[bytes]) -> None:
        # With a `/` at its end each stands right before all that lies below it.
        self._keys = sorted(_key(point) for point in {*points, b"/"})
        self._above: dict[bytes, tuple[bytes, ...]] = {}
        chain: tuple[bytes, ...] = ()
        for key in self._keys:
            while chain and not key.startswith(chain[0]):
                chain = chain[1:]
            chain = (key, *chain)
            self._above[key] = chain

    def of(self, path: bytes) -> tuple[bytes, ...]:
        """Those that are it, or enclose it, the innermost first."""
        key = _key(path)
        chain = self._above[self._keys[bisect_right(self._keys, key) - 1]]
        while not key.startswith(chain[0]):
            chain = chain[1:]
        return tuple(one[:-1] or b"/" for one in chain)

    def ordered(self) -> Iterator[bytes]:
        """All of them, each before those that it encloses."""
        return (key[:-1] or b"/" for key in self._keys)


def _key(path: bytes) -> bytes:
    return path.rstrip(b"/") + b"/"


def moved(right: Right, above: bytes, below: bytes) -> Right:
    """The same right at `below`, where it is one at `above` and nothing changes between them."""
    if not right.what:
        return right
    return Right(right.kind, _below(right.what, above, below))


def _below(source: bytes, target: bytes, path: bytes) -> bytes:
    """What `path`, which is `target` or lies below it, is to `source` as `target` is."""
    return source if path == target else source.rstrip(b"/") + path[len(target.rstrip(b"/")) :]


def _mounts(filesystem: Filesystem) -> dict[bytes, _Mount]:
    noexec = frozenset(filesystem.noexec)

    def can(target: bytes, *more: str, bind: Bind | None = None) -> frozenset[Right]:
        found = {Right(kind) for kind in more}
        if target not in noexec and not (bind and bind.noexec):
            found.add(Right("execute"))
        if bind and bind.beneath is None:
            found.add(Right("links"))
        return frozenset(found)

    def bound(bind: Bind, does: tuple[str, ...]) -> _Mount:
        return _Mount(bind.source, ("read",), does, can(bind.target, *(("put",) if does else ()), bind=bind))

    found = _root(filesystem)
    for path in ALWAYS_MOUNTED:
        found[path] = _Mount(b"", (), (), can(path, "put"))
    for one in filesystem.tmpfs:
        found[one.target] = _Mount(b"", (), (), can(one.target, "put"))
    for bind in filesystem.read:
        found[bind.target] = bound(bind, ())
    for bind in filesystem.write:
        found[bind.target] = bound(bind, ("write", "capture"))
    for bind in filesystem.capture:
        found[bind.target] = bound(bind, ("capture",))
    for volume in filesystem.volumes:
        source = volume.name.encode()
        found[volume.target] = _Mount(source, ("volume",), ("fill",), can(volume.target, "put"))
    return found


def _root(filesystem: Filesystem) -> dict[bytes, _Mount]:
    runs = frozenset({Right("execute"), Right("links")})
    if filesystem.image is not None:
        layer = {Right("put")} if filesystem.root_layer else set()
        return {
            b"/": _Mount(b"sha256:" + filesystem.image.encode(), ("image",), (), frozenset({Right("execute"), *layer}))
        }
    if filesystem.root is not None:
        return {b"/": _Mount(filesystem.root, ("read",), (), runs)}
    shown = {path: _Mount(path, ("read",), (), runs) for path in HOST_PROGRAMS}
    return {**{path: _Mount(path, ("host",), (), runs) for path in (b"/", b"/etc")}, **shown}
