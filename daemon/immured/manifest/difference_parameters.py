"""Manifests whose parameters are still to be filled in: compared by their bounds, and filled in alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from immured.manifest.change import Found, Severity, shown_word
from immured.manifest.declared import checked
from immured.manifest.instances import filled, most_tries, texts_of, tries
from immured.manifest.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from immured.manifest.schema import Manifest, Parameter

__all__ = ["Pair", "merged", "pairs", "parameters_grown"]

_MAX_CHOSEN: Final = 12

Pair = tuple["list[Manifest]", "Manifest | None", "Mapping[str, str | int]"]
"""What the one may be filled in with, the other filled in, and the values of that."""


def parameters_grown(less: Manifest, more: Manifest) -> Iterator[Found]:
    """What a run may fill in beyond what it could, parameter by parameter."""
    before = {one.name: one for one in less.parameters}
    for one in more.parameters:
        was, field = before.get(one.name), f"parameters.{one.name}"
        if was is None:
            # What can be done with it is told where it stands.
            yield Found.of(field, Severity.LOW, f"takes the parameter {one.name}", "which it did not")
        elif was.type != one.type:
            words = f"takes {one.name} of the type {{}} instead of {{}}"
            yield Found(field, Severity.MEDIUM, words.format(one.type, was.type), words.format(was.type, one.type))
        else:
            for does, severity in _wider(was, one):
                yield Found.of(field, severity, f"takes {one.name} {does}")
            if one.default is not None and was.default is None:
                yield Found.of(field, Severity.LOW, f"needs no {one.name} of a run", "which it did")
            elif one.default != was.default and one.default is not None:
                words = f"has another {one.name} where a run gives none"
                yield Found(field, Severity.LOW, words, words)


def _wider(was: Parameter, one: Parameter) -> Iterator[tuple[str, Severity]]:
    for within in one.within:
        if not any(beneath(within, other) for other in was.within):
            yield f"beneath {shown_word(within)}", Severity.HIGH
    if new := [value for value in one.values if value not in was.values]:
        yield f"as {', '.join(shown_word(value.encode()) for value in new)}", Severity.MEDIUM
    if one.least is not None and was.least is not None and one.least < was.least:
        yield f"down to {one.least}", Severity.MEDIUM
    if one.most is not None and was.most is not None and one.most > was.most:
        yield f"up to {one.most}", Severity.MEDIUM
    if one.longest is not None and was.longest is not None and one.longest > was.longest:
        yield f"of up to {one.longest} characters", Severity.MEDIUM
    if one.type == "text" and any(
        _is_beyond(was, chr(code)) and not _is_beyond(one, chr(code)) for code in range(32, 127)
    ):
        yield f"of the characters {one.pattern}", Severity.MEDIUM


def _is_beyond(parameter: Parameter, value: str | int) -> bool:
    try:
        checked(parameter, value)
    except ValueError:
        return True
    return False


def pairs(less: Manifest, more: Manifest) -> Iterator[Pair]:
    """`more` filled in, with what `less` may be filled in for the same run; none: `less` takes no such values.

    None at the end: there are more values than were tried, and the two are not written alike.
    """
    tried, names = tries(more, less), {one.name: one for one in less.parameters}
    own = names.keys() - {one.name for one in more.parameters}
    ways_each = max(1, most_tries(less, more) // len(tried.values))
    chosen = list(tries(less, more).values[: min(_MAX_CHOSEN, ways_each)]) if own else [{}]
    for values in tried.values:
        one = filled(more, values)
        if one is None:
            continue
        # A value that the other does not take is told by its bounds; beside its own, the rest is compared as well.
        shared = {name: value for name, value in values.items() if name in names and not _is_beyond(names[name], value)}
        ways = [filled(less, {**way, **shared}) for way in chosen]
        yield [way for way in ways if way is not None], one, values
    open_ = {field for field in ("command", "filesystem", "limits") if _may_differ(less, more, field)}
    words = any(_holds_parameters(one, "command", "allow") for one in (less, more))  # more than can be tried
    if (open_ and not tried.all) or ("command" in open_ and words and less.command.allow):
        yield [], None, {}


def _may_differ(less: Manifest, more: Manifest, field: str) -> bool:
    return any(_holds_parameters(one, field) for one in (less, more)) and not _alike(less, more, field)


def _alike(less: Manifest, more: Manifest, field: str) -> bool:
    """Whether that part is written alike in both, and may be filled in alike: then neither admits more by it."""
    if less.template is None or more.template is None:
        return False
    return (less.class_, less.parameters, less.template.get(field)) == (
        *(more.class_, more.parameters, more.template.get(field)),
    )


def _holds_parameters(manifest: Manifest, *fields: str) -> bool:
    value: object = manifest.template
    for field in fields:
        value = value.get(field) if isinstance(value, Mapping) else None
    return any("${" in text for text in texts_of(value))


def merged(
    compared: Iterable[Pair],
    grown: Callable[[Manifest, Manifest], list[Found]],
) -> Iterator[Found]:
    """What is found with all values, each once, and said by the parameters' names where it comes of their values."""
    found: dict[tuple[str, str, str], Severity] = {}
    for ways, one, values in compared:
        if one is None:
            # It may be anything: a control of policy must not be got past by what nobody compared.
            said = [Found.of("parameters", Severity.CRITICAL, "takes more values together than were compared")]
        elif not ways:
            shown = ", ".join(f"{name}={shown_word(str(value).encode())}" for name, value in values.items())
            said = [Found.of("parameters", Severity.MEDIUM, f"runs with {shown}", "which was refused")]
        else:
            said = min((grown(way, one) for way in ways), key=_weight)
        for each in said:
            key = each.field, _named(each.added, values), _named(each.removed, values)
            found[key] = max(each.severity, found.get(key, each.severity))
    for (field, added, removed), severity in found.items():
        yield Found(field, severity, added, removed)


def _weight(found: list[Found]) -> tuple[int, int]:
    return max((one.severity for one in found), default=0), len(found)


def _named(words: str, values: Mapping[str, str | int]) -> str:
    """A sentence in which a path's value is told by its parameter."""
    for name, value in values.items():
        if isinstance(value, str) and value.startswith("/") and len(value) > 1:
            words = words.replace(f" {value}", f" ${{{name}}}")
    return words
