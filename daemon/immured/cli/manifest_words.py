"""Manifests in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from immured.cli.moments import date_of, left
from immured.cli.say import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from immured.client.errors import Refusal
    from immured.client.manifests import Loading, ManifestFacts, ManifestSigner, Stage

__all__ = ["added_lines", "baseline_words", "facts_lines", "refused_lines", "stage_lines"]


class _Change(Protocol):
    @property
    def field(self) -> str: ...
    @property
    def words(self) -> str: ...
    @property
    def severity(self) -> object: ...


def added_lines(changes: Iterable[_Change], sign: str = "+") -> list[str]:
    """`+ high      filesystem.write          writes to /srv/out, which it could not`."""
    return [f"{sign} {one.severity!s:8}  {printable(one.field):24}  {printable(one.words)}" for one in changes]


def baseline_words(baseline: Mapping[str, object] | None) -> str:
    """What it was compared with."""
    if baseline is None:
        return "nothing"
    kind = "the class" if baseline.get("kind") == "class" else "the last one of its name"
    return printable(f"{kind}, {baseline.get('name')} ({baseline.get('digest')})")


def stage_lines(found: Loading) -> list[str]:
    """Each stage's verdict, and what is added."""
    lines = _stages(found.stages)
    if found.baseline is not None and found.added:
        lines.append(f"beside {baseline_words(found.baseline)}:")
    lines += added_lines(found.added)
    if found.more_added:
        lines.append(f"+ {found.more_added} more")
    return lines


def refused_lines(refusal: Refusal) -> list[str]:
    """Of a manifest that was not loaded: how far it came, and what it would add."""
    rows = {name: refusal.details.get(name) for name in ("stages", "added")}
    found = {name: [one for one in row if isinstance(one, dict)] for name, row in rows.items() if isinstance(row, list)}
    stages = [
        f"{one.get('verdict', '')!s:4}  {one.get('stage', '')!s:12}  {one.get('words', '')}"
        for one in found.get("stages", [])
    ]
    added = [
        f"+ {one.get('severity', '')!s:8}  {one.get('field', '')!s:24}  {one.get('words', '')}"
        for one in found.get("added", [])
    ]
    return [printable(line) for line in (*stages, *added)]


def facts_lines(found: ManifestFacts, now: int | None = None) -> list[str]:
    """One that the daemon has."""
    revoked = found.revoked or {}
    facts = [
        ("digest", found.digest), ("name", found.name or ""), ("class", found.class_ or ""),
        ("standing", found.standing + (", built in" if found.built_in else "")),
        ("personas", ", ".join(found.personas) or "all"), ("tenants", ", ".join(found.tenants) or "all"),
        ("loaded", "" if found.loaded_ms is None else date_of(found.loaded_ms)),
        ("by", " ".join(one for one in (found.key_name, found.key) if one)),
        ("entry", "" if found.seq is None else str(found.seq)),
        *(("signed by", _signer(one, now)) for one in found.signers),
        ("revoked", f"{revoked.get('reason')} (entry {revoked.get('seq')})" if revoked else ""),
    ]  # fmt: skip
    return [f"{name:10}  {printable(value)}" for name, value in facts if value]


def _signer(one: ManifestSigner, now: int | None) -> str:
    until = f"until {date_of(one.expires_ms)} ({left(one.expires_ms, now)})"
    return f"{one.name or one.key}, {date_of(one.signed_ms)}, {until}"


def _stages(stages: Sequence[Stage]) -> list[str]:
    lines = []
    for one in stages:
        code = f" ({one.code})" if one.code else ""
        lines.append(printable(f"{one.verdict:4}  {one.stage:12}  {one.words}{code}"))
        if one.remedy:
            lines.append(printable(f"      remedy: {one.remedy}"))
    return lines
