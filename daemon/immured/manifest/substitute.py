"""`${name}` in a manifest's values: where it may stand, and what becomes of it. Pure.

Substituted is what TOML was parsed to, never its text, and never a name: no value can add a field, an entry or a table.
`$$` is a dollar. Where a manifest declares no parameters, a dollar is a dollar and nothing here is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.declared import NAME
from immured.manifest.items import INVALID
from immured.manifest.paths import FilledPath, beneath
from immured.manifest.words import escape
from immured.wire.strict import nearest, shown

if TYPE_CHECKING:
    from immured.manifest.schema import Parameter

__all__ = ["Substitution"]

_MARK: Final = re.compile(rf"\$(?:(\$)|\{{({NAME})\}})?", re.ASCII)
_MAX_NAME: Final = 64
_MAX_MADE: Final = 1 << 20
"""Characters that all substitutions of one manifest may come to: a short text can name a long value often."""

Value = str | int


class Substitution:
    """One manifest's parameters and a value for each."""

    def __init__(self, parameters: tuple[Parameter, ...], values: Mapping[str, Value]) -> None:
        self._parameters = {one.name: one for one in parameters}
        self._values = values
        self._made = 0

    def apply(self, manifest: Mapping[str, object]) -> dict[str, object]:
        """The manifest's map with every value filled in. Raises Refused `manifest_invalid`, naming the field, for a
        parameter where none may stand or that is not declared.
        """
        return {
            name: value if name == "parameters" else self._walk(value, (name,), f"manifest.{name}")
            for name, value in manifest.items()
        }

    def limit(self, name: str, value: object) -> object:
        """One of [limits], filled in."""
        return self._walk(value, ("limits", name), f"manifest.limits.{name}")

    def _walk(self, value: object, place: tuple[str, ...], where: str) -> object:
        if isinstance(value, Mapping):
            return {name: self._walk(one, (*place, name), _below(where, name)) for name, one in value.items()}
        if isinstance(value, list):
            return [self._walk(one, (*place, "[]"), where) for one in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        fill = _filler(place)
        if fill is not None:
            return fill(self, value, where)
        if "${" in value:
            raise _wrong(
                where, f"holds {shown(value)}, and no parameter may stand here", "docs/manifest.md, Parameters"
            )
        return value

    def text(self, value: str, where: str, show: Callable[[str], str] = str) -> str:
        """Any text: literal parts, and each value as `show` writes it."""
        made = "".join(show(self._shown(one)) if isinstance(one, _Named) else one for one in self._parts(value, where))
        self._count(made)
        return made

    def word(self, value: str, where: str) -> str:
        """A pattern of a word, in which a value is literal."""
        return self.text(value, where, lambda one: escape(one.encode()).decode())

    def path(self, value: str, where: str) -> str:
        """A path. It begins with a path's value, with one of a choice, or with what the manifest says."""
        parts = self._parts(value, where)
        for index, one in enumerate(parts):
            kind = self._parameters[one].type if isinstance(one, _Named) else ""
            if kind == "path" and (index or not _goes_on(parts[1:2])):
                raise _wrong(where, f"holds {shown(value)}; `${{{one}}}` is a path: it stands first, a `/` behind it")
            if kind in ("text", "integer") and not index:
                raise _wrong(where, f"holds {shown(value)}; it begins with `${{{one}}}`, which is no path")
        made = "".join(self._shown(one) if isinstance(one, _Named) else one for one in parts)
        if made.startswith("@"):
            raise _wrong(where, f"holds {shown(value)}, which makes a group's name; a parameter stands in paths alone")
        self._count(made)
        directory = self._directory(parts)
        return made if directory is None else FilledPath.of(made, directory)

    def bound(self, value: str, where: str) -> Value:
        """A limit: a whole number alone stays one."""
        parts = self._parts(value, where)
        for one in parts:
            if isinstance(one, _Named) and self._parameters[one].type not in ("integer", "choice"):
                raise _wrong(
                    where, f"holds {shown(value)}; a limit takes parameters of type 'integer' and 'choice' alone"
                )
        if len(parts) == 1 and isinstance(parts[0], _Named):
            return self._values[parts[0]]
        return self.text(value, where)

    def _parts(self, value: str, where: str) -> list[str]:
        """Literal texts and names, in their order; no literal is empty."""
        parts: list[str] = []
        end = 0
        literal = ""
        for found in _MARK.finditer(value):
            literal += value[end : found.start()]
            end = found.end()
            if found[1]:
                literal += "$"
            elif found[2] is None:
                raise _wrong(where, f"holds {shown(value)}: `$` begins `${{name}}`, or is written `$$`")
            else:
                self._check_name(found[2], where)
                parts += [literal] if literal else []
                parts.append(_Named(found[2]))
                literal = ""
        literal += value[end:]
        return [*parts, literal] if literal else parts

    def _check_name(self, name: str, where: str) -> None:
        if name in self._parameters:
            return
        meant = nearest(name, self._parameters)
        remedy = f"did you mean {meant!r}?" if meant else f"declared are {', '.join(sorted(self._parameters))}"
        raise _wrong(where, f"names the parameter {shown(name)}, which is not declared", remedy)

    def _directory(self, parts: list[str]) -> bytes | None:
        """Below which the run chose the way: a path's nearest `within`, or what stands before the first value of its
        own. None where it chose nothing, for what a choice may be, the manifest says."""
        before = ""
        for one in parts:
            if not isinstance(one, _Named):
                before += one
                continue
            parameter, value = self._parameters[one], self._shown(one)
            if parameter.type == "path":
                return max((two for two in parameter.within if beneath(value.encode(), two)), key=len)
            if parameter.type != "choice":
                return before.rpartition("/")[0].encode() or b"/"
            before += value
        return None

    def _shown(self, name: str) -> str:
        return str(self._values[name])

    def _count(self, made: str) -> None:
        self._made += len(made)
        if self._made > _MAX_MADE:
            raise Refused(INVALID, f"the parameters come to more than {_MAX_MADE} characters", "name them less often")


class _Named(str):
    """A parameter's name among literal texts."""

    __slots__ = ()


def _goes_on(following: list[str]) -> bool:
    """Whether what follows a path, if anything, is what lies in it."""
    return not following or (not isinstance(following[0], _Named) and following[0].startswith("/"))


_PATHS: Final = frozenset(
    {("command", "cwd")}
    | {("filesystem", name, "[]") for name in ("read", "write", "capture", "tmpfs", "protect", "hide", "noexec")}
    | {("filesystem", name, "[]", "path") for name in ("read", "write", "capture", "tmpfs", "protect")}
    | {("filesystem", name, "[]", "target") for name in ("read", "write", "capture", "volumes")}
)
_WORD: Final = ("command", "allow", "[]", "arguments", "[]", "[]")


def _filler(place: tuple[str, ...]) -> Callable[[Substitution, str, str], object] | None:
    """What fills in a value that stands there; None where no parameter may."""
    if place in _PATHS:
        return Substitution.path
    if place == _WORD:
        return Substitution.word
    if place[:2] == ("command", "env") and len(place) == 3:
        return Substitution.text
    if place[0] == "limits" and len(place) == 2:
        return Substitution.bound
    return None


def _below(where: str, name: str) -> str:
    """The path of a field that nobody has looked at yet: its name may be anything."""
    plain = name.isascii() and name.isprintable() and len(name) <= _MAX_NAME
    return f"{where}.{name if plain else ascii(name[:_MAX_NAME])}"


def _wrong(where: str, problem: str, remedy: str = "") -> Refused:
    return Refused(INVALID, f"{where} {problem}", remedy, details={"field": where})
