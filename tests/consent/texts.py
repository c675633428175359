"""Texts for tests: one that is fit, as a file and as a value, to be changed in one place."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from immured.manifest.consent_texts import ConsentText, faults

FIT: Final = ConsentText(
    id="house",
    language="en",
    title="House rules",
    text="Whatever runs here runs in a sandbox. Everything that it does is written down.",
    question="Do you agree to that?",
    accept="yes",
    decline="no",
)
GERMAN: Final = {
    "language": "de",
    "title": "Hausordnung",
    "text": "Was hier läuft, läuft in einer Sandbox. Alles, was es tut, wird aufgezeichnet.",
    "question": "Sind Sie damit einverstanden?",
    "accept": "ja",
    "decline": "nein",
}


def changed(**fields: Any) -> tuple[str, ...]:
    """What is at fault with the fit one once these are other."""
    return faults(replace(FIT, **fields))


def with_text(addition: str) -> tuple[str, ...]:
    """With that in the middle of its text."""
    before, after = FIT.text.split(" runs ", 1)
    return changed(text=f"{before} {addition} runs {after}")


def as_file(**fields: Any) -> bytes:
    """The fit one as TOML, some fields other; None: left out."""
    values: dict[str, Any] = {"schema": 1, "language": FIT.language, "title": FIT.title, "text": FIT.text}
    values |= {"question": FIT.question, "accept": FIT.accept, "decline": FIT.decline}
    values |= fields
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value is not None]
    return "\n".join(lines).encode()


ELSEWHERE: Final = (
    (
        "fr",
        "Les commandes s’exécutent dans un bac à sable\u202f; tout est consigné.",
        *("Acceptez-vous\u202f?", "oui", "non"),
    ),
    (
        "el",
        "Οι εντολές εκτελούνται σε απομονωμένο περιβάλλον και καταγράφονται.",
        *("Συμφωνείτε;", "ναι", "όχι"),
    ),
    (
        "ja",
        "コマンドは保護されたサンドボックスの中で実行されます。すべての操作は記録され、変更できません。",
        *("同意しますか？", "はい", "いいえ"),
    ),
    (
        "ko",
        "명령은 보호된 샌드박스 안에서 실행되며 모든 기록은 변경할 수 없는 장부에 남습니다.",
        *("동의하십니까?", "예", "아니요"),
    ),
    (
        "ar",
        "تُنفَّذ الأوامر داخل بيئة معزولة ومحمية، وتُسجَّل كل الأحداث في سجل لا يتغير.",
        *("هل توافق؟", "نعم", "لا"),
    ),
    (
        "fa",
        "دستورها در محیطی جدا اجرا می\u200cشوند و همهٔ رویدادها ثبت می\u200cشوند.",
        *("آیا موافقید؟", "بله", "خیر"),
    ),
    (
        "hi",
        "आदेश एक सुरक्षित सैंडबॉक्स में चलाए जाएँगे और हर घटना बही में दर्ज होगी।",
        *("क्या आप सहमत हैं?", "हाँ", "नहीं"),
    ),
    (
        "th",
        "คำสั่งจะทำงานในแซนด์บ็อกซ์ที่ปลอดภัย และทุกเหตุการณ์จะถูกบันทึกไว้",
        *("คุณเห็นด้วยหรือไม่", "ใช่", "ไม่"),
    ),
    (
        "he",
        "הפקודות ירוצו בתוך ארגז חול מאובטח, וכל האירועים יירשמו ביומן.",
        *("האם אתה מסכים?", "כן", "לא"),
    ),
    (
        "vi",
        "Các lệnh chạy trong một môi trường cách ly, và mọi sự kiện đều được ghi lại.",
        *("Bạn có đồng ý không?", "có", "không"),
    ),
)
"""Language, text, question and the two answers, as they are written where those are read."""
