"""From what was asked for to what is granted: on a real tree, without a sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immured.learning.grants import COLLAPSE, MOST, Grants, grants_of
from immured.learning.host import Host, roots
from immured.learning.secret import is_secret
from immured.learning.write import Learned, manifest_text, needs_network, profile_of
from immured.manifest.builtin import parse_toml


def asked(tmp_path: Path, **paths: list[str | bytes]) -> Grants:
    return grants_of(paths, [str(tmp_path)], str(tmp_path / "home"), Host())


def touch(*files: Path) -> None:
    for one in files:
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text("")


def test_many_files_of_a_directory_are_the_directory(tmp_path: Path) -> None:
    files = [tmp_path / "d" / f"{i}" for i in range(COLLAPSE)]
    touch(*files, tmp_path / "e" / "x")
    found = asked(tmp_path, read=[*map(str, files), f"{tmp_path}/e/x"])
    assert set(found.read) == {f"{tmp_path}/d", f"{tmp_path}/e/x"}
    found = asked(tmp_path, read=[*map(str, files[1:])])
    assert set(found.read) == set(map(str, files[1:]))


def test_a_home_is_never_what_its_files_become(tmp_path: Path) -> None:
    files = [tmp_path / "home" / f"{i}" for i in range(3 * COLLAPSE)]
    touch(*files)
    assert set(asked(tmp_path, read=[*map(str, files)]).read) == set(map(str, files))


def test_a_manifest_has_no_more_paths_than_one_may_have(tmp_path: Path) -> None:
    files = [tmp_path / f"{i % 97}" / f"{i}" for i in range(400)]
    touch(*files)
    found = asked(tmp_path, read=[*map(str, files)])
    assert len(found.read) + len(found.write) <= MOST
    assert all(any(str(one).startswith(path) for path in found.read) for one in files)


def test_what_is_made_is_written_where_there_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    found = asked(tmp_path, write=[f"{tmp_path}/out/deep/er/file"], read=[f"{tmp_path}/out/deep/er/file"])
    assert (list(found.write), found.read) == ([f"{tmp_path}/out"], {})


def test_what_changes_in_place_is_that_file_alone(tmp_path: Path) -> None:
    touch(tmp_path / "d" / "log")
    found = asked(tmp_path, write=[f"{tmp_path}/d/log"], read=[f"{tmp_path}/d/log"])
    assert (list(found.write), found.read) == ([f"{tmp_path}/d/log"], {})


def test_a_directory_that_is_only_looked_at_is_there_and_empty(tmp_path: Path) -> None:
    touch(tmp_path / "d" / "secret", tmp_path / "e" / "used")
    found = asked(tmp_path, look=[f"{tmp_path}/d", f"{tmp_path}/e"], read=[f"{tmp_path}/e/used"])
    assert (list(found.exists), list(found.read)) == ([f"{tmp_path}/d"], [f"{tmp_path}/e/used"])
    text = manifest_text(Learned((), "", None, found, (), (), {}, {}, cut=False), {})
    manifest = parse_toml(text).filesystem
    assert manifest.hide == (f"{tmp_path}/d".encode(),)
    assert f"{tmp_path}/d".encode() in [bind.source for bind in manifest.read]


def test_a_secret_within_what_is_granted_is_hidden(tmp_path: Path) -> None:
    touch(tmp_path / "d" / "x.pem", *(tmp_path / "d" / f"{i}" for i in range(COLLAPSE)))
    found = asked(tmp_path, read=[f"{tmp_path}/d", f"{tmp_path}/d/x.pem"])
    assert (list(found.read), list(found.hide)) == ([f"{tmp_path}/d"], [f"{tmp_path}/d/x.pem"])
    assert f"{tmp_path}/d/x.pem" in found.withheld


@pytest.mark.parametrize("name", ["x.pem", "a.KEY", "id_rsa", "id_ed25519", ".netrc", ".env", "secrets.yml"])
def test_what_a_secret_is_called(name: str) -> None:
    assert is_secret(f"/srv/{name}", None)
    assert not is_secret(f"/srv/{name}.py", None) or name.startswith((".env", "id_"))


def test_what_lies_in_a_homes_places(tmp_path: Path) -> None:
    assert is_secret("/h/.ssh/config", "/h")
    assert is_secret("/h/.aws", "/h")
    assert not is_secret("/h/.sshx", "/h")
    assert not is_secret("/other/.ssh/config", "/h")


def test_names_that_are_no_text_and_hostile_comments(tmp_path: Path) -> None:
    evil = tmp_path / 'a"\n[syscalls]\nprofile = "default"'
    touch(evil)
    found = asked(tmp_path, read=[str(evil), b"/\xff"])
    text = manifest_text(Learned(["x\ny"], "z\n", None, found, (), (), {}, {}, cut=True), {})
    manifest = parse_toml(text)
    assert [bind.source for bind in manifest.filesystem.read] == [str(evil).encode()]
    assert manifest.syscalls.profile == "compute"


def test_the_smallest_profile_that_suffices() -> None:
    assert profile_of(["openat"], {}) == ("compute", [])
    assert profile_of(["openat", "socket"], {}) == ("default", [])
    assert profile_of(["socket", "ptrace", "#999"], {}) == ("default", ["ptrace"])
    assert profile_of(["ptrace"], {"profile": "compute", "allow": ["socket"]}) == ("compute", ["socket", "ptrace"])


def test_a_network_is_for_loopback_alone() -> None:
    assert needs_network(["127.0.0.1:80"])
    assert needs_network(["[::1]:80"])
    assert not needs_network(["192.0.2.1:80", "[2001:db8::1]:80"])
    assert not needs_network([])


def test_what_is_shown_begins_at_the_top_and_covers_where_one_stands(tmp_path: Path) -> None:
    found = roots(str(tmp_path), None)
    assert str(tmp_path) in found
    assert not {"/usr", "/etc", "/proc", "/tmp", "/var", "/"} & set(found)


def test_a_secret_below_what_the_base_grants_is_hidden_unless_it_names_it(tmp_path: Path) -> None:
    touch(tmp_path / "p" / ".env", tmp_path / "home" / ".netrc")
    secret, shown = f"{tmp_path}/p/.env", [str(tmp_path)]
    for base, hidden in ((f"{tmp_path}/p", [secret]), (secret, []), (f"{tmp_path}/home", [f"{tmp_path}/home/.netrc"])):
        found = grants_of({"read": [secret]}, shown, f"{tmp_path}/home", Host(), [base])
        assert list(found.hide) == hidden


def test_what_a_bind_could_not_write_is_not_granted(tmp_path: Path) -> None:
    """The kernel writes nowhere in a mapped mount where the group is not mapped."""
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", -1, 61234)
    assert asked(tmp_path, write=[f"{tmp_path}/out/new"]).write == {}
