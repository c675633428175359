"""`immure preflight`: a line each, and an exit status that a script can go by."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.patience import PATIENCE_S
from tests.preflight.scene import Scene, manifest, scene, signed

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    with scene() as made:
        yield made


def immure(stage: Scene, *words: str, key: str = "worker") -> subprocess.CompletedProcess[str]:
    path = stage.place / f"{key}.pem"
    path.write_bytes(stage.keys[key].to_pem())
    command = [sys.executable, "-m", "immured.cli", "preflight", "--socket", str(stage.daemon.socket)]
    command += ["--key", str(path), "--daemon-key", str(stage.daemon.daemon_key), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=stage.place, check=False)


def test_where_nothing_fails_it_exits_0_and_says_a_line_each(stage: Scene) -> None:
    digest = stage.load(manifest("build"), stage.keys["release"])
    done = immure(stage, "--manifest", digest, "--", "/bin/true", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line[:6] in ("pass  ", "warn  ") for line in lines)
    assert [line.split()[1] for line in lines if line.split()[1] != "audit"][:3] == ["persona", "signature", "command"]
    assert "\x1b" not in done.stdout


def test_where_something_fails_it_exits_1_and_says_what_to_do(stage: Scene) -> None:
    digest = stage.load(manifest("asks", more="[consent]\nrequired = true"), stage.keys["release"])
    done = immure(stage, "--manifest", digest)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert line.startswith("fail  consent       ")
    assert line.endswith(f"; remedy: immure consent accept {digest}")


def test_as_json(stage: Scene) -> None:
    done = immure(stage, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ready"], told["verdict"] in ("pass", "warn")) == (0, True, True)
    assert {"check", "verdict", "words"} <= set(told["rows"][0])
    assert told["receipt"]["seq"] > 0


def test_a_file_with_its_signatures_beside_it(stage: Scene) -> None:
    raw = manifest("file")
    path = stage.place / "file.toml"
    path.write_bytes(raw)
    (stage.place / "file.toml.sig").write_bytes(signed(raw, stage.keys["release"]))
    done = immure(stage, "--manifest", "file.toml", key="spare")
    assert done.returncode == 0
    assert "warn  signature     " in done.stdout
    assert "remedy: immure manifest load F" in done.stdout
    other = stage.place / "elsewhere.sig"
    other.write_bytes(signed(raw + b"\n", stage.keys["release"]))
    done = immure(stage, "--manifest", str(path), "--signatures", str(other), key="spare")
    assert done.returncode == 1
    assert "fail  signature     " in done.stdout


def test_a_file_without_is_what_a_run_would_send(stage: Scene) -> None:
    (stage.place / "mine.toml").write_bytes(manifest("mine"))
    done = immure(stage, "--manifest", "mine.toml", key="runner")
    assert done.returncode == 0
    assert "comes with the command, whose own signature covers it" in done.stdout
    assert immure(stage, "--manifest", "mine.toml").returncode == 1  # a worker sends none


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--manifest", "nowhere.toml"), "nowhere.toml"),
        (("--manifest", "sha256:" + "0" * 64), "unknown_manifest"),
        (("--manifest", "sha256:" + "0" * 64, "--signatures", "x"), "--signatures without a file"),
    ],
)
def test_what_is_no_manifest(stage: Scene, words: tuple[str, ...], said: str) -> None:
    done = immure(stage, *words)
    assert (done.returncode, said in done.stderr, done.stdout) == (1, True, "")
