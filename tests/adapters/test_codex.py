"""Codex's policies in all their forms come to the same manifests."""

from __future__ import annotations

import json
from typing import cast

import pytest

from immured.adapters.codex import import_codex, import_policy
from immured.adapters.codex_words import policy_of, read_words
from immured.errors import Refused
from immured.manifest.builtin import parse_map
from tests.adapters.told import LINKS, Told, filesystem, verdicts

ROOT = {"path": {"type": "special", "value": {"kind": "root"}}, "access": "read"}
HERE = {"path": {"type": "special", "value": {"kind": "project_roots"}}, "access": "write"}
WORK = "/home/ann/project"
MINIMAL = {"path": {"type": "special", "value": {"kind": "minimal"}}, "access": "read"}


def entry(path: str, access: str) -> dict[str, object]:
    return {"path": {"type": "path", "path": path}, "access": access}


def profile(*entries: object, network: str = "restricted") -> str:
    return json.dumps(
        {"type": "managed", "file_system": {"type": "restricted", "entries": entries}, "network": network}
    )


FORMS = {
    "by mode": '{"mode": "workspace-write", "network_access": false}',
    "by type": '{"type": "workspace-write"}',
    "in camel case": '{"type": "workspaceWrite", "writableRoots": [], "networkAccess": false}',
    "with read access": '{"type": "workspace-write", "read_only_access": {"type": "full-access"}}',
    "in config.toml": 'sandbox_mode = "workspace-write"\n[sandbox_workspace_write]\nnetwork_access = false\n',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_old_policy_is_the_same_manifest(form: str) -> None:
    imported = import_codex(FORMS[form], Told())
    assert imported.manifest == import_codex(FORMS["by type"], Told()).manifest
    parse_map(imported.manifest)
    assert filesystem(imported) == {
        "root": "/",
        "write": ["/home/ann/project"],
        "tmpfs": ["/tmp"],
        "protect": [
            "@vcs", {"path": "/home/ann/project/.hg", "absent": "passed"},
            {"path": "/home/ann/project/.gitmodules", "absent": "passed"}, "/home/ann/project/.git",
            "/home/ann/project/.agents", "/home/ann/project/.codex",
        ],
    }  # fmt: skip
    assert imported.manifest["network"] == {"mode": "none"}
    assert imported.env == {"CODEX_SANDBOX_NETWORK_DISABLED": "1"}


def test_the_split_form_and_the_profile_are_the_same_manifest() -> None:
    entries = [ROOT, HERE, entry("/home/ann/secret", "none")]
    split = import_codex(json.dumps({"kind": "restricted", "entries": entries}), Told())
    entries[2] = entry("/home/ann/secret", "deny")
    assert split.manifest == import_codex(profile(*entries), Told()).manifest
    assert filesystem(split)["hide"] == ["/home/ann/secret"]


def test_the_old_helper_refuses_two_calls_more_than_the_new_one() -> None:
    old = import_codex(FORMS["by type"], Told()).manifest["syscalls"]
    new = import_codex(profile(ROOT, HERE), Told()).manifest["syscalls"]
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert set(old["deny"]) - set(new["deny"]) == {"sendmsg", "recvmsg"}
    assert {"connect", "bind", "listen", "sendto"} <= set(new["deny"])


def test_an_own_temporary_directory_is_written_and_the_hosts_is_not() -> None:
    imported = import_codex(FORMS["by type"], Told(directories={"/home/ann/tmp"}))
    assert filesystem(imported)["write"] == ["/home/ann/project", "/home/ann/tmp"]
    assert verdicts(imported)["exclude_slash_tmp: false"] == "stricter"
    without = '{"type": "workspace-write", "exclude_tmpdir_env_var": true, "exclude_slash_tmp": true}'
    assert filesystem(import_codex(without, Told()))["write"] == ["/home/ann/project"]


def test_what_is_roots_is_not_written_and_that_is_said() -> None:
    imported = import_codex('{"type": "workspace-write", "writable_roots": ["/srv"]}', Told())
    assert "/srv" not in str(filesystem(imported)["write"])
    assert verdicts(imported)["writable_roots"] == "lost"


def test_a_restricted_policy_shows_what_it_lists_and_the_hosts_programs() -> None:
    text = '{"type": "read-only", "access": {"type": "restricted", "readable_roots": ["/opt/data", "/usr/share"]}}'
    imported = import_codex(text, Told(directories={"/opt/data"}))
    assert filesystem(imported) == {
        "root": "host",
        "read": [{"path": "/opt/data", "optional": True}, {"path": "/home/ann/project", "optional": True}],
    }
    assert imported.of("looser") == ()


def test_without_the_platforms_own_directories_it_says_that_they_are_there() -> None:
    text = '{"type": "read-only", "access": {"type": "restricted", "include_platform_defaults": false}}'
    assert verdicts(import_codex(text, Told()))["no minimal"] == "looser"


def test_the_nearest_rule_counts_and_denying_beats_writing_beats_reading() -> None:
    entries = [
        ROOT, HERE, entry("/home/ann/project/vendor", "read"), entry("/home/ann/project/vendor/mine", "write"),
        entry("/home/ann/project/keep", "read"), entry("/home/ann/project/a", "write"),
        entry("/home/ann/project/a", "deny"), entry("/home/ann/other", "deny"), entry("/home/ann/other/open", "read"),
    ]  # fmt: skip
    told = Told(directories={"/home/ann/project/vendor/mine", "/home/ann/other/open", "/home/ann/project/a"})
    found = filesystem(import_codex(profile(*entries), told))
    assert found["read"] == [{"path": "/home/ann/other/open", "optional": True}, "/home/ann/project/vendor"]
    assert found["write"] == ["/home/ann/project", "/home/ann/project/vendor/mine"]
    assert {"path": "/home/ann/other", "mode": "0555"} in found["tmpfs"]  # type: ignore[operator]
    assert "/home/ann/project/keep" in found["protect"]  # type: ignore[operator]
    assert found["hide"] == ["/home/ann/project/a"]


def test_a_pattern_means_what_is_there_now() -> None:
    pattern = {"path": {"type": "glob_pattern", "pattern": "**/*.env"}, "access": "none"}
    told = Told(files={"/home/ann/project/a.env": "", "/home/ann/project/deep/b.env": "", "/home/ann/c.env": ""})
    imported = import_codex(profile(ROOT, HERE, pattern), told)
    assert filesystem(imported)["hide"] == ["/home/ann/project/a.env", "/home/ann/project/deep/b.env"]


def test_a_git_directory_that_the_policy_lets_be_written_is_written() -> None:
    told = Told(directories={"/home/ann/project/.git"})
    imported = import_codex(profile(ROOT, HERE, entry("/home/ann/project/.git", "write")), told)
    assert "@vcs" not in filesystem(imported)["protect"]  # type: ignore[operator]
    assert "/home/ann/project/.git" not in filesystem(imported)["protect"]  # type: ignore[operator]
    assert verdicts(imported)["a writable .git"] == "looser"


def test_a_worktrees_repository_is_protected_where_it_lies_in_what_is_written() -> None:
    told = Told(files={"/home/ann/project/.git": "gitdir: ../repo/.git/worktrees/p\n"}, directories={"/home/ann/repo"})
    told.links["/home/ann/project/../repo"] = "/home/ann/repo"
    imported = import_codex(profile(ROOT, HERE, entry("/home/ann/repo", "write")), told)
    assert "/home/ann/repo/.git/worktrees/p" in filesystem(imported)["protect"]  # type: ignore[operator]


def test_what_a_newer_codex_knows_lets_nothing_through_and_is_said() -> None:
    later = {"path": {"type": "special", "value": {"kind": "unknown", "path": ":caches"}}, "access": "write"}
    assert verdicts(import_codex(profile(ROOT, later), Told()))["write :caches"] == "stricter"
    later["access"] = "deny"
    with pytest.raises(Refused, match="denies 'unknown'"):
        import_codex(profile(ROOT, later), Told())


REFUSED = {
    '{"type": "danger-full-access"}': (
        "adapter_unsupported: the policy is danger-full-access: Codex then lets the command write everywhere"
    ),
    '{"type": "external-sandbox", "network_access": "enabled"}': (
        "adapter_unsupported: the policy is external-sandbox: Codex then lets the command write everywhere"
    ),
    '{"type": "disabled"}': "adapter_unsupported: the policy is disabled: Codex then lets the command write everywhere",
    '{"kind": "unrestricted"}': (
        "adapter_unsupported: the policy is unrestricted: Codex then lets the command write everywhere"
    ),
    profile({**ROOT, "access": "write"}, entry("/etc", "read")): (
        "adapter_unsupported: the policy lets everything be written but for what it names"
    ),
    '{"type": "read-only", "writable_roots": []}': (
        "adapter_invalid: policy holds an unknown field 'writable_roots'"
    ),
    '{"type": "workspace-write", "network_acces": true}': (
        "adapter_invalid: policy holds an unknown field 'network_acces'"
    ),
    '{"type": "workspace-write", "type": "read-only"}': "adapter_invalid: the policy names 'type' twice in one object",
    '{"type": "mostly-harmless"}': "adapter_invalid: the policy's type is 'mostly-harmless'",
    '{"type": "workspace-write", "writable_roots": "/"}': "adapter_invalid: policy.writable_roots is not a list",
    '{"type": "workspace-write", "network_access": "yes"}': (
        "adapter_invalid: policy.network_access is a str, not a boolean"
    ),
    profile(entry("relative", "read")): "adapter_invalid: policy.entries[0] names 'relative', which is not absolute",
    profile(entry("/x", "execute")): (
        "adapter_invalid: policy.entries[0].access is 'execute'; it may be 'read', 'write' or 'deny'"
    ),
    profile({"path": {"type": "glob_pattern", "pattern": "/x/*"}, "access": "write"}): (
        "adapter_invalid: policy.entries[0] gives write to the pattern '/x/*'"
    ),
    "[permissions.mine]\n": (
        "adapter_unsupported: this config.toml names permission profiles, which Codex puts together out of more than "
        "this file"
    ),
    "{": "adapter_invalid: the policy is not JSON: Expecting property name enclosed in double quotes: "
    "line 1 column 2 (char 1)",
    "[" * 100_000: "adapter_invalid: the policy is neither JSON nor TOML: ",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_says_why(text: str) -> None:
    with pytest.raises(Refused) as refused:
        import_codex(text, Told())
    assert str(refused.value).startswith(REFUSED[text])


def test_a_command_line_of_each_age_is_understood() -> None:
    told = Told()
    old = read_words(
        ["--sandbox-policy-cwd", told.cwd, "--sandbox-policy", FORMS["by mode"], "--", "ls", "-l", "--", "x"]
    )
    assert old.command == ("ls", "-l", "--", "x")
    assert policy_of(old, told).legacy
    entries = json.dumps({"kind": "restricted", "entries": [ROOT]})
    middle = read_words([
        f"--sandbox-policy-cwd={told.cwd}", "--file-system-sandbox-policy", entries,
        "--network-sandbox-policy", '"restricted"', "--no-proc", "--use-legacy-landlock", "--", "true",
    ])  # fmt: skip
    assert not policy_of(middle, told).network
    new = read_words([
        "--sandbox-policy-cwd", told.cwd, "--command-cwd", told.cwd,
        "--permission-profile", profile(ROOT, HERE, network="enabled"), "--allow-detached-children", "--", "true",
    ])  # fmt: skip
    assert policy_of(new, told).network
    assert verdicts(import_policy(policy_of(new, told), told))["network"] == "lost"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sandbox-policy"], "--sandbox-policy takes a value"),
        (["--sandbox-polcy", "{}", "--", "true"], "codex-linux-sandbox has no option '--sandbox-polcy'"),
        (["--sandbox-policy", "{}", "--sandbox-policy", "{}", "true"], "--sandbox-policy is given twice"),
        (["--sandbox-policy", '{"type":"read-only"}', "--"], "no command is named"),
    ],
)
def test_a_command_line_that_is_none_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(Refused) as refused:
        read_words(words)
    assert refused.value.message == said


