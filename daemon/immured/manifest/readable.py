"""What a person is asked to agree to must be what he sees, and what he hears: checks of a text in one language. Pure.

A screen reader says what stands there, letter by letter where it has to. So a text is words in sentences: nothing that
is not seen, turns the direction of reading, draws, or looks like what it is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from immured.manifest.languages import UNSPACED, letters_of, script_of, script_of_letter
from immured.manifest.unseen import BLANK

__all__ = ["line_faults", "name_of", "prose_faults", "question_faults", "same_word"]

_SPACES: Final = " \u00a0\u202f\u3000"
"""Ours, those of French and Russian that keep words together, and the one of Chinese and Japanese."""
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_JOINERS: Final = frozenset("\u200c\u200d")
_JOINED: Final = frozenset(
    ("Arab", "Deva", "Beng", "Guru", "Gujr", "Orya", "Taml", "Telu", "Knda", "Mlym", "Sinh", "Khmr", "Mymr")
)
"""Scripts whose spelling needs joiners between letters."""
_DRAWN: Final = frozenset("*#\\|_~^`<>{}=")
"""ASCII that draws lines and marks text up; a screen reader spells it out, or leaves it out."""
_SAID: Final = frozenset("+№°")
"""Symbols that are read out as words."""
_ENDS: Final = frozenset(".!?。！？।۔؟…։።។။།")
_QUESTIONS: Final = frozenset("?？؟;՞፧")
_CLOSING: Final = frozenset("\"'»”’“)」』）》")
_NO_ENDS: Final = frozenset(("Thai", "Laoo"))
"""Scripts that end sentences with a space."""
_ALPHABETS: Final = frozenset(("Latn", "Cyrl", "Grek", "Armn"))
"""Whose letters look alike, and whose capitals can shout."""

_MAX_MARKS: Final = 3
_MAX_MARKS_ALPHABET: Final = 1
_MAX_TOKEN: Final = 60
_MAX_SENTENCE: Final = 320
_MIN_SHOUT: Final = 20
_MAX_CAPITALS: Final = 0.3
_SHOUTED_WORDS: Final = 3
_OWN_SCRIPT: Final = 0.6
_MAX_REPEATED: Final = 4

_SENTENCE: Final = re.compile("[" + "".join(_ENDS) + "]+")
_WORD: Final = re.compile(r"[^\W\d_]+")
_DRAWING: Final = re.compile(r"([^\w\s])(?:\s?\1){3,}|[^\w\s]{5,}")


def prose_faults(text: str, tag: str) -> Iterator[str]:
    """Of sentences; each line is a paragraph."""
    characters = list(_characters(text, tag, lines=True))
    yield from characters
    if characters:
        return
    for line in text.split("\n"):
        if line != line.strip():
            yield "a line begins or ends with a space"
    if "\n\n\n" in text or text != text.strip("\n"):
        yield "it holds empty lines that part no paragraphs"
    yield from _words(text, tag)
    script = script_of(tag)
    if script in _NO_ENDS:
        return
    for line in text.split("\n"):
        if line and line.rstrip("".join(_CLOSING))[-1:] not in _ENDS:
            yield f"the paragraph that begins {_begin(line)} does not end as a sentence does"
        for sentence in _SENTENCE.split(line):
            if len(sentence) > _MAX_SENTENCE:
                begun = _begin(sentence.strip())
                yield f"the sentence that begins {begun} has {len(sentence)} characters; it may have {_MAX_SENTENCE}"


def line_faults(text: str, tag: str) -> Iterator[str]:
    """Of one line that need be no sentence: a title, an answer."""
    characters = list(_characters(text, tag, lines=False))
    yield from characters
    if not characters:
        if text != text.strip():
            yield "it begins or ends with a space"
        yield from _words(text, tag)


def question_faults(text: str, tag: str) -> Iterator[str]:
    """Of one line that asks."""
    yield from line_faults(text, tag)
    if script_of(tag) not in _NO_ENDS and text.rstrip("".join(_CLOSING))[-1:] not in _QUESTIONS:
        yield "it does not end with a question mark"


def same_word(one: str, other: str) -> bool:
    """Whether a person would take the two for the same answer: case, accents and spaces around apart."""
    return _bare(one) == _bare(other)


def name_of(character: str) -> str:
    """`U+202E RIGHT-TO-LEFT OVERRIDE`."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'without a name')}"


