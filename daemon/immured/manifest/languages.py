"""Languages by their BCP 47 tags: which there are, in which script each is written, and what to show for one. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

__all__ = [
    "UNSPACED",
    "candidates",
    "from_locale",
    "is_tag",
    "known",
    "letters_of",
    "normal",
    "same_language",
    "script_of",
    "script_of_letter",
]

_TAG: Final = re.compile(
    r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*", re.ASCII
)
_MAX_TAG: Final = 35

_SCRIPTS: Final = {
    "Latn": """
        aa ab-Latn af ak an ast ay az bm bi br bs ca ceb ch co cs cy da de ee en eo es et eu ff fi fil fj fo fr fy ga gd
        gl gn gv ha haw hil hmn ho hr ht hu hz ia id ie ig ik io is it jv kg ki kj kl kr ksh kw la lb lg li ln lt lu lv
        mg mh mi ms mt na nb nd nds ng nl nn no nr nv ny oc om pap pl pt qu rm rn ro rw sc se sg sk sl sm sn so sq ss st
        su sv sw tk tl tn to tr ts tw ty uz ve vi vo wa wo xh yo za zu
    """,
    "Cyrl": "ab av ba be bg ce cu cv kk kv ky mk mn os ru sah sr tg tt udm uk",
    "Arab": "ar arz ckb fa ks ku-Arab ps sd ug ur",
    "Hebr": "he yi",
    "Grek": "el",
    "Armn": "hy",
    "Geor": "ka",
    "Deva": "bho hi mai mr ne sa",
    "Beng": "as bn",
    "Guru": "pa",
    "Gujr": "gu",
    "Orya": "or",
    "Taml": "ta",
    "Telu": "te",
    "Knda": "kn",
    "Mlym": "ml",
    "Sinh": "si",
    "Thai": "th",
    "Laoo": "lo",
    "Mymr": "my",
    "Khmr": "km",
    "Ethi": "am ti",
    "Tibt": "bo dz",
    "Thaa": "dv",
    "Cans": "cr iu oj",
    "Yiii": "ii",
    "Hans": "zh",
    "Hant": "yue",
    "Jpan": "ja",
    "Kore": "ko",
}
"""The script that each language is written in where its tag names none: ISO 639-1, and of the others those with many
readers. A tag with two parts is there for its script alone."""

_LANGUAGES: Final = {
    tag.partition("-")[0]: script for script, tags in _SCRIPTS.items() for tag in tags.split() if "-" not in tag
} | {"ku": "Latn"}

_LETTERS: Final = {
    "Latn": ("LATIN ", "FEMININE ORDINAL", "MASCULINE ORDINAL", "MODIFIER LETTER "),
    "Cyrl": ("CYRILLIC ",),
    "Arab": ("ARABIC ",),
    "Hebr": ("HEBREW ",),
    "Grek": ("GREEK ",),
    "Armn": ("ARMENIAN ",),
    "Geor": ("GEORGIAN ",),
    "Deva": ("DEVANAGARI ",),
    "Beng": ("BENGALI ",),
    "Guru": ("GURMUKHI ",),
    "Gujr": ("GUJARATI ",),
    "Orya": ("ORIYA ",),
    "Taml": ("TAMIL ",),
    "Telu": ("TELUGU ",),
    "Knda": ("KANNADA ",),
    "Mlym": ("MALAYALAM ",),
    "Sinh": ("SINHALA ",),
    "Thai": ("THAI ",),
    "Laoo": ("LAO ",),
    "Mymr": ("MYANMAR ",),
    "Khmr": ("KHMER ",),
    "Ethi": ("ETHIOPIC ",),
    "Tibt": ("TIBETAN ",),
    "Thaa": ("THAANA ",),
    "Cans": ("CANADIAN SYLLABICS ",),
    "Yiii": ("YI ",),
    "Hani": ("CJK UNIFIED IDEOGRAPH", "IDEOGRAPHIC ITERATION"),
    "Kana": ("HIRAGANA ", "KATAKANA ", "KATAKANA-HIRAGANA"),
    "Hang": ("HANGUL SYLLABLE",),
}
"""How Unicode names the letters of each script: Python knows names, and no property `Script`."""

_WRITTEN: Final = {"Hans": ("Hani",), "Hant": ("Hani",), "Jpan": ("Hani", "Kana"), "Kore": ("Hang", "Hani")}

UNSPACED: Final = frozenset({"Hans", "Hant", "Jpan", "Thai", "Laoo", "Mymr", "Khmr", "Tibt"})
"""Scripts in which words stand without spaces between them."""

_TRADITIONAL: Final = frozenset({"TW", "HK", "MO"})


def is_tag(text: str) -> bool:
    """Whether it is a language's tag: language, then perhaps script, region and variants."""
    return len(text) <= _MAX_TAG and _TAG.fullmatch(text) is not None


