"""`immure consent`, as people and screen readers meet it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from immured import Client
from immured.cli.consent import language_of
from immured.cli.prose import width_of
from immured.client.consents import Consents
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError
from tests.consent.test_refused import asking, shell, surroundings
from tests.terminal.person import IMMURE, Person

pytestmark = pytest.mark.needs_root


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A file that nobody has agreed to."""
    files = asking()["limits"]
    assert isinstance(files, Mapping)
    path = tmp_path / "asking.toml"
    path.write_text(f'schema = 1\nname = "asking"\n[limits]\nfiles = {files["files"]}\n[consent]\nrequired = true\n')
    return path


@pytest.mark.parametrize(
    ("environment", "tag"),
    [
        ({}, None),
        ({"LANG": "C"}, None),
        ({"LANG": "de_AT.UTF-8"}, "de-AT"),
        ({"LANG": "de_DE", "LC_MESSAGES": "ru_RU.UTF-8"}, "ru-RU"),
        ({"LANG": "de_DE", "LC_MESSAGES": "ru_RU", "LC_ALL": "zh_CN.UTF-8"}, "zh-CN"),
        ({"LC_ALL": "", "LANG": "es"}, "es"),
        ({"LC_ALL": "C.UTF-8", "LANG": "es"}, None),
        ({"LANG": "sr_RS@latin"}, "sr-Latn-RS"),
        ({"LANG": "\x1b[31m"}, None),
    ],
)
def test_the_language_is_that_of_the_environment(environment: dict[str, str], tag: str | None) -> None:
    assert language_of(None, environment) == tag
    assert language_of("PT-br", environment) == "pt-BR"


def test_what_is_no_language_is_no_language() -> None:
    with pytest.raises(ConfigurationError, match="is no language's tag"):
        language_of("../../etc", {})


@pytest.mark.parametrize(
    ("lang", "columns"), [("de_DE.UTF-8", 40), ("zh_CN.UTF-8", 30), ("ru_RU.UTF-8", 60), ("C", 20)]
)
def test_the_text_is_words_in_lines_that_fit(daemon: ThrowawayDaemon, manifest: Path, lang: str, columns: int) -> None:
    said = shell(daemon, f"immure consent show {manifest}", LC_ALL=lang, COLUMNS=str(columns), NO_COLOR="1")
    assert said.returncode == 0, said.stderr
    text = said.stdout.partition("Manifest: ")[0]
    assert all(width_of(line) <= columns for line in text.splitlines())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f─-╿*|]", said.stdout)
    assert "Reviewed: by nobody on record" in said.stdout


def test_another_language_than_was_asked_for_is_said_first(daemon: ThrowawayDaemon, manifest: Path) -> None:
    said = shell(daemon, f"immure consent show {manifest}", LC_ALL="fr_CA.UTF-8")
    assert said.stdout.startswith("There is no text in fr-CA; this one is in en.\n")
    shown = json.loads(shell(daemon, f"immure consent show {manifest} --language de --json").stdout)
    assert (shown["language"], shown["other"]) == ("de", False)


def test_an_answer_is_one_command_and_status_tells_it(daemon: ThrowawayDaemon, manifest: Path) -> None:
    status = f"immure consent status {manifest}"
    run = f"immure run --manifest {manifest} -- /bin/true"
    refused = shell(daemon, run)
    assert refused.returncode == 125
    assert "immure: consent_required: " in refused.stderr
    assert "remedy: immure consent accept sha256:" in refused.stderr
    for line, code in (
        (status, 1),
        (f"immure consent accept {manifest}", 0),
        (status, 0),
        (run, 0),
        (f"immure consent decline {manifest}", 0),
        (status, 1),
        (run, 125),
    ):
        said = shell(daemon, line)
        assert said.returncode == code, (line, said.stdout, said.stderr)


def test_who_read_another_wording_does_not_agree_to_this_one(daemon: ThrowawayDaemon, manifest: Path) -> None:
    said = shell(daemon, f"immure consent accept {manifest} --text sha256:{'0' * 64}")
    assert (said.returncode, said.stderr.partition(": ")[2][:15]) == (1, "consent_changed")
    text = json.loads(shell(daemon, f"immure consent show {manifest} --json").stdout)["text"]
    assert shell(daemon, f"immure consent accept {manifest} --text {text}").returncode == 0


def sit(daemon: ThrowawayDaemon, manifest: Path, language: str, *more: str) -> Person:
    command = [*IMMURE, "consent", "accept", str(manifest), "--language", language, *more]
    return Person(command, env=surroundings(daemon, TERM="xterm"))


@pytest.mark.parametrize(
    ("language", "typed", "status", "standing"),
    [
        ("de", "ja\n", 0, "given"),
        ("es", "SI\n", 0, "given"),
        ("ru", "нет\n", 1, "declined"),
        ("en", "y\nperhaps\n\n", 1, "none"),
        ("zh-Hans", "是\n", 0, "given"),
        ("de", "yes\nja\n", 0, "given"),
    ],
)
def test_at_a_terminal_the_question_is_asked_and_answered_in_its_language(
    daemon: ThrowawayDaemon, client: Client, manifest: Path, language: str, typed: str, status: int, standing: str
) -> None:
    with sit(daemon, manifest, language) as person:
        for answer in typed.splitlines(keepends=True):
            person.see(rb" / [^)]+\) ")
            person.type(answer.encode())
        assert int(person.see(rb"ended:(\d+)")[1]) == status
    import tomllib

    assert Consents(client).status(tomllib.loads(manifest.read_text())).standing == standing


def test_with_yes_nobody_is_asked(daemon: ThrowawayDaemon, manifest: Path) -> None:
    with sit(daemon, manifest, "en", "--yes") as person:
        assert b"(yes / no)" not in person.all_until(b"ended:0")


def test_export_reads_the_ledger_of_a_daemon_that_serves(daemon: ThrowawayDaemon, manifest: Path) -> None:
    assert shell(daemon, f"immure consent accept {manifest} --language es").returncode == 0
    said = shell(daemon, f"immure consent export --state {daemon.state} --wording")
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert (rows[-1]["answer"], rows[-1]["language"], rows[-1]["key_name"]) == ("accepted", "es", "admin")
    assert rows[-1]["body"].startswith("Codex ejecutará")
    assert shell(daemon, "immure consent export --state /nowhere").returncode == 1
