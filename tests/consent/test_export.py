"""The view for who has to check: from the ledger alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from immured.cli.consent import consent
from immured.cli.consent_export import COLUMNS, collect
from immured.ledger.entry import Entry
from tests.consent.texts import FIT

ACTOR = {"key": "ed25519:" + "a" * 32, "name": "bob", "uid": 1000, "role": "runner"}
DIGEST = "sha256:" + "1" * 64


def entry(seq: int, kind: str, data: Mapping[str, object], **actor: object) -> Entry:
    ts = f"2026-11-{seq + 1:02}T00:00:00.000000000Z"
    line = json.dumps(
        {"v": 1, "seq": seq, "ts": ts, "type": kind, "actor": {**ACTOR, **actor}, "data": data, "prev": "0" * 64}
    ).encode()
    return parsed(line)


def parsed(line: bytes) -> Entry:
    from immured.ledger.entry import parse_line

    return parse_line(line)


def answer(**more: object) -> dict[str, object]:
    return {
        "cmd": "consent.accept",
        "manifest": DIGEST,
        "name": "build",
        "text_id": "house",
        "language": "en",
        "text": FIT.digest,
        "at_ms": 0,
        "expires_ms": 1_800_000_000_000,
        **more,
    }


def wording() -> dict[str, object]:
    words = {"title": FIT.title, "text": [FIT.text[:10], FIT.text[10:]], "question": FIT.question}
    return {"text": FIT.digest, "text_id": "house", "language": "en", "words": words}


ENTRIES = (
    entry(0, "consent.text", wording()),
    entry(1, "consent.accepted", answer(), tenant="acme", session="session-1", persona="reviewer"),
    entry(2, "run.accepted", {"cmd": "run", "consent": 1}),
    entry(3, "consent.declined", answer()),
    entry(4, "exec.accepted", {"cmd": "sandbox.exec", "consent": 1}),
    entry(5, "command.denied", {"cmd": "run", "consent": 1}),
    entry(6, "consent.accepted", answer(name="=HYPERLINK(1)")),
)


def test_every_answer_is_a_row_with_who_what_and_what_came_of_it() -> None:
    first, second, third = collect(ENTRIES)
    assert (first["answer"], second["answer"], third["answer"]) == ("accepted", "declined", "accepted")
    assert (first["tenant"], first["session"], first["persona"]) == ("acme", "session-1", "reviewer")
    assert (first["key_name"], first["name"], first["uses"]) == ("bob", "build", 2)
    assert first["until"] == "2027-01-15T08:00:00Z"
    assert second["tenant"] == "default"
    assert "uses" not in second
    assert "until" not in second
    assert third["uses"] == 0
    assert first["leaf"] == ENTRIES[1].leaf.hex()


def test_it_is_narrowed_by_time_and_tenant() -> None:
    assert [row["seq"] for row in collect(ENTRIES, since="2026-11-04")] == [3, 6]
    assert [row["seq"] for row in collect(ENTRIES, until="2026-11-04")] == [1]
    assert [row["seq"] for row in collect(ENTRIES, tenant="acme")] == [1]
    assert [row["seq"] for row in collect(ENTRIES, tenant="default")] == [3, 6]


def test_the_words_that_were_read_come_along() -> None:
    row = collect(ENTRIES, since="2026-11-07", wording=True)[0]
    assert (row["title"], row["body"], row["question"]) == (FIT.title, FIT.text, FIT.question)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "current.jsonl"
    path.write_bytes(b"".join(one.line + b"\n" for one in ENTRIES))
    return path


def test_as_lines_of_json(file: Path) -> None:
    said = CliRunner().invoke(consent, ["export", "--file", str(file)])
    assert said.exit_code == 0
    assert [json.loads(line)["seq"] for line in said.stdout.splitlines()] == [1, 3, 6]


def test_as_a_sheet_in_which_no_name_is_a_formula(file: Path) -> None:
    said = CliRunner().invoke(consent, ["export", "--file", str(file), "--format", "csv", "--wording"])
    rows = list(csv.DictReader(io.StringIO(said.stdout)))
    assert list(rows[0])[: len(COLUMNS)] == list(COLUMNS)
    assert [row["name"] for row in rows] == ["build", "build", "'=HYPERLINK(1)"]
    assert rows[0]["body"] == FIT.text
