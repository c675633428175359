"""Settings of sandbox-runtime, and its command line."""

from __future__ import annotations

import json

import pytest

from immured.adapters.imported import Imported
from immured.adapters.srt import DANGEROUS, import_settings, import_srt, shell
from immured.adapters.srt_settings import DEFAULT
from immured.adapters.srt_words import read_words
from immured.errors import Refused
from immured.manifest.builtin import parse_map
from tests.adapters.told import LINKS, Told, filesystem, verdicts


def settings(told: Told | None = None, network: object = None, top: object = None, **files: object) -> Imported:
    given = {"denyRead": [], "allowWrite": [], "denyWrite": []} | files
    text = json.dumps(
        {
            "network": {"allowedDomains": [], "deniedDomains": [], **(network or {})},  # type: ignore[dict-item]
            "filesystem": {name: value for name, value in given.items() if value is not None},
            **(top or {}),  # type: ignore[dict-item]
        }
    )
    imported = import_srt(text, told or Told())
    parse_map(imported.manifest)
    return imported


def test_no_settings_at_all_let_nothing_be_written_or_reached() -> None:
    imported = import_settings(DEFAULT, Told())
    assert filesystem(imported) == {"root": "/", "tmpfs": ["/tmp", "/tmp/claude"]}
    assert imported.manifest["network"] == {"mode": "loopback"}
    assert imported.manifest["syscalls"] == {"profile": "no-unix"}
    assert imported.env == {"SANDBOX_RUNTIME": "1", "TMPDIR": "/tmp/claude"}
    assert imported.of("lost", "looser") == ()


def test_paths_are_srts_own() -> None:
    told = Told(directories={"/home/ann/notes", "/data"})
    found = filesystem(settings(told, allowWrite=[".", "~/notes", "/data/**", "../gone", "src/*.ts"], denyRead=["~"]))
    assert found["write"] == ["/data", "/home/ann/project", "/home/ann/notes"]
    said = verdicts(settings(told, allowWrite=["../gone", "src/*.ts"]))
    assert said["filesystem.allowWrite ../gone"] == "stricter"
    assert said["filesystem.allowWrite src/*.ts"] == "stricter"


def test_what_is_denied_is_hidden_and_opened_again_where_it_says_so() -> None:
    told = Told(
        directories={"/home/ann/.ssh", "/home/ann/.config/tool", "/etc/ssh/ssh_config.d"}, files={"/etc/key": ""}
    )
    found = filesystem(settings(told, denyRead=["~/.ssh", "/etc/key"]))
    assert found["hide"] == ["/home/ann/.ssh", "/etc/key", "/etc/ssh/ssh_config.d"]
    found = filesystem(settings(told, denyRead=["~/.config"], allowRead=["~/.config/tool"]))
    assert {"path": "/home/ann/.config", "mode": "0555"} in found["tmpfs"]  # type: ignore[operator]
    assert found["read"] == [{"path": "/home/ann/.config/tool", "optional": True}]


def test_a_home_that_is_denied_keeps_the_project_that_is_written() -> None:
    found = filesystem(settings(denyRead=["~"], allowWrite=["."]))
    assert found["write"] == ["/home/ann/project"]
    assert {"path": "/home/ann", "mode": "0555"} in found["tmpfs"]  # type: ignore[operator]
    assert "hide" not in found


def test_reading_by_list_shows_the_list_and_the_hosts_programs() -> None:
    imported = settings(Told(directories={"/data"}), denyRead=None, allowRead=[".", "/data", "/usr/share"])
    assert filesystem(imported)["root"] == "host"
    assert filesystem(imported)["read"] == [
        {"path": "/home/ann/project", "optional": True}, {"path": "/data", "optional": True},
    ]  # fmt: skip
    assert imported.of("looser") == ()
    bare = settings(denyRead=None, allowRead=["."], autoAllowSystemPaths=False)
    assert verdicts(bare)["autoAllowSystemPaths: false"] == "looser"


def test_what_runs_by_itself_stays_as_it_is() -> None:
    told = Told(directories={"/home/ann/project/.git", "/home/ann/project/pkg/.vscode", "/home/ann/project/.claude"})
    protect = filesystem(settings(told, allowWrite=["."], denyWrite=[".env"]))["protect"]
    assert isinstance(protect, list)
    place = "/home/ann/project"
    assert [f"{place}/.env", f"{place}/.git/hooks", f"{place}/.git/config"] == [
        one for one in protect if one in (f"{place}/.env", f"{place}/.git/hooks", f"{place}/.git/config")
    ]
    assert {f"{place}/{name}" for name in DANGEROUS} <= {one for one in protect if isinstance(one, str)}
    assert {"path": f"{place}/pkg/.vscode", "absent": "passed"} in protect
    assert f"{place}/.git/config" not in str(
        filesystem(settings(told, allowWrite=["."], allowGitConfig=True))["protect"]
    )
    loose = filesystem(settings(told, allowWrite=["."], protectNonexistentFiles=False))["protect"]
    assert {"path": f"{place}/.bashrc", "absent": "passed"} in loose  # type: ignore[operator]


def test_what_is_written_and_denied_as_a_whole_is_not_written() -> None:
    imported = settings(allowWrite=["."], denyWrite=["."])
    assert "write" not in filesystem(imported)


