"""What one [filesystem] lets be done that another does not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immured.manifest.change import Found, Severity, is_sensitive, shown_word
from immured.manifest.limits import show_limit
from immured.manifest.paths import beneath
from immured.manifest.places import Enclosing, Place, Places, Right, moved, places_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immured.manifest.schema import Filesystem

__all__ = ["filesystem_grown"]

_FIELDS: Final = {
    "read": "filesystem.read",
    "write": "filesystem.write",
    "capture": "filesystem.capture",
    "volume": "filesystem.volumes",
    "fill": "filesystem.volumes",
    "put": "filesystem.tmpfs",
    "execute": "filesystem.noexec",
    "links": "filesystem.read",
    "host": "filesystem.root",
    "image": "filesystem.root",
}
_TOLD_BY: Final = {
    "write": {"read", "capture", "put", "links", "execute"},
    "capture": {"read", "put", "links", "execute"},
    "fill": {"volume", "put", "execute"},
    "read": {"links", "execute"},
    "volume": {"execute"},
    "host": {"links", "execute"},
    "image": {"links", "execute"},
    "put": {"execute"},
}
"""What goes without saying where the first is said."""
_LOOSER: Final = ("refused", "held", "passed")
_SAID: Final = {
    "write": ("writes to {what}{at}", Severity.HIGH, Severity.CRITICAL),
    "capture": ("writes to {what}{at}, for the changes to be accepted", Severity.MEDIUM, Severity.HIGH),
    "read": ("reads {what}{at}", Severity.MEDIUM, Severity.HIGH),
    "fill": ("writes to the volume {what}{at}", Severity.HIGH, Severity.HIGH),
    "volume": ("reads the volume {what}{at}", Severity.MEDIUM, Severity.MEDIUM),
    "image": ("reads {where} of the image", Severity.MEDIUM, Severity.MEDIUM),
    "host": ("reads what the root of the host's has at {where}", Severity.MEDIUM, Severity.MEDIUM),
    "put": ("puts files of its own in {where}", Severity.LOW, Severity.LOW),
    "execute": ("executes what lies in {where}", Severity.MEDIUM, Severity.MEDIUM),
    "links": ("follows symbolic links out of {where}", Severity.MEDIUM, Severity.MEDIUM),
}
"""Of each kind of right: what is done by it, how grave that is, and how grave where the host path is sensitive."""
_ROOTED: Final = {
    "read": "has {what} as its root",
    "image": "has the image {what} as its root",
    "host": "has the host's programs as its root",
}


def filesystem_grown(less: Filesystem, more: Filesystem) -> Iterator[Found]:
    """What `more` admits beyond `less`."""
    if less == more:
        return
    yield from _places_grown(places_of(less), places_of(more))
    yield from _begun(less, more)
    yield from _sizes(less, more)
    if less.on_violation == "halt" and more.on_violation != "halt":
        yield Found(
            "filesystem.on_violation",
            Severity.MEDIUM,
            "goes on after a refused write, which ended it",
            "goes on after a refused write no more",
        )


def _places_grown(old: Places, new: Places) -> Iterator[Found]:
    gained: dict[bytes, frozenset[Right]] = {}
    points = Enclosing(old.points | new.points)
    for point in points.ordered():
        before, after = old.at(point), new.at(point)
        gained[point] = after.rights - before.rights
        if not gained[point]:
            yield from _absent(point, old, new)
            continue
        fresh = set(gained[point])
        above = next(iter(points.of(point)[1:]), None)
        if above is not None:
            fresh -= {moved(right, above, point) for right in gained[above]}
            if Right("host", above) in gained[above]:  # with the host's programs come the host's programs
                fresh -= {Right("read", point), Right("execute"), Right("links")}
        told = set().union(*(_TOLD_BY.get(right.kind, set()) for right in fresh))
        for right in sorted(fresh):
            if right.kind not in told:
                yield _found(point, right, before, after, old)
        yield from _absent(point, old, new)


def _found(point: bytes, right: Right, before: Place, after: Place, old: Places) -> Found:
    does, severity = _said(point, right, after)
    field, why = _FIELDS[right.kind], "which it could not"
    if point == b"/" and right.kind == "read":
        field = "filesystem.root"
    if old.withheld(point, right):
        hidden = before.hidden is not None
        field, why = (
            ("filesystem.hide", "which was hidden") if hidden else ("filesystem.protect", "which was protected")
        )
    elif right.what and _was_elsewhere(right, after, old):
        return Found.of(field, Severity.LOW, does, "which it did at another place")
    if why != "which it could not" and right.kind != "put":
        severity = max(severity, Severity.HIGH)
    return Found.of(field, severity, does, why)


def _said(point: bytes, right: Right, after: Place) -> tuple[str, Severity]:
    said, severity, sensitive = _SAID[right.kind]
    if point == b"/":
        said = _ROOTED.get(right.kind, said)
    if right.kind == "execute" and Right("put") in after.rights:
        severity = Severity.HIGH  # it brings what it executes
    where, what = shown_word(point), shown_word(right.what)
    words = said.format(where=where, what=what, at="" if right.what == point else f" at {where}")
    return words, sensitive if is_sensitive(right.what) else severity


def _was_elsewhere(right: Right, after: Place, old: Places) -> bool:
    """Whether the very same was done to that host path at another place, and to all that lies below it."""
    if right.kind not in ("read", "write", "capture"):
        return False
    wanted = {right, *(one for one in after.rights if one.kind in ("execute", "links"))}
    return any(
        wanted <= old.at(place).rights
        and all(
            {moved(one, place, point) for one in wanted} <= old.at(point).rights
            for point in old.points
            if beneath(point, place)
        )
        for place in old.shown_at(right.what)
    )


def _absent(point: bytes, old: Places, new: Places) -> Iterator[Found]:
    """What is protected in both, and less strictly so where it is not there."""
    before, after = old.absent.get(point), new.absent.get(point)
    if before is None or after is None or _LOOSER.index(after) <= _LOOSER.index(before):
        return
    if after == "passed":
        yield Found.of("filesystem.protect", Severity.MEDIUM, f"makes {shown_word(point)} where it is not there")
    else:
        yield Found.of("filesystem.protect", Severity.LOW, f"begins where {shown_word(point)} is not there")


def _begun(less: Filesystem, more: Filesystem) -> Iterator[Found]:
    """Binds that need not be there any more."""
    for name in ("read", "write", "capture"):
        optional = {bind.target: bind.optional for bind in getattr(less, name)}
        for bind in getattr(more, name):
            if bind.optional and optional.get(bind.target) is False:
                does = f"begins where {shown_word(bind.source)} is not there"
                yield Found.of(f"filesystem.{name}", Severity.LOW, does)


def _sizes(less: Filesystem, more: Filesystem) -> Iterator[Found]:
    before = {one.target: one for one in less.tmpfs}
    for one in more.tmpfs:
        was, where = before.get(one.target), shown_word(one.target)
        if was is None:
            continue
        if one.size != was.size and (one.size is None or was.size is None or one.size > was.size):
            sizes = [_size(was.size), _size(one.size)]
            yield Found(
                "filesystem.tmpfs",
                Severity.LOW,
                f"{where} holds {sizes[1]} instead of {sizes[0]}",
                f"{where} holds {sizes[0]} instead of {sizes[1]}",
            )
        if one.mode != was.mode:
            yield Found(
                "filesystem.tmpfs",
                Severity.LOW,
                f"{where} has the mode {one.mode:04o} instead of {was.mode:04o}",
                f"{where} has the mode {was.mode:04o} instead of {one.mode:04o}",
            )


def _size(size: int | None) -> str:
    return "a share of the limit disk" if size is None else show_limit("disk", size)
