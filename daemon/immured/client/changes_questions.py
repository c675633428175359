"""Every command about a sandbox's changes, as values: what is sent, and what its answer comes to.

Paths are as inside, absolute: text, or bytes for names that are not UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from immured.client.files_questions import text
from immured.client.order import Text
from immured.client.outcome import Answer
from immured.client.question import Question, reading
from immured.wire.messages import Receipt
from immured.wire.strict import Fields

__all__ = ["SIDES", "Accepted", "Change", "ChangePage", "Discarded", "Side", "accept", "diff", "discard", "page"]

SIDES: Final = frozenset({"before", "after"})


@dataclass(frozen=True, slots=True)
class Side:
    """What stood at a name on the host, or stands there in the sandbox."""

    kind: str
    """`file`, `directory`, `link` or `special`."""
    mode: int
    size: int
    """Bytes; of a directory that is to go, how many names are in it."""
    sha256: bytes = b""
    link: str | bytes | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one name. `kind`: `created`, `modified`, `deleted`, `renamed` or `mode`."""

    kind: str
    path: str | bytes
    before: Side | None = None
    after: Side | None = None
    former: str | bytes | None = None
    """Of `renamed`: from where."""
    trouble: str | None = None
    """Why it cannot simply be accepted: docs/changes.md lists the words."""
    conflict: bool = False
    """The trouble is that the host changed too: `force` goes over that."""


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Some of the changes, by path. `sets`: of each captured directory, the digest of all of its changes."""

    changes: tuple[Change, ...]
    sets: Mapping[str, bytes]
    total: int
    next: str | bytes | None
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was applied. `total` of them; `changes` may be cut."""

    target: str
    total: int
    changes: tuple[Change, ...]
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Discarded:
    """How many files of the layer went."""

    target: str
    removed: int
    receipt: Receipt | None


def page(sandbox: str, target: Text | None, after: str | bytes | None) -> Question[ChangePage]:
    """The changes after a path; of one captured directory, or of all."""
    args: dict[str, object] = {"sandbox": sandbox}
    if target is not None:
        args["target"] = text(target)
    if after is not None:
        args["after"] = after
    return Question("changes.list", args, _page)


def diff(sandbox: str, path: Text) -> Question[Change]:
    """One change; the content of either side, where it is a file, comes on the streams `before` and `after`."""
    return Question("changes.diff", {"sandbox": sandbox, "path": text(path)}, _one, streamed=SIDES)


def accept(
    sandbox: str,
    paths: Iterable[Text],
    *,
    target: Text | None,
    skip: Iterable[Text],
    as_listed: bytes | None,
    force: bool,
) -> Question[Accepted]:
    """Applies these (none: all), all or none of them."""
    args = _chosen(sandbox, paths, target)
    left_out = [text(one) for one in skip]
    if left_out:
        args["skip"] = left_out
    if as_listed is not None:
        args["set"] = as_listed
    if force:
        args["force"] = True
    return Question("changes.accept", args, _accepted)


def discard(sandbox: str, paths: Iterable[Text], *, target: Text | None) -> Question[Discarded]:
    """Throws these (none: all) away."""
    return Question("changes.discard", _chosen(sandbox, paths, target), _discarded)


def _chosen(sandbox: str, paths: Iterable[Text], target: Text | None) -> dict[str, object]:
    args: dict[str, object] = {"sandbox": sandbox}
    chosen = [text(one) for one in paths]
    if chosen:
        args["paths"] = chosen
    if target is not None:
        args["target"] = text(target)
    return args


def _page(said: Answer) -> ChangePage:
    fields = reading(said)
    sets = {name: value for name, value in fields.required("sets", dict).items() if isinstance(value, bytes)}
    rows = fields.required("changes", list)
    following = fields.values.get("next")
    return ChangePage(
        tuple(_change(row) for row in rows),
        sets,
        fields.required("total", int),
        following if isinstance(following, str | bytes) else None,
        said.receipt,
    )


def _one(said: Answer) -> Change:
    return _change(reading(said).required("change", dict))


def _accepted(said: Answer) -> Accepted:
    fields = reading(said)
    rows = tuple(_change(row) for row in fields.required("changes", list))
    return Accepted(fields.required("target", str), fields.required("total", int), rows, said.receipt)


def _discarded(said: Answer) -> Discarded:
    fields = reading(said)
    return Discarded(fields.required("target", str), fields.required("removed", int), said.receipt)


def _change(row: object) -> Change:
    fields = Fields(row if isinstance(row, dict) else {}, "result.changes", "bad_reply")
    return Change(
        fields.required("kind", str),
        _name(fields, "path") or "",
        _side(fields, "before"),
        _side(fields, "after"),
        _name(fields, "from"),
        fields.optional("trouble", str),
        fields.optional("conflict", bool) or False,
    )


def _side(fields: Fields, name: str) -> Side | None:
    value = fields.optional(name, dict)
    if value is None:
        return None
    inner = Fields(value, f"{fields.where}.{name}", "bad_reply")
    return Side(
        inner.required("kind", str),
        inner.required("mode", int),
        inner.required("size", int),
        inner.optional("sha256", bytes) or b"",
        _name(inner, "link"),
    )


def _name(fields: Fields, name: str) -> str | bytes | None:
    value = fields.values.get(name)
    if value is not None and not isinstance(value, str | bytes):
        raise fields.wrong(name, "is no name")
    return value
