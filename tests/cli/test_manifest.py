"""`immure manifest` without a daemon: what it says and writes, and with which exit status."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.cli.flags import Flags, compile_order
from immured.errors import ConfigurationError, Refused
from immured.manifest.builtin import CLASSES, class_manifest, parse_toml
from immured.manifest.difference import difference
from immured.manifest.signature import parse_signatures, verify
from immured.wire.keys import PrivateKey, PublicKey
from tests.client.ssh_agents import make_key, ssh_agent

ADA, BOB = PrivateKey(bytes([1]) * 32), PrivateKey(bytes([2]) * 32)
TEXT = """\
schema = 1
name = "build"
class = "default"
personas = ["operator"]

[command]
allow = ["make"]

[filesystem]
write = ["/srv/build"]
protect = ["@vcs"]
"""


def immure(*words: str) -> Result:
    return CliRunner().invoke(app, ["manifest", *words], catch_exceptions=False, standalone_mode=False)


def status(result: Result) -> object:
    """The exit status that `ctx.exit` was called with."""
    return result.return_value if result.return_value is not None else result.exit_code


def said(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "build.toml").write_text(TEXT)
    for name, key in (("ada", ADA), ("bob", BOB)):
        (tmp_path / f"{name}.pem").write_bytes(key.to_pem())
        (tmp_path / f"{name}.pub").write_bytes(key.public.to_pem())
    return str(tmp_path / "build.toml")


def beside(file: str, name: str) -> str:
    return str(Path(file).with_name(name))


def sign(file: str, who: str, *options: str) -> Result:
    return immure("sign", file, "--key", beside(file, f"{who}.pem"), *options)


@pytest.mark.parametrize("name", CLASSES)
def test_a_new_one_is_what_its_class_is(name: str) -> None:
    made = parse_toml(immure("new", "mine", "--class", name).stdout)
    base = class_manifest(name)
    assert base is not None
    assert (made.name, made.class_) == ("mine", name)
    found = difference(base, made)
    assert (found.added, found.removed) == ((), ())


@pytest.mark.parametrize("name", CLASSES)
def test_each_line_of_a_new_one_is_there_to_be_changed(name: str) -> None:
    """With every `#` before an assignment taken away it says the same, and takes what it says."""
    text = immure("new", "mine", "--class", name).stdout
    tables = [line for line in text.split("\n") if re.fullmatch(r"(# )?\[[a-z.]+\]", line)]
    assert len({line.removeprefix("# ") for line in tables}) == len(tables)
    kept = [line for line in text.split("[parameters.project]")[0].split("\n") if not line.startswith("# What a run")]
    bare = [line[2:] if " = " in line and line.startswith("# ") else line for line in kept]
    bare = [line for line in bare if not line.startswith(("personas", "tenants"))]
    made, base = parse_toml("\n".join(bare)), class_manifest(name)
    assert base is not None
    found = difference(base, made)
    assert (found.added, found.removed) == ((), ())


def test_a_new_one_overwrites_nothing(file: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        immure("new", "mine", "--out", file)
    assert (refused.value.code, refused.value.message) == ("exists", f"{file} exists")
    assert Path(file).read_text() == TEXT


def test_a_new_one_has_a_name_that_can_be_one() -> None:
    with pytest.raises(Refused) as refused:
        immure("new", 'x"\nclass = "y')
    assert refused.value.code == "manifest_invalid"


def test_what_is_signed_is_the_file_as_it_is(file: str) -> None:
    before = time.time_ns() // 1_000_000
    facts = said(sign(file, "ada", "--json"))
    (made,) = parse_signatures(Path(file + ".sig").read_text())
    assert verify(made, ADA.public, TEXT.encode())
    assert facts["key"] == made.key_id == ADA.id
    assert facts["digest"] == parse_toml(TEXT).digest
    assert before <= made.signed_ms <= time.time_ns() // 1_000_000
    assert made.expires_ms - made.signed_ms == 90 * 86_400_000
    assert Path(file + ".sig").stat().st_mode & 0o777 == 0o644


def test_a_key_in_an_agent_signs(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(tmp_path / "key", comment="release")
    with ssh_agent(tmp_path) as agent:
        agent.add(key)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
        immure("sign", file, "--key", "agent:release")
    (made,) = parse_signatures(Path(file + ".sig").read_text())
    assert verify(made, PublicKey.from_pem(key.with_suffix(".pub").read_bytes()), TEXT.encode())


def test_another_key_signs_beside_the_first(file: str) -> None:
    sign(file, "ada")
    sign(file, "bob", "--expires", "1h")
    assert [one.key_id for one in parse_signatures(Path(file + ".sig").read_text())] == [ADA.id, BOB.id]
    sign(file, "ada", "--expires", "2h")
    found = parse_signatures(Path(file + ".sig").read_text())
    assert [(one.key_id, one.expires_ms - one.signed_ms) for one in found] == [(BOB.id, 3600_000), (ADA.id, 7200_000)]
    sign(file, "ada", "--alone")
    assert [one.key_id for one in parse_signatures(Path(file + ".sig").read_text())] == [ADA.id]


def test_signatures_of_an_earlier_text_are_dropped_and_that_is_said(file: str) -> None:
    sign(file, "ada")
    sign(file, "bob")
    Path(file).write_text(TEXT.replace("make", "ninja"))
    done = sign(file, "bob")
    assert "1 signatures of other keys are dropped" in done.stderr
    assert [one.key_id for one in parse_signatures(Path(file + ".sig").read_text())] == [BOB.id]


def test_what_no_daemon_takes_is_not_signed(file: str) -> None:
    Path(file).write_text(TEXT + "[nettwork]\n")
    with pytest.raises(Refused) as refused:
        sign(file, "ada")
    assert refused.value.code == "manifest_invalid"
    assert refused.value.message == f"{file}: manifest holds an unknown field 'nettwork'"
    assert not Path(file + ".sig").exists()


@pytest.mark.parametrize("span", ["367d", "0s", "366d1h"])
def test_a_time_that_no_reader_takes_is_a_mistake(file: str, span: str) -> None:
    with pytest.raises(click.UsageError):
        sign(file, "ada", "--expires", span)
    assert not Path(file + ".sig").exists()


def test_a_damaged_signature_file_is_not_written_over(file: str) -> None:
    Path(file + ".sig").write_text("signed, honestly\n")
    with pytest.raises(Refused) as refused:
        sign(file, "ada")
    assert refused.value.code == "signature_invalid"
    assert Path(file + ".sig").read_text() == "signed, honestly\n"


def test_verify_by_keys(file: str) -> None:
    sign(file, "ada")
    sign(file, "bob")
    public = ["--public", beside(file, "ada.pub")]
    done = immure("verify", file, *public, "--json")
    assert status(done) == 0
    assert [one["verdict"] for one in said(done)["signatures"]] == ["valid", "unknown key"]
    done = immure("verify", file, *public, "--public", BOB.public.raw.hex(), "--json")
    assert [one["verdict"] for one in said(done)["signatures"]] == ["valid", "valid"]
    stranger = PrivateKey(bytes([3]) * 32)
    done = immure("verify", file, "--public", stranger.public.raw.hex(), "--json")
    assert (status(done), said(done)["verified"]) == (1, False)


def test_verify_finds_another_text(file: str) -> None:
    sign(file, "ada")
    Path(file).write_text(TEXT.replace("make", "ninja"))
    done = immure("verify", file, "--public", beside(file, "ada.pub"))
    assert status(done) == 1
    assert done.stdout.rstrip().endswith(": not over these bytes")


def test_a_file_without_signatures_is_told_how_to_get_one(file: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        immure("verify", file, "--public", beside(file, "ada.pub"))
    assert (refused.value.code, refused.value.message) == ("no_signatures", f"{file}.sig: No such file or directory")


def test_lint_tells_all_of_it_by_line(file: str) -> None:
    lines = ["schema = 1", 'name = "x"', "[limits]", 'memory = "1K"', "pids = 0", "[filesystem]", 'read = ["x", "/a"]']
    Path(file).write_text("\n".join(lines))
    done = immure("lint", file)
    assert status(done) == 1
    assert done.stdout.splitlines() == [
        f"{file}:4: error: manifest.limits.memory is '1K'; it may be 1M to 1024T (invalid)",
        f"{file}:5: error: manifest.limits.pids is '0'; it may be 1 to 4194304 (invalid)",
        f"{file}:7: error: manifest.filesystem.read holds 'x', which is not absolute (invalid)",
    ]


def test_lint_fails_for_warnings_where_it_is_told_to(file: str) -> None:
    assert status(immure("lint", file)) == 0
    Path(file).write_text(TEXT + '[limits]\nwall = "none"\n')
    assert status(immure("lint", file)) == 0
    assert status(immure("lint", file, "--strict")) == 1


def test_show_says_what_is_admitted_and_who_signed(file: str) -> None:
    assert "signed by   nobody" in immure("show", file).stdout
    sign(file, "ada")
    lines = immure("show", file).stdout.splitlines()
    assert lines[0] == f"digest      {parse_toml(TEXT).digest}"
    assert any(line.startswith(f"signed by   {ADA.id}, until ") and line.endswith("not verified") for line in lines)
    assert "filesystem.write          writes to /srv/build" in lines
    assert "command.allow             allows the program make with any arguments" in lines
    assert said(immure("show", file, "--json"))["admits"]["filesystem.protect"] == ["leaves @vcs as it is"]
    assert immure("show", file, "--raw").stdout == TEXT


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_shown_by_its_name(name: str) -> None:
    lines = immure("show", name).stdout.splitlines()
    assert lines[1:4] == [f"name        {name}", f"class       {name}", "signed by   nobody: it is a class"]


def test_diff_beside_the_class_or_another(file: str) -> None:
    done = immure("diff", file)
    assert status(done) == 0
    assert "+ high      filesystem.write          writes to /srv/build, which it could not" in done.stdout.splitlines()
    assert "- critical  command.allow             allows any command no more" in done.stdout.splitlines()
    assert immure("diff", file, "--against", file).stdout == "they admit the same\n"
    assert said(immure("diff", file, "--against", "strict", "--json"))["severity"] == "high"


@pytest.mark.parametrize(("severity", "exits"), [("low", 1), ("high", 1), ("critical", 0)])
def test_diff_fails_where_so_much_is_added(file: str, severity: str, exits: int) -> None:
    assert status(immure("diff", file, "--fail", severity)) == exits
    assert status(immure("diff", file, "--against", file, "--fail", severity)) == 0


def test_the_schema_is_one() -> None:
    assert said(immure("schema"))["$schema"].startswith("http://json-schema.org/")


def test_a_run_names_a_signed_file_by_its_digest(file: str) -> None:
    here = Path(file).parent
    assert isinstance(compile_order(Flags(manifest="build.toml"), here).manifest, dict)
    sign(file, "ada")
    digest = parse_toml(TEXT).digest
    order = compile_order(Flags(manifest="build.toml", memory="64M", env=("A=b",)), here)
    assert (order.manifest, order.limits, order.env) == (digest, {"memory": "64M"}, {"A": "b"})


@pytest.mark.parametrize(
    "amended", [Flags(manifest="build.toml", ro=("/srv",)), Flags(manifest="build.toml", network="none")]
)
def test_a_signed_file_to_which_something_is_added_is_sent_whole(file: str, amended: Flags) -> None:
    sign(file, "ada")
    assert isinstance(compile_order(amended, Path(file).parent).manifest, dict)


def test_a_signed_file_is_sent_whole_to_who_builds_on_it(file: str) -> None:
    sign(file, "ada")
    assert isinstance(compile_order(Flags(manifest="build.toml"), Path(file).parent, by_digest=False).manifest, dict)
