"""What a person agrees to is what he sees and what he hears, or it is shown to nobody."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import Refused
from immured.manifest.consent_texts import ConsentText, Texts, faults, parse_text, shipped_texts
from tests.consent.texts import ELSEWHERE, FIT, GERMAN, as_file, changed, with_text

PLAN = (
    "Codex will execute commands in a secured sandbox with limited access to your workspace. By continuing, you "
    "confirm that RBAC policies and manifest permissions for this session are approved. Recorded events will appear in "
    "the immutable audit ledger."
)
LANGUAGES = ("de", "en", "es", "ru", "zh-Hans")


def test_the_plan_s_text_is_shipped_word_for_word() -> None:
    text = shipped_texts().get("workspace", "en")
    assert text is not None
    assert text.text == PLAN


@pytest.mark.parametrize("text_id", ["workspace", "commands"])
def test_every_shipped_text_is_there_in_five_languages_and_fit(text_id: str) -> None:
    texts = shipped_texts()
    assert texts.languages(text_id) == LANGUAGES
    for language in LANGUAGES:
        text = texts.get(text_id, language)
        assert text is not None
        assert faults(text) == ()
        assert text.shipped
        assert text.reviewed_by is None  # nobody did: it must not say so


def parsed_as(**fields: Any) -> ConsentText:
    return replace(FIT, **fields)


def test_the_digest_is_of_what_is_read() -> None:
    read = f"{FIT.language}\n{FIT.title}\n{FIT.text}\n{FIT.question}".encode()
    assert FIT.digest == "sha256:" + hashlib.sha256(read).hexdigest()
    other = ({"language": "de"}, {"title": "other"}, {"text": "other"}, {"question": "other"})
    assert len({FIT.digest, *(parsed_as(**one).digest for one in other)}) == 5
    assert replace(FIT, accept="aye").digest == FIT.digest


def test_the_text_for_tests_is_fit() -> None:
    assert faults(FIT) == ()


@pytest.mark.parametrize(
    ("addition", "why"),
    [
        ("\u202eetirw", "it turns the direction of reading"),
        ("\u2066there\u2069", "it turns the direction of reading"),
        ("\u061c", "it turns the direction of reading"),
        ("in\u200bvisible", "it is not seen"),
        ("in\ufeffvisible", "it is not seen"),
        ("soft\u00adhyphen", "it is not seen"),
        ("join\u200der", "it is not seen"),
        ("va\ufe0friant", "it is not seen"),
        ("fil\u3164ler", "it is not seen"),
        ("blank\u2800braille", "it is not seen"),
        ("tag\U000e0041ged", "it is not seen"),
        ("be\x07ll", "it is a control character"),
        ("escape \x1b[31m", "it is a control character"),
        ("para\u2029graph", "it is a control character"),
        ("tab\there", "it is a control character"),
        ("pri\ue000vate", "no font has it, or each its own"),
        ("un\u0378assigned", "no font has it, or each its own"),
        ("thin\u2009space", "it is a space of its own kind"),
        ("two  spaces", "two spaces follow each other"),
        ("│", "a picture is not read out"),
        ("█", "a picture is not read out"),
        ("🙂", "a picture is not read out"),
        ("→", "a picture is not read out"),
        ("①", "a picture is not read out"),
        ("**bold**", "it draws, or marks text up, and is not read out"),
        ("<b>", "it draws, or marks text up, and is not read out"),
        ("snake_case", "it draws, or marks text up, and is not read out"),
        ("----", "is drawn, not said"),
        ("- - - -", "is drawn, not said"),
        (".:;,!", "is drawn, not said"),
        ("https://example.org/" + "a" * 50, "without a space"),
        ("s" + "o" * 8 + "n", "is repeated"),
        ("THIS IS IMPORTANT", "they shout, and are spelled out"),
        ("pаypal", "a letter of another script"),
        ("αlpha", "a letter of another script"),
        ("Z\u0337\u0301a", "too many marks are piled on one letter"),
        ("\u0301a", "a mark stands on no letter"),
        ("e\u0301", "it is not in Unicode's normal form NFC"),
        ("word " * 70 + "and", "characters; it may have 320"),
    ],
)
def test_what_nobody_sees_or_hears_is_refused(addition: str, why: str) -> None:
    found = with_text(addition)
    assert any(one.startswith("text: ") and why in one for one in found), found


@pytest.mark.parametrize(
    "addition",
    [
        "RBAC, as it is called,",
        "(see https://example.org/policy)",
        "what you — or anybody — named «so»",
        "50 % + 3 of it, and § 4,",
        "naïve façades of Zoë",
        "non\u00a0breaking",
    ],
)
def test_what_is_read_out_is_fit(addition: str) -> None:
    assert with_text(addition) == ()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"language": "tlh"}, "language: 'tlh' is no language that is known here"),
        ({"language": "ru"}, "text: 0 of its 63 letters are of the script that ru is written in (Cyrl)"),
        ({"title": "X"}, "title: it has 1 characters; it may have 3 to 80"),
        ({"text": "Too short a text."}, "text: it has 17 characters; it may have 40 to 2000"),
        ({"text": "A word or two. " * 140 + "An end."}, "text: it has 2107 characters; it may have 40 to 2000"),
        ({"question": "You agree."}, "question: it does not end with a question mark"),
        ({"question": "Really?\nDo you?"}, "question: U+000A without a name at character 8: it is a control character"),
        ({"decline": "Yes"}, "decline: it is the same answer as `accept`"),
        ({"accept": "nó"}, "decline: it is the same answer as `accept`"),
        ({"text": FIT.text.removesuffix(".")}, "does not end as a sentence does"),
        ({"text": "\n\n\n" + FIT.text}, "text: it holds empty lines that part no paragraphs"),
    ],
)
def test_each_field_has_bounds_of_its_own(fields: dict[str, str], why: str) -> None:
    found = changed(**fields)
    assert any(why in one for one in found), found


@pytest.mark.parametrize(
    ("language", "text", "question", "accept", "decline"),
    ELSEWHERE,
    ids=[one[0] for one in ELSEWHERE],
)
def test_other_languages_are_written_as_they_are(
    language: str, text: str, question: str, accept: str, decline: str
) -> None:
    normal = [unicodedata.normalize("NFC", one) for one in (text, question, accept, decline)]
    title = f"{normal[2]} {normal[3]}"
    assert (
        changed(language=language, title=title, text=normal[0], question=normal[1], accept=normal[2], decline=normal[3])
        == ()
    )


# -- files


def test_a_file_is_read_as_it_is_written() -> None:
    assert parse_text("house", "en", as_file()) == FIT
    found = parse_text("house", "de", as_file(**GERMAN, reviewed_by="Fr. Weber", reviewed_on="2026-10-01"))
    assert (found.reviewed_by, found.reviewed_on) == ("Fr. Weber", "2026-10-01")
    raw = b"reviewed_on = 2026-10-01\nreviewed_by = 'x'\n" + as_file()
    assert parse_text("house", "en", raw).reviewed_on == "2026-10-01"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xff", "UTF-8"),
        (b"schema = ", "Invalid value (at end of document)"),
        (b"a" + b".a" * 5000 + b" = 1", "nested too deeply"),
        (as_file(schema=None), "file.schema is missing"),
        (as_file(schema=2), "schema is '2'; this version reads 1"),
        (as_file(schema=True), "schema is a boolean, not an integer"),
        (as_file(titel="x"), "file holds an unknown field 'titel'"),
        (as_file(language="de"), "language is 'de', and the file is called en.toml"),
        (as_file(text=7), "text is an integer, not a str"),
        (as_file(reviewed_by="x"), "reviewed_by and `reviewed_on` stand together or not at all"),
        (as_file(reviewed_by="x", reviewed_on="soon"), "reviewed_on is 'soon', no day"),
        (as_file(reviewed_by="\x1b[0m", reviewed_on="2026-01-01"), "reviewed_by holds what cannot be printed"),
        (as_file(question="Hm"), "question: it has 2 characters; it may have 5 to 200; question: it does not end"),
    ],
)
def test_a_file_that_is_at_fault_says_why(raw: bytes, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_text("house", "en", raw)
    assert refused.value.code == "bad_consent_text"
    assert why in refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize("language", ["EN", "en_US", "xx", "", "..", "en-us"])
def test_a_file_is_named_by_a_language_that_is_known(language: str) -> None:
    with pytest.raises(Refused, match="is no language that is known here"):
        parse_text("house", language, as_file(language=language))


@pytest.mark.parametrize("text_id", ["", "..", "House", "a/b", "x" * 65])
def test_a_text_has_a_plain_id(text_id: str) -> None:
    with pytest.raises(Refused, match="is no text's id"):
        parse_text(text_id, "en", as_file())


@given(st.text(max_size=200), st.sampled_from(["en", "ru", "zh-Hans", "ar", "th"]))
def test_whatever_it_holds_it_is_judged(text: str, language: str) -> None:
    found = faults(replace(FIT, text=text, title=text, question=text, language=language))
    assert found  # one text is no title and no question at once
    assert all(one.partition(": ")[0] in ("title", "text", "question", "accept", "decline") for one in found)


@given(st.binary(max_size=300))
def test_whatever_a_file_holds_is_refused_in_words(raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_text("house", "en", raw)
    assert refused.value.code == "bad_consent_text"


# -- choosing


def texts(*languages: str) -> Texts:
    return Texts(replace(FIT, language=language) for language in languages)


@pytest.mark.parametrize(
    ("asked", "there", "found", "other"),
    [
        ("en", ("en", "de"), "en", False),
        ("de-AT", ("en", "de"), "de", False),
        ("de-AT", ("en", "de", "de-AT"), "de-AT", False),
        ("DE-at", ("en", "de-AT"), "de-AT", False),
        ("zh-CN", ("en", "zh-Hans", "zh"), "zh-Hans", False),
        ("zh-CN", ("en", "zh"), "zh", False),
        ("zh", ("en", "zh-Hans"), "zh-Hans", False),
        ("zh-TW", ("en", "zh-Hans", "zh"), "en", True),
        ("zh-TW", ("en", "zh-Hant"), "zh-Hant", False),
        ("sr-Latn-RS", ("en", "sr", "sr-Latn"), "sr-Latn", False),
        ("sr-Latn", ("en", "sr"), "en", True),
        ("fr", ("en", "de"), "en", True),
        ("xx", ("en",), "en", True),
        ("en-GB", ("en",), "en", False),
    ],
)
def test_the_nearest_language_is_shown_and_another_is_said(
    asked: str, there: tuple[str, ...], found: str, other: bool
) -> None:
    chosen = texts(*there).choose("house", asked)
    assert (chosen.text.language, chosen.other) == (found, other)


def test_without_english_nobody_is_shown_what_he_did_not_ask_for() -> None:
    with pytest.raises(Refused) as refused:
        texts("ru", "de").choose("house", "fr")
    assert refused.value.code == "consent_text_missing"
    assert "ask for de or ru" in refused.value.remedy


def test_a_text_that_is_not_there_is_named() -> None:
    with pytest.raises(Refused, match="there is no consent text 'nowhere'") as refused:
        shipped_texts().choose("nowhere")
    assert "commands, workspace" in refused.value.remedy


@pytest.mark.parametrize("asked", ["", "en_US.UTF-8", "../de", "x" * 40, "de\n"])
def test_a_language_is_asked_for_by_its_tag(asked: str) -> None:
    with pytest.raises(Refused) as refused:
        shipped_texts().choose("workspace", asked)
    assert refused.value.code == "bad_argument"


def test_the_operator_s_text_takes_the_place_of_the_package_s() -> None:
    own = replace(FIT, id="workspace")
    both = shipped_texts().beneath([own], {})
    assert both.get("workspace", "en") == own
    assert both.get("workspace", "de") == shipped_texts().get("workspace", "de")


def test_what_the_operator_replaced_does_not_come_back_because_his_own_is_at_fault() -> None:
    both = shipped_texts().beneath([], {("workspace", "de"): "text: it is not seen"})
    assert both.get("workspace", "de") is None
    assert both.faults("workspace") == {"de": "text: it is not seen"}
    assert both.choose("workspace", "de").other
