"""Texts that a person agrees to before commands run under a manifest: read, checked, and chosen by language. Pure.

    <id>/<language>.toml: schema = 1, language, title, text, question, accept, decline; reviewed_by and reviewed_on

A file that is at fault is never shown. Where an operator's own stands in the place of a shipped one and is at fault, no
other takes its place in that language: nobody agrees to a wording that the operator replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache, cached_property
from typing import Final

from immured.errors import Refused
from immured.manifest.languages import candidates, is_tag, known, normal, same_language
from immured.manifest.readable import line_faults, prose_faults, question_faults, same_word
from immured.shipped import shipped
from immured.wire.strict import shown, take
from immured.wire.strict_toml import parse_toml

__all__ = ["MAX_FILE", "MAX_ID", "NO_TEXTS", "Chosen", "ConsentText", "Texts", "faults", "parse_text", "shipped_texts"]

MAX_FILE: Final = 32 * 1024
MAX_ID: Final = 64
FALLBACK: Final = "en"
"""Shown where there is no text in the language that was asked for."""

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_NAMES: Final = (
    *("schema", "language", "title", "text", "question", "accept", "decline"),
    *("reviewed_by", "reviewed_on"),
)
_LENGTHS: Final = {"title": (3, 80), "text": (40, 2000), "question": (5, 200), "accept": (1, 24), "decline": (1, 24)}
"""Characters."""
_MAX_REVIEWER: Final = 200
_MAX_FAULTS: Final = 8
_BAD: Final = "bad_consent_text"


@dataclass(frozen=True)
class ConsentText:
    """One text in one language. `accept` and `decline`: what a person answers. `reviewed_on`: `2026-01-31`; None:
    nobody has said that he reviewed it. `shipped`: it comes with the package, and is not the operator's own.
    """

    id: str
    language: str
    title: str
    text: str
    question: str
    accept: str
    decline: str
    reviewed_by: str | None = None
    reviewed_on: str | None = None
    shipped: bool = field(default=False, compare=False)

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` of what a person reads: language, title, text and question, each but the last with a newline
        behind it."""
        read = f"{self.language}\n{self.title}\n{self.text}\n{self.question}"
        return "sha256:" + hashlib.sha256(read.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Chosen:
    """A text for whoever asked for `asked`. `other`: it is in another language than that."""

    text: ConsentText
    asked: str
    other: bool


def faults(text: ConsentText) -> tuple[str, ...]:
    """Why that is not to be shown to anybody, the field first; empty: it may be."""
    found: list[str] = []
    if not known(text.language):
        return (f"language: {shown(text.language)} is no language that is known here",)
    for name, (low, high) in _LENGTHS.items():
        value = str(getattr(text, name))
        if not low <= len(value) <= high:
            found.append(f"{name}: it has {len(value)} characters; it may have {low} to {high}")
        check = {"text": prose_faults, "question": question_faults}.get(name, line_faults)
        found += [f"{name}: {fault}" for fault in check(value, text.language)]
    if same_word(text.accept, text.decline):
        found.append("decline: it is the same answer as `accept`")
    return tuple(found[:_MAX_FAULTS])


def parse_text(text_id: str, language: str, raw: bytes, *, shipped: bool = False) -> ConsentText:
    """The text of a file `<text_id>/<language>.toml`. Raises Refused `bad_consent_text`, naming what is at fault."""
    if not _ID.fullmatch(text_id):
        raise _bad(f"{shown(text_id)} is no text's id", "a-z, 0-9, `_` and `-`, at most 64")
    if not is_tag(language) or normal(language) != language or not known(language):
        raise _bad(f"{shown(language)} is no language that is known here", "name the file by a BCP 47 tag: de, zh-Hans")
    try:
        given = parse_toml(raw)
    except ValueError as error:
        raise _bad(str(error)) from None
    try:
        text = _from_map(text_id, language, given, shipped)
    except Refused as error:
        raise error if error.remedy else _bad(error.message) from None
    wrong = faults(text)
    if wrong:
        raise _bad("; ".join(wrong))
    return text


def _from_map(text_id: str, language: str, given: Mapping[str, object], shipped: bool) -> ConsentText:
    fields = take(given, "file", _NAMES, code=_BAD, unknown=_BAD)
    if fields.required("schema", int) != 1:
        raise fields.wrong("schema", f"is {shown(str(given['schema']))}; this version reads 1")
    if fields.required("language", str) != language:
        raise fields.wrong("language", f"is {shown(str(given['language']))}, and the file is called {language}.toml")
    reviewer, reviewed = fields.sized("reviewed_by", str, 1, _MAX_REVIEWER), _day(given.get("reviewed_on"))
    if reviewer is not None and not reviewer.isprintable():
        raise fields.wrong("reviewed_by", "holds what cannot be printed")
    if (reviewer is None) != (reviewed is None):
        raise fields.wrong("reviewed_by", "and `reviewed_on` stand together or not at all")
    return ConsentText(
        id=text_id,
        language=language,
        title=fields.required("title", str),
        text=fields.required("text", str).rstrip("\n"),
        question=fields.required("question", str),
        accept=fields.required("accept", str),
        decline=fields.required("decline", str),
        reviewed_by=reviewer,
        reviewed_on=reviewed,
        shipped=shipped,
    )


def _day(value: object) -> str | None:
    """A day, of TOML's own kind or as text."""
    if value is None:
        return None
    try:
        return (value if type(value) is date else date.fromisoformat(str(value))).isoformat()
    except ValueError:
        raise _bad(f"reviewed_on is {shown(str(value))}, no day", "write 2026-01-31") from None


class Texts:
    """Texts by id and language, and the files that are at fault. Later ones take the place of earlier ones."""

    def __init__(self, texts: Iterable[ConsentText] = (), wrong: Mapping[tuple[str, str], str] | None = None) -> None:
        self._texts = {(text.id, text.language): text for text in texts}
        self._wrong = dict(wrong or {})

    def __len__(self) -> int:
        return len(self._texts)

    def beneath(self, own: Iterable[ConsentText], wrong: Mapping[tuple[str, str], str]) -> Texts:
        """These, with the operator's own in their place. `wrong`: why a file of theirs is not shown, by id and
        language."""
        kept = [text for place, text in self._texts.items() if place not in wrong]
        return Texts([*kept, *own], {**self._wrong, **wrong})

    def ids(self) -> tuple[str, ...]:
        """Of every text, also of those that are at fault in every language."""
        return tuple(sorted({text_id for text_id, _ in (*self._texts, *self._wrong)}))

    def languages(self, text_id: str) -> tuple[str, ...]:
        """In which languages that text can be shown."""
        return tuple(sorted(language for one, language in self._texts if one == text_id))

    def faults(self, text_id: str) -> dict[str, str]:
        """By language, why that text is not shown in it."""
        return {language: words for (one, language), words in sorted(self._wrong.items()) if one == text_id}

    def get(self, text_id: str, language: str) -> ConsentText | None:
        """The text in exactly that language."""
        return self._texts.get((text_id, language))

    def choose(self, text_id: str, asked: str = FALLBACK) -> Chosen:
        """For whoever asked for that language (a BCP 47 tag): the text in it, or in English, which `Chosen` says.

        Raises Refused `bad_argument` for what is no tag, `consent_text_missing` where there is none to show.
        """
        if not is_tag(asked):
            raise Refused(
                "bad_argument", f"{shown(asked)} is no language's tag", "name one as in BCP 47: en, de, zh-Hans"
            )
        for language in (*candidates(asked), *candidates(FALLBACK)):
            text = self.get(text_id, language)
            if text is not None:
                return Chosen(text, normal(asked), not same_language(asked, language))
        raise self._missing(text_id, asked)

    def _missing(self, text_id: str, asked: str) -> Refused:
        details: dict[str, object] = {"text_id": text_id, "language": asked}
        languages, wrong = self.languages(text_id), self.faults(text_id)
        if languages:
            message = f"the consent text {text_id!r} is there neither in {shown(asked)} nor in English"
            remedy = f"ask for {' or '.join(languages)} (`--language`), or have the operator add another"
        elif wrong:
            language, words = next(iter(wrong.items()))
            message = f"the consent text {text_id!r} is at fault: {language}.toml: {words}"
            remedy = "have the operator mend it (`[consent] texts` in config.toml) and restart the daemon"
        else:
            message = f"there is no consent text {shown(text_id)}"
            ids = ", ".join(self.ids())
            remedy = f"name one that there is ({ids}), or have the operator add it (`[consent] texts` in config.toml)"
        return Refused("consent_text_missing", message, remedy, details=details)


NO_TEXTS: Final = Texts()


@cache
def shipped_texts() -> Texts:
    """Those of the package. Read them before root is given up: a broker opens no files of the package later."""
    found: list[ConsentText] = []
    for directory in sorted(shipped("profiles", "consent").iterdir(), key=lambda one: one.name):
        for file in sorted(directory.iterdir(), key=lambda one: one.name) if directory.is_dir() else ():
            language = file.name.removesuffix(".toml")
            found.append(parse_text(directory.name, language, file.read_bytes(), shipped=True))
    return Texts(found)


def _bad(message: str, remedy: str = "mend it; docs/consent.md has the format") -> Refused:
    return Refused(_BAD, message, remedy)
