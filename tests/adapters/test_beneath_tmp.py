"""Who works beneath /tmp finds it there, although the rest of /tmp is the sandbox's own."""

from __future__ import annotations

import json

import pytest

from immured.adapters.codex import import_codex
from immured.adapters.imported import Imported
from immured.adapters.srt import import_srt
from immured.adapters.standing import with_cwd
from tests.adapters.test_codex import ROOT, entry, profile
from tests.adapters.told import Told, filesystem, verdicts

WRITES = '{"type": "workspace-write", "network_access": false}'
READS = '{"type": "read-only"}'


@pytest.fixture
def host() -> Told:
    return Told(cwd="/tmp/work", roots=("/usr", "/etc", "/srv", "/opt"))


def settings(**filesystem: list[str]) -> str:
    empty: dict[str, list[str]] = {"allowWrite": [], "denyRead": [], "denyWrite": []}
    return json.dumps({"filesystem": empty | filesystem, "network": {"allowedDomains": [], "deniedDomains": []}})


def test_a_codex_workspace_beneath_tmp_is_written(host: Told) -> None:
    imported = with_cwd(import_codex(WRITES, host), host)
    assert filesystem(imported)["write"] == ["/tmp/work"]
    assert "read" not in filesystem(imported)
    assert verdicts(imported)[".git, .agents, .codex"] == "maps"


def test_a_codex_workspace_beneath_what_is_roots_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Told(cwd="/srv/work", roots=("/usr", "/etc", "/opt"))
    monkeypatch.setattr(host, "owner", lambda path: 0 if path == "/srv" else 1000)
    imported = import_codex('{"type": "workspace-write", "writable_roots": ["/srv"]}', host)
    assert filesystem(imported)["write"] == ["/srv/work"]


def test_codex_reads_it_where_it_only_reads(host: Told) -> None:
    imported = with_cwd(import_codex(READS, host), host)
    assert filesystem(imported) == {"root": "/", "read": ["/tmp/work"]}
    assert verdicts(imported)["the current directory"] == "maps"


def test_srt_reads_it_where_nothing_lets_it_be_written(host: Told) -> None:
    assert filesystem(with_cwd(import_srt(settings(), host), host))["read"] == ["/tmp/work"]


def test_srt_writes_it_where_the_settings_say_so(host: Told) -> None:
    imported = with_cwd(import_srt(settings(allowWrite=["."]), host), host)
    assert filesystem(imported)["write"] == ["/tmp/work"]
    assert "read" not in filesystem(imported)


def test_what_is_hidden_stays_hidden(host: Told) -> None:
    imported = with_cwd(import_srt(settings(denyRead=["/tmp/work"]), host), host)
    assert filesystem(imported)["hide"] == ["/tmp/work"]
    assert "read" not in filesystem(imported)


def denied(host: Told) -> dict[str, Imported]:
    shut, other = entry("/tmp", "none"), entry("/tmp/other", "read")
    return {
        "srt": import_srt(settings(denyRead=["/tmp"]), host),
        "srt, but for one": import_srt(settings(denyRead=["/tmp"], allowRead=["/tmp/other"]), host),
        "Codex": import_codex(profile(ROOT, shut), host),
        "Codex, but for one": import_codex(profile(ROOT, shut, other), host),
    }


@pytest.mark.parametrize("policy", ["srt", "srt, but for one", "Codex", "Codex, but for one"])
def test_where_tmp_itself_is_denied_nothing_of_it_is_read(host: Told, policy: str) -> None:
    imported = denied(host)[policy]
    assert with_cwd(imported, host) == imported


def test_elsewhere_nothing_is_added() -> None:
    imported = import_codex(READS, Told())
    assert with_cwd(imported, Told()) == imported
