"""Manifests near those of the corpus: maps with values exchanged, taken out, put in and moved; and TOML of any map."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from tests.manifests.corpus import INVALID, VALID

__all__ = ["GIVEN", "NEAR", "TEXTS", "toml_of"]

VALID_MAPS: list[dict[str, Any]] = [tomllib.loads(path.read_text("utf-8"), parse_float=str) for path in VALID]
MAPS: list[dict[str, Any]] = VALID_MAPS + [case.inline for case in INVALID if case.inline and len(case.raw) < 4096]

_ODD = (
    *(
        "",
        "/",
        "//",
        "/..",
        "/srv/..",
        "/srv/.",
        "/srv/",
        "/proc/self",
        "/sys",
        "/dev/shm",
        "/tmp",
        "/etc/shadow",
        "~",
        ".",
    ),
    *("*", "**", "...", "\\", "\\*", "\\...", "a\\", "?", "[a-z]", "@vcs", "@", "@x", "host", "image:sha256:", "none"),
    *(
        "${project}",
        "${tag}",
        "${jobs}",
        "${mode}",
        "${x}",
        "$",
        "$$",
        "${",
        "${}",
        "a${tag}b",
        "${project}/..",
        "/${tag}",
    ),
    *("0", "1", "-1", "0-3,6", "1G", "1.5", "512M", "60s", "1ms", "367d", "1e9", "nan", "9" * 40, "0x10", "1_0", "１"),
    *("\0", "\n", "\x1b[2J", "\u202e", "\u200b", "\u3164", "\ufeff", "\ud7ff", "\U0010ffff", "о", "İ", "ß", "a" * 300),
    *("default", "strict", "build", "judge", "deny", "halt", "held", "path", "text", "integer", "choice", "workspace"),
    *("PATH", "LD_PRELOAD", "A=B", "sha256:" + "a" * 64, "a" * 64, "ptrace", "@debug", "vault:a/b", "example.org:443"),
)
TEXTS = st.sampled_from(_ODD) | st.text(max_size=12)
_SCALARS = (
    TEXTS
    | st.sampled_from([-(2**63), 2**63 - 1, -1, 0, 1, 2, 7, 64, 2**32, 2**53, 2**53 - 1])
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
)
_NAMES = sorted({name for one in MAPS for name in json.dumps(one).split('"') if name.isidentifier()})
_KEYS = st.sampled_from(_NAMES) | TEXTS
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=6
)


@st.composite
def _near(draw: st.DrawFn) -> dict[str, Any]:
    values = copy.deepcopy(draw(st.sampled_from(VALID_MAPS) | st.sampled_from(MAPS)))
    for _ in range(draw(st.integers(1, 5))):
        places = list(_places(values))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        _change(draw, holder, key)
    return {"schema": 1, "name": "near", **values}


NEAR = _near()
"""Maps that are often manifests, and nearly always nearly."""

GIVEN = st.dictionaries(
    st.sampled_from(["project", "tag", "jobs", "mode", "memory", "target", "x"]), _SCALARS, max_size=5
)


def _change(draw: st.DrawFn, holder: Any, key: Any) -> None:
    kind = draw(st.integers(0, 5))
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = draw(_VALUES)
    elif kind == 2:
        other = draw(st.sampled_from(MAPS))
        there, name = draw(st.sampled_from(list(_places(other))))
        holder[key] = copy.deepcopy(there[name])
    elif kind == 3 and isinstance(holder, dict):
        holder[draw(_KEYS)] = draw(_VALUES) if draw(st.booleans()) else copy.deepcopy(holder[key])
    elif kind == 4 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]) if draw(st.booleans()) else draw(_VALUES))
    else:
        holder[key] = draw(TEXTS) + holder[key] if isinstance(holder[key], str) else draw(_SCALARS)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where a value stands: in which map or list, and by what."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def toml_of(values: dict[str, Any]) -> str:
    """A file that says the same. Nothing in it is unseen: what is, is named."""
    return "".join(f"{_text(name)} = {_value(value)}\n" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(name)} = {_value(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _text(value)


def _text(text: str) -> str:
    return '"' + "".join(one if " " <= one <= "~" and one not in '"\\' else f"\\U{ord(one):08x}" for one in text) + '"'
