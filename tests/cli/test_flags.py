"""Options become one order."""

from __future__ import annotations

from pathlib import Path

import pytest

from immured.cli.flags import Flags, compile_order
from immured.errors import ConfigurationError
from immured.manifest.builtin import parse_map

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    return tmp_path


def test_without_options_the_daemons_default_decides(here: Path) -> None:
    order = compile_order(Flags(), here)
    assert (order.manifest, order.cwd, order.limits) == (None, None, {})


def test_the_newcomers_line(here: Path) -> None:
    order = compile_order(Flags(ro=(".",), rw=("out",)), here)
    assert isinstance(order.manifest, dict)
    assert order.manifest["filesystem"] == {"read": [str(here)], "write": [str(here / "out")]}
    assert order.cwd == str(here)
    assert [bound.source for bound in order.writable] == [str(here / "out")]


def test_every_option_together_is_a_manifest_that_the_daemon_takes(here: Path) -> None:
    flags = Flags(
        ro=(".:/app",), rw=("out:/out",), tmpfs=("/scratch",), rootfs="root", network="none", memory="512M",
        cpus="1.5", pids=64, wall="60s", cpu_time="10s", disk="64M", files=128, output="1M", cores="0-1",
        pin=1, strict=True,
    )  # fmt: skip
    order = compile_order(flags, here)
    assert isinstance(order.manifest, dict)
    manifest = parse_map(order.manifest)
    assert manifest.limits.memory == 512 << 20
    assert manifest.limits.cpus == 1500
    assert (manifest.limits.cores, manifest.limits.pin) == (3, 1)
    assert manifest.limits.strict
    assert manifest.filesystem.root == bytes(here / "root")
    assert manifest.network.mode == "none"


def test_a_relative_cwd_starts_where_we_stand_inside(here: Path) -> None:
    assert compile_order(Flags(ro=(".:/app",), cwd="sub"), here).cwd == "/app/sub"


def test_an_absolute_cwd_is_a_place_inside(here: Path) -> None:
    assert compile_order(Flags(cwd="/usr"), here).cwd == "/usr"


def test_a_variable_is_set_or_passed_on(here: Path) -> None:
    order = compile_order(Flags(env=("A=1=2", "B")), here, {"B": "theirs"})
    assert order.env == {"A": "1=2", "B": "theirs"}


def test_a_variable_that_is_not_there_cannot_be_passed_on(here: Path) -> None:
    with pytest.raises(ConfigurationError, match="MISSING"):
        compile_order(Flags(env=("MISSING",)), here, {})


def test_a_loaded_manifest_is_named_and_only_tightened(here: Path) -> None:
    order = compile_order(Flags(manifest=DIGEST, memory="64M"), here)
    assert (order.manifest, order.limits) == (DIGEST, {"memory": "64M"})


def test_a_loaded_manifest_takes_no_paths(here: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_order(Flags(manifest=DIGEST, ro=(".",)), here)
    assert refused.value.code == "usage"


def test_a_manifests_file_gets_the_paths_added(here: Path) -> None:
    (here / "m.toml").write_text(
        'schema = 1\nname = "m"\nclass = "default"\n[filesystem]\nread = ["/srv"]\n[limits]\ncpus = 1.5\n'
    )
    order = compile_order(Flags(manifest="m.toml", ro=("sub",), wall="5s"), here)
    assert isinstance(order.manifest, dict)
    assert order.manifest["filesystem"] == {"read": ["/srv", str(here / "sub")]}
    assert order.manifest["limits"] == {"cpus": "1.5"}
    assert order.limits == {"wall": "5s"}
    parse_map(order.manifest)


@pytest.mark.parametrize("content", [b"schema = ", b"\xff", b"#" * (257 * 1024)])
def test_a_manifests_file_that_cannot_be_read_is_named(here: Path, content: bytes) -> None:
    (here / "m.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"m\.toml"):
        compile_order(Flags(manifest="m.toml"), here)


def test_a_manifests_file_that_is_missing_is_named(here: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml"):
        compile_order(Flags(manifest="nothing.toml"), here)


@pytest.mark.parametrize(
    ("text", "said"), [("a = " + "[" * 9000, "nested too deeply"), ("a = " + "9" * 9000, "64 bits")]
)
def test_a_file_that_the_reader_gives_up_on_is_no_manifest(here: Path, text: str, said: str) -> None:
    (here / "a.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=said) as refusal:
        compile_order(Flags(manifest="a.toml"), here)
    assert refusal.value.code == "bad_manifest"


def test_a_class_alone_is_a_manifest_of_it(here: Path) -> None:
    order = compile_order(Flags(class_="default"), here)
    assert order.manifest == {"schema": 1, "name": "command-line", "class": "default"}


def test_what_is_filled_in_goes_with_the_order(here: Path) -> None:
    order = compile_order(Flags(manifest=DIGEST, settings=("project=/srv/a=b", "n=5", "empty=")), here)
    assert order.parameters == {"project": "/srv/a=b", "n": "5", "empty": ""}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(settings=("project",)), "--set 'project' fills nothing in"),
        (Flags(settings=("=x",)), "--set '=x' fills nothing in"),
        (Flags(settings=("a=1", "a=1")), "--set fills a in twice"),
        (Flags(settings=("a=\x1b[2J",)), "--set 'a=\\x1b[2J' holds what is no text"),
        (Flags(settings=("a=\udcff",)), "--set 'a=\\udcff' holds what is no text"),
        (Flags(manifest=DIGEST, class_="strict"), "--class beside --manifest"),
    ],
)
def test_what_fills_nothing_in_is_a_mistake(here: Path, flags: Flags, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_order(flags, here)
    assert (refused.value.code, refused.value.message) == ("usage", message)
