"""Who may use one manifest, within which limits and with whose consent, that may not use another so. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.manifest.change import Found, Severity
from immured.manifest.limits import show_limit
from immured.manifest.schema import LIMITS
from immured.manifest.units import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immured.manifest.schema import Consent, Limits

__all__ = ["consent_grown", "limits_grown", "members_grown"]


def members_grown(field: str, one: str, less: tuple[str, ...], more: tuple[str, ...]) -> Iterator[Found]:
    """Of `personas` and `tenants`: who `more` is for beyond `less`. `one`: what one of them is called."""
    if not less:
        return
    if not more:
        yield Found(field, Severity.CRITICAL, f"is for every {one}, which it was not", f"is for every {one} no more")
    for name in more:
        if name not in less:
            yield Found(
                field, Severity.HIGH, f"is for the {one} {name}, which it was not", f"is for the {one} {name} no more"
            )


def limits_grown(less: Limits, more: Limits) -> Iterator[Found]:
    """What `more` admits beyond `less`."""
    for name in LIMITS:
        before, after = getattr(less, name), getattr(more, name)
        if not _looser(name, before, after):
            continue
        texts = show_limit(name, before), show_limit(name, after)
        severity = Severity.HIGH if after is None else Severity.MEDIUM
        yield Found(f"limits.{name}", severity, f"{name} {texts[0]} -> {texts[1]}", f"{name} {texts[1]} -> {texts[0]}")
    if less.strict and not more.strict:
        yield Found.of("limits.strict", Severity.MEDIUM, "runs where a limit is held by a weaker means")


def _looser(name: str, before: int | None, after: int | None) -> bool:
    if name == "pin":  # a right, to what others then do not get
        return after is not None and (before is None or after > before)
    if before is None or before == after:
        return False
    if after is None:
        return True
    return after & ~before != 0 if name == "cores" else after > before


def consent_grown(less: Consent, more: Consent) -> Iterator[Found]:
    """What `more` admits beyond `less`."""
    if not less.required:
        return
    if not more.required:
        yield Found("consent.required", Severity.HIGH, "asks nobody for consent, which it did", "asks for consent")
        return
    if less.text != more.text:
        yield Found(
            "consent.text",
            Severity.MEDIUM,
            f"asks for consent by the text {more.text} instead of {less.text}",
            f"asks for consent by the text {less.text} instead of {more.text}",
        )
    if more.valid_ms > less.valid_ms:
        texts = [show_duration(one * 10**6) for one in (less.valid_ms, more.valid_ms)]
        yield Found(
            "consent.valid",
            Severity.LOW,
            f"consent holds for {texts[1]} instead of {texts[0]}",
            f"consent holds for {texts[0]} instead of {texts[1]}",
        )