def test_a_link_beneath_what_is_written_opens_nothing_else() -> None:
    """A command that could write there made it, and would have the next one write where it leads."""
    plain = Told(directories={"/home/ann/project/out"})
    linked = Told(directories={"/home/ann/.ssh"}, links={**LINKS, "/home/ann/project/out": "/home/ann/.ssh"})
    for host in (plain, linked):
        assert filesystem(settings(host, allowWrite=[".", "out"]))["write"] == ["/home/ann/project"]
    assert any("a link" in one.words for one in settings(linked, allowWrite=[".", "out"]).of("stricter"))
    assert filesystem(settings(linked, allowWrite=["out"]))["write"] == ["/home/ann/.ssh"]  # nobody inside made it


def test_nor_does_it_open_for_reading_what_is_denied_or_not_listed() -> None:
    place = "/home/ann/project"
    for to in ("/home/ann/.ssh", f"{place}/kept"):
        linked = Told(directories={"/home/ann/.ssh", f"{place}/kept"}, links={**LINKS, f"{place}/docs": to})
        assert filesystem(settings(linked, allowWrite=["."], allowRead=["docs"], denyRead=[to]))["hide"] == [to]
        listed = settings(linked, allowWrite=["."], allowRead=["docs"], denyRead=None)
        assert "read" not in filesystem(listed)
        assert any("a link" in one.words for one in listed.of("stricter"))


def test_nor_where_what_is_written_is_spelled_otherwise() -> None:
    linked = Told(
        cwd="/data/ann/project",
        directories={"/data/ann/.ssh"},
        links={**LINKS, "/data/ann/project/out": "/data/ann/.ssh", "/home/ann": "/data/ann"},
    )
    imported = settings(linked, allowWrite=["."], allowRead=["~/project/out"], denyRead=["~/.ssh"])
    assert filesystem(imported)["hide"] == ["/data/ann/.ssh"]


def test_domains_are_lost_and_said_by_name() -> None:
    imported = settings(network={"allowedDomains": ["github.com", "*.npmjs.org"], "httpProxyPort": 3128})
    assert [one.words for one in imported.of("lost")] == [
        "github.com, *.npmjs.org: none is reached, as srt answers for any other host"
    ]
    assert verdicts(imported)["network.httpProxyPort"] == "maps"


def test_unix_sockets_are_let_through_only_where_all_are() -> None:
    assert settings(network={"allowAllUnixSockets": True}).manifest["syscalls"] == {"profile": "default"}
    assert settings(network={"allowUnixSockets": ["/run/x"]}).manifest["syscalls"] == {"profile": "no-unix"}


def test_credentials_are_hidden_and_masks_become_denials() -> None:
    top = {
        "credentials": {"files": [{"path": "~/.netrc", "mode": "mask"}], "envVars": [{"name": "TOKEN", "mode": "deny"}]}
    }
    imported = settings(Told(files={"/home/ann/.netrc": ""}), top=top)
    assert filesystem(imported)["hide"] == ["/home/ann/.netrc"]
    assert verdicts(imported)["credentials mask ~/.netrc"] == "stricter"


REFUSED = {
    "{}": "adapter_invalid: settings.network is missing",
    '{"network": {}, "filesystem": {}, "netwrok": {}}': "adapter_invalid: settings holds an unknown field 'netwrok'",
    '{"network": {"allowedDomains": "x"}, "filesystem": {}}': (
        "adapter_invalid: settings.network.allowedDomains is not a list"
    ),
    '{"network": {}, "filesystem": {"disabled": true}}': (
        "adapter_unsupported: filesystem.disabled is true: srt then lets everything be read and written"
    ),
    '{"network": {}, "filesystem": {"denyRead": ["/"]}}': (
        "adapter_unsupported: filesystem.denyRead /: everything is denied"
    ),
    '{"network": {}, "filesystem": {}, "mandatoryDenySearchDepth": 11}': (
        "adapter_invalid: settings.mandatoryDenySearchDepth is 11; it may be 1 to 10"
    ),
    '{"network": {}, "filesystem": {"allowWrite": [""]}}': (
        "adapter_invalid: settings.filesystem.allowWrite holds '', which is no text"
    ),
    "": "adapter_invalid: the settings is not JSON: Expecting value: line 1 column 1 (char 0)",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_says_why(text: str) -> None:
    with pytest.raises(Refused) as refused:
        import_srt(text, Told())
    assert str(refused.value) == REFUSED[text]


WORDS = {
    ("echo hello world",): ("echo hello world", None),
    ("ls", "-la", "/tmp"): ("ls -la /tmp", None),
    ("--settings", "s.json", "npm", "install"): ("npm install", "s.json"),
    ("--settings=s.json", "-d", "npm"): ("npm", "s.json"),
    ("-s", "s.json", "-c", "a; b"): ("a; b", "s.json"),
    ("npm", "test", "-s", "s.json"): ("npm test", "s.json"),  # as commander takes it: an option wherever it stands
    ("npm", "test", "--", "-s", "x"): ("npm test -s x", None),
    ("-ds", "s.json", "x"): ("x", "s.json"),
    ("-ss.json", "x"): ("x", "s.json"),
}


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_its_command_line_is_read_as_its_parser_does(words: tuple[str, ...]) -> None:
    said = read_words(words)
    assert (said.command, said.settings) == WORDS[words]


@pytest.mark.parametrize("words", [[], ["-s"], ["-d"], ["--control-fd", "3", "x"], ["--"]], ids=" ".join)
def test_a_command_line_that_is_none_is_refused(words: list[str]) -> None:
    with pytest.raises(Refused):
        read_words(words)


def test_a_line_is_bashs() -> None:
    assert shell("a | b", Told()) == ("/usr/bin/bash", "-c", "a | b")
