"""Whether a run would be let in, and held by what its manifest asks for: every check, and what to do about it.

with Client() as client:
    seen = client.preflight(manifest="sha256:...", argv=["make"])
    for row in seen.rows:
        print(row.verdict, row.check, row.words)
    assert seen.ready
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from immured.client.order import Text
from immured.client.outcome import Answer
from immured.client.question import Question, reading, rows
from immured.wire.messages import Receipt
from immured.wire.strict import Fields

__all__ = ["Preflight", "PreflightRow", "preflight"]


@dataclass(frozen=True, slots=True)
class PreflightRow:
    """What one check says. `verdict`: `pass`, `warn` or `fail`. `code`: what a run would be refused with."""

    check: str
    verdict: str
    words: str
    remedy: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Preflight:
    """All that was looked at. `verdict` is the worst. `entry`: the ledger's entry by which the manifest was loaded;
    `receipt`: of the entry that says what was found, None where the ledger took none (a row says so)."""

    manifest: str
    verdict: str
    rows: tuple[PreflightRow, ...]
    name: str | None = None
    manifest_class: str | None = None
    entry: int | None = None
    receipt: Receipt | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing failed."""
        return self.verdict != "fail"

    def of(self, check: str) -> list[PreflightRow]:
        """The rows of one check."""
        return [row for row in self.rows if row.check == check]


def preflight(
    *,
    manifest: str | Mapping[str, object] | None = None,
    raw: bytes | None = None,
    signatures: bytes | None = None,
    argv: Sequence[Text] | None = None,
    parameters: Mapping[str, object] | None = None,
) -> Question[Preflight]:
    """`manifest`: a digest, a map, or None for the daemon's default; or `raw` and `signatures`, the bytes of a file and
    of its detached signatures, loaded or not."""
    wanted = {
        "manifest": manifest,
        "raw": raw,
        "signatures": signatures,
        "argv": None if argv is None else list(argv),
        "parameters": parameters,
    }
    return Question("preflight", {name: value for name, value in wanted.items() if value is not None}, _read)


def _read(said: Answer) -> Preflight:
    fields = reading(said)
    return Preflight(
        fields.required("manifest", str),
        fields.required("verdict", str),
        tuple(rows(said, "rows", _row)),
        fields.optional("name", str),
        fields.optional("class", str),
        fields.optional("entry", int),
        said.receipt,
    )


def _row(fields: Fields) -> PreflightRow:
    return PreflightRow(
        fields.required("check", str),
        fields.required("verdict", str),
        fields.required("words", str),
        fields.optional("remedy", str) or "",
        fields.optional("code", str) or "",
    )