def test_the_helpers_second_stage_is_refused() -> None:
    words = read_words(["--sandbox-policy", FORMS["by type"], "--apply-seccomp-then-exec", "true"])
    with pytest.raises(Refused, match="second stage"):
        policy_of(words, Told())


def test_a_link_beneath_what_is_written_opens_nothing_else() -> None:
    """A command that could write there made it, and would have the next one write where it leads."""
    text = '{"type": "workspace-write", "writable_roots": ["/home/ann/project/out"]}'
    plain = Told(directories={"/home/ann/project/out"})
    linked = Told(directories={"/home/ann/.ssh"}, links={**LINKS, "/home/ann/project/out": "/home/ann/.ssh"})
    for host in (plain, linked):
        assert filesystem(import_codex(text, host))["write"] == ["/home/ann/project"]
    assert "stricter" in [one.verdict for one in import_codex(text, linked).findings if "link" in one.words]


def test_nor_where_what_is_written_is_spelled_otherwise() -> None:
    linked = Told(
        cwd="/data/ann/project",
        directories={"/data/ann/.ssh"},
        links={**LINKS, "/data/ann/project/out": "/data/ann/.ssh", "/home/ann": "/data/ann"},
    )
    text = '{"type": "workspace-write", "writable_roots": ["/home/ann/project/out"]}'
    assert filesystem(import_codex(text, linked))["write"] == ["/data/ann/project"]


