"""`immure policy` without a daemon: what it says, and with which exit status."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.identity.keyring import KeyRecord, Keyring
from immured.wire.keys import PrivateKey

SHIPPED = files("immured.identity.policy").joinpath("default.toml").read_bytes()


def immure(*words: str) -> Result:
    return CliRunner().invoke(app, ["policy", *words], catch_exceptions=False, standalone_mode=False)


def status(result: Result) -> object:
    """The exit status that `ctx.exit` was called with."""
    return result.return_value if result.return_value is not None else result.exit_code


@pytest.fixture
def shipped(tmp_path: Path) -> str:
    path = tmp_path / "shipped.toml"
    path.write_bytes(SHIPPED)
    return str(path)


def changed(tmp_path: Path, text: str) -> str:
    path = tmp_path / "changed.toml"
    path.write_bytes(SHIPPED + text.encode())
    return str(path)


@pytest.fixture
def state(tmp_path: Path) -> str:
    """A directory with a keyring, as far as these commands look at one."""
    (tmp_path / "state/keys").mkdir(parents=True)
    records = [
        KeyRecord(PrivateKey.generate().public, name, role, "2026-01-02T03:04:05Z")
        for name, role in (("bob", "worker"), ("old", "gone"))
    ]
    (tmp_path / "state/keys/keyring.json").write_bytes(Keyring(records).to_json())
    return str(tmp_path / "state")


def test_the_shipped_policy_is_printed_as_it_is(shipped: str) -> None:
    assert immure("default").stdout_bytes == SHIPPED


def test_check_passes_the_shipped_policy(shipped: str) -> None:
    done = immure("check", shipped, "--strict")
    assert status(done) == 0
    assert done.stdout.splitlines()[0].startswith("note: one key of the role 'admin'")
    assert "10 roles" in done.stdout


def test_check_fails_what_cannot_be_meant(tmp_path: Path) -> None:
    ended = changed(
        tmp_path,
        "[[rules]]\nname='e'\nroles=['viewer']\nallow=['run']\nscope='own'\nuntil=2020-01-01T00:00:00Z\n",
    )
    done = immure("check", ended, "--json")
    assert status(done) == 1
    found = json.loads(done.stdout)["findings"]
    assert {"severity": "error", "kind": "unreachable", "where": "e", "message": "the rule 'e' has ended"} in found


def test_check_is_stricter_on_request(tmp_path: Path) -> None:
    unused = changed(tmp_path, "[roles.nobody]\n")
    assert status(immure("check", unused)) == 0
    assert status(immure("check", unused, "--strict")) == 1


def test_check_names_file_line_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        immure("check", changed(tmp_path, "[roles.x]\nincludes = ['vievver']\n"))
    assert caught.value.code == "policy_invalid"
    assert "changed.toml: line " in caught.value.message
    assert "'viewer'" in caught.value.remedy


def test_check_knows_the_keys_of_a_state_directory(shipped: str, state: str) -> None:
    done = immure("check", shipped, "--state", state)
    assert status(done) == 1
    assert "error: key old: no role is called 'gone'" in done.stdout


def test_diff_of_two_files(tmp_path: Path, shipped: str) -> None:
    after = changed(tmp_path, "[[rules]]\nname='x'\nroles=['viewer']\nallow=['run', 'plan']\nscope='own'\n")
    said = immure("diff", shipped, after).stdout.splitlines()
    assert "viewer gains run plan (in its own tenants, what is its own)" in said
    assert immure("diff", shipped, shipped).stdout == "nobody gains or loses anything\n"


def test_diff_by_key(tmp_path: Path, shipped: str, state: str) -> None:
    after = changed(tmp_path, "[[rules]]\nname='x'\nkeys=['bob']\nallow=['volume.list']\nscope='tenant'\n")
    done = immure("diff", shipped, after, "--by-key", "--state", state)
    assert done.stdout == "bob (worker) gains volume.list (in its own tenants)\n"


CASES = "schema = 1\n[[cases]]\nname='c'\nrole='worker'\npermissions=['run', 'volume.list']\nexpect='allow'\n"


def test_expectations(tmp_path: Path, shipped: str) -> None:
    (tmp_path / "cases.toml").write_text(CASES)
    done = immure("test", shipped, str(tmp_path / "cases.toml"))
    assert status(done) == 1
    assert done.stdout.splitlines() == [
        "FAILED c: volume.list: it is denied: no rule allows 'volume.list' to the key '(any)' (worker)",
        "1 of 2 as expected",
    ]
    (tmp_path / "cases.toml").write_text(CASES.replace(", 'volume.list'", ""))
    assert status(immure("test", shipped, str(tmp_path / "cases.toml"))) == 0


def test_explain_from_a_file(shipped: str) -> None:
    done = immure("explain", "sandbox.exec", "--file", shipped, "--role", "sre", "--owner", "other")
    assert status(done) == 1
    assert "allow sres-look-inside: session: it holds only in a session" in done.stdout
    done = immure("explain", "sandbox.exec", "--file", shipped, "--role", "sre", "--owner", "other", "--in-session")
    assert status(done) == 0
    assert done.stdout.startswith("allowed: the rule 'sres-look-inside' allows it\n")


def test_explain_for_a_key_of_a_state_directory(shipped: str, state: str) -> None:
    assert status(immure("explain", "run", "--file", shipped, "--who", "bob", "--state", state)) == 0
    done = immure(
        "explain", "run", "--file", shipped, "--who", "bob", "--in-tenant", "acme", "--state", state, "--json"
    )
    answer = json.loads(done.stdout)
    assert (status(done), answer["allowed"]) == (1, False)
    assert "may not act in the tenant 'acme'" in answer["why"]


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "runn", "--role", "worker"],
        ["explain", "run", "--role", "wroker"],
        ["explain", "run"],
        ["explain", "run", "--who", "bob"],
    ],
)
def test_explain_of_what_is_not_there(shipped: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        immure(*words, "--file", shipped)
    assert caught.value.code == "bad_argument"


def test_cedar(shipped: str) -> None:
    import cedarpy

    text = immure("cedar", shipped).stdout
    cedarpy.PolicySet.from_str(text)
    assert '@id("sres-look-inside")' in text
