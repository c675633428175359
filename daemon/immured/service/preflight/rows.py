"""What a check says: a row, and of many the worst. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from immured.errors import ImmuredError

__all__ = ["CHECKS", "FAIL", "PASS", "WARN", "Row", "failed", "passed", "warned", "worst"]

PASS: Final = "pass"  # noqa: S105 - no password
WARN: Final = "warn"
FAIL: Final = "fail"
_ORDER: Final = (PASS, WARN, FAIL)

CHECKS: Final = ("persona", "signature", "schema", "capabilities", "command", "secrets", "audit", "consent", "host")
"""In the order in which they are listed; one may have several rows, or none where there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Row:
    """`remedy` is empty where nothing is to be done; `code`: what a run would be refused with."""

    check: str
    verdict: str
    words: str
    remedy: str = ""
    code: str = ""

    def to_map(self) -> dict[str, object]:
        """As the reply shows it."""
        shown: dict[str, object] = {"check": self.check, "verdict": self.verdict, "words": self.words}
        if self.remedy:
            shown["remedy"] = self.remedy
        if self.code:
            shown["code"] = self.code
        return shown


def passed(check: str, words: str) -> Row:
    """Nothing is to be done."""
    return Row(check, PASS, words)


def warned(check: str, words: str, remedy: str = "") -> Row:
    """A run would be let in, and something is weaker or will be wrong."""
    return Row(check, WARN, words, remedy)


def failed(check: str, error: ImmuredError) -> Row:
    """A run would be refused with that."""
    return Row(check, FAIL, error.message, error.remedy, error.code)


def worst(rows: Iterable[Row]) -> str:
    """Of all verdicts."""
    return max((row.verdict for row in rows), key=_ORDER.index, default=PASS)