def test_nor_by_way_of_another_place_that_was_not_followed() -> None:
    linked = Told(directories={"/home/ann/bin"}, links={**LINKS, f"{WORK}/build": "/home/ann"})
    imported = import_codex(
        profile(ROOT, *(entry(one, "write") for one in (WORK, f"{WORK}/build", f"{WORK}/build/bin"))), linked
    )
    assert filesystem(imported)["write"] == [WORK]


def test_nor_what_is_kept_or_denied_beside_it() -> None:
    linked = Told(directories={f"{WORK}/.git"}, links={**LINKS, f"{WORK}/out": f"{WORK}/.git"})
    text = json.dumps({"type": "workspace-write", "writable_roots": [f"{WORK}/out"]})
    assert f"{WORK}/.git" in cast("list[object]", filesystem(import_codex(text, linked))["protect"])

    denied = entry(f"{WORK}/kept", "none"), entry(f"{WORK}/kept/open", "read")
    linked = Told(directories={f"{WORK}/kept/open"}, links={**LINKS, f"{WORK}/out": f"{WORK}/kept"})
    imported = import_codex(profile(ROOT, entry(WORK, "write"), *denied, entry(f"{WORK}/out", "write")), linked)
    assert filesystem(imported)["write"] == [WORK]
    assert filesystem(imported)["tmpfs"] == [{"path": f"{WORK}/kept", "mode": "0555"}]


def test_nor_for_reading_what_is_shut_otherwise() -> None:
    linked = Told(directories={"/home/ann/.ssh"}, links={**LINKS, f"{WORK}/docs": "/home/ann/.ssh"})
    opened = entry(f"{WORK}/docs", "read"), entry(f"{WORK}/docs/drafts", "write")
    imported = import_codex(profile(entry(WORK, "write"), *opened), linked)
    assert "read" not in filesystem(imported)
    assert f"{WORK}/docs" in cast("list[object]", filesystem(imported)["protect"])