def _bare(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word.strip().casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _characters(text: str, tag: str, *, lines: bool) -> Iterator[str]:
    """What no text may hold, wherever it stands."""
    if not unicodedata.is_normalized("NFC", text):
        yield "it is not in Unicode's normal form NFC"
    script = script_of(tag)
    told = set[str]()
    marks, before = 0, ""
    for place, character in enumerate(text, 1):
        category = unicodedata.category(character)
        marks = marks + 1 if category.startswith("M") else 0
        why = None if lines and character == "\n" else _why_not(character, category, script, before)
        if why is None and marks > (_MAX_MARKS_ALPHABET if script in _ALPHABETS else _MAX_MARKS):
            why = "too many marks are piled on one letter"
        if why is not None and why not in told:
            told.add(why)
            yield f"{name_of(character)} at character {place}: {why}"
        before = character


def _why_not(character: str, category: str, script: str, before: str) -> str | None:
    joins = character in _JOINERS and script in _JOINED and before.isalpha()
    wrong: tuple[tuple[bool, str], ...] = (
        (character in _BIDI, "it turns the direction of reading"),
        (character in BLANK or (category == "Cf" and not joins), "it is not seen"),
        (category in ("Cc", "Zl", "Zp"), "it is a control character"),
        (category in ("Co", "Cs", "Cn"), "no font has it, or each its own"),
        (category == "Zs" and character not in _SPACES, "it is a space of its own kind"),
        (character in _SPACES and before in _SPACES and before != "", "two spaces follow each other"),
        (character in _DRAWN, "it draws, or marks text up, and is not read out"),
        (category in ("So", "Sk", "Sm", "No", "Nl") and character not in _SAID, "a picture is not read out"),
        (
            category.startswith("M") and not (before.isalpha() or unicodedata.category(before or " ")[0] == "M"),
            "a mark stands on no letter",
        ),
    )
    return next((why for holds, why in wrong if holds), None)


def _words(text: str, tag: str) -> Iterator[str]:
    """Drawings, what is too long to be said, capitals, and letters of another script."""
    drawing = _DRAWING.search(text)
    if drawing is not None:
        yield f"{drawing[0]!r} is drawn, not said"
    script = script_of(tag)
    for token in text.split():
        if len(token) > _MAX_TOKEN and (script not in UNSPACED or token.isascii()):
            yield f"{_begin(token)} has {len(token)} characters without a space; it may have {_MAX_TOKEN}"
    yield from _capitals(text)
    yield from _letters(text, tag)


def _capitals(text: str) -> Iterator[str]:
    cased = [one for one in text if one.isupper() or one.islower()]
    shouted = sum(one.isupper() for one in cased)
    run = 0
    for word in _WORD.findall(text):
        run = run + 1 if len(word) > 1 and word.isupper() else 0
        if run == _SHOUTED_WORDS:
            yield f"capitals throughout, as at {_begin(word)}: they shout, and are spelled out"
            return
    if len(cased) >= _MIN_SHOUT and shouted > _MAX_CAPITALS * len(cased):
        yield "most of it is capitals: they shout, and are spelled out"


def _letters(text: str, tag: str) -> Iterator[str]:
    script = script_of(tag)
    own = letters_of(script)
    letters = [(one, script_of_letter(one)) for one in text if one.isalpha()]
    for one, written in letters:
        if written not in own and written != "Latn":
            yield f"{name_of(one)} is a letter of another script than {tag} is written in ({script})"
            break
    mine = sum(written in own for _, written in letters)
    if not letters or mine < _OWN_SCRIPT * len(letters):
        yield f"{mine} of its {len(letters)} letters are of the script that {tag} is written in ({script})"
    for word in _WORD.findall(text):
        scripts = {script_of_letter(one) or "" for one in word if one.isalpha()} & _ALPHABETS
        if len(scripts) > 1:
            yield f"the word {word!r} mixes letters of {' and '.join(sorted(scripts))} that look alike"
            break
    repeated = next((one for one, same in groupby(text) if one.isalpha() and len(list(same)) > _MAX_REPEATED), None)
    if repeated is not None:
        yield f"{repeated!r} is repeated"


def _begin(text: str) -> str:
    return repr(text if len(text) <= 24 else text[:24] + "…")