def known(tag: str) -> bool:
    """Whether it is well-formed and its language, and its script if it names one, are known here."""
    return is_tag(tag) and tag.split("-", maxsplit=1)[0].lower() in _LANGUAGES and (script_of(tag) in _SCRIPTS)


def normal(tag: str) -> str:
    """As tags are written: `zh-Hans-CN`."""
    language, *rest = tag.split("-")
    cased = (one.title() if len(one) == 4 and one.isalpha() else one.upper() if len(one) == 2 else one for one in rest)
    return "-".join((language.lower(), *(one if len(one) in (2, 4) else one.lower() for one in cased)))


def script_of(tag: str) -> str:
    """In which script that language is written: the one that its tag names, else the usual one. KeyError: unknown."""
    language, *rest = normal(tag).split("-")
    for part in rest:
        if len(part) == 4 and part.isalpha():
            return part
    if language == "zh" and _TRADITIONAL.intersection(rest):
        return "Hant"
    return _LANGUAGES[language]


def letters_of(script: str) -> tuple[str, ...]:
    """What `script_of_letter` says of the letters of a text in that script."""
    return _WRITTEN.get(script, (script,))


@lru_cache(maxsize=4096)
def script_of_letter(letter: str) -> str | None:
    """The script of one letter; None: of none that is known here."""
    name = unicodedata.name(letter, "")
    for script, prefixes in _LETTERS.items():
        if name.startswith(prefixes):
            return script
    return None


def candidates(asked: str) -> tuple[str, ...]:
    """The tags under which a text for whoever asked for that one may stand, the best first: zh-CN, zh-Hans, zh."""
    parts = normal(asked).split("-")
    found = ["-".join(parts[:end]) for end in range(len(parts), 0, -1)]
    language = parts[0]
    if language in _LANGUAGES:
        scripted = f"{language}-{script_of(asked)}"
        if scripted not in found:
            found.insert(len(found) - 1, scripted)
        if script_of(asked) != script_of(language):
            found.remove(language)  # in the other script: another text
        elif len(parts) == 1:
            found = [language, scripted]
    return tuple(found)


def same_language(asked: str, shown: str) -> bool:
    """Whether whoever asked for the one is shown what he reads: the same language, in the same script."""
    if normal(asked).split("-")[0] != normal(shown).split("-")[0]:
        return False
    return not known(asked) or script_of(asked) == script_of(shown)


def from_locale(name: str) -> str | None:
    """The tag of a POSIX locale's name: `de-AT` of `de_AT.UTF-8@euro`; None: it names no language (`C`, `POSIX`)."""
    bare, _, modifier = name.partition("@")
    tag = bare.partition(".")[0].replace("_", "-")
    script = {"latin": "Latn", "cyrillic": "Cyrl", "devanagari": "Deva"}.get(modifier.lower())
    if script is not None:
        language, *rest = tag.split("-")
        tag = "-".join((language, script, *rest))
    return normal(tag) if is_tag(tag) else None
