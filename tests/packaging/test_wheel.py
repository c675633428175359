"""The way of a release: source distribution, wheel, installation. What arrives is whole, and runs without the tree."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
LAUNCHER = "immured/_native/immured-launcher"
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "results", "_native", "__pycache__", "*.so", "*.egg-info")
THROUGH_A_DAEMON = """
import immured
from immured import Client
from immured.client.throwaway import ThrowawayDaemon

with ThrowawayDaemon() as daemon, Client(socket=daemon.socket, key=daemon.admin_key) as client:
    result = client.run(["/bin/true"])
    print(immured.__file__, result.cause, result.exit_code)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that finds neither the tree nor an index."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        command, cwd=cwd, env=surroundings | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True, text=True, timeout=PATIENCE, check=False, umask=0o022,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the source distribution makes."""
    place = tmp_path_factory.mktemp("release")
    shutil.copytree(ROOT, place / "tree", symlinks=True, ignore=LEFT_OUT)
    make = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", make, place, cwd=place / "tree")
    shutil.rmtree(place / "tree")
    (sources,) = place.glob("immured-*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", place, sources, cwd=place)
    (made,) = place.glob("immured-*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with the wheel in it. What the wheel needs is lent by ours; an editable install is not."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    python = place / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=place.parent)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["immured/py.typed", "immured/_core.pyi", "immured/_abi.pyi", LAUNCHER])
def test_the_wheel_holds(names: set[str], name: str) -> None:
    assert name in names


@pytest.mark.parametrize("module", ["_core", "_abi"])
def test_the_wheel_holds_the_native_module(names: set[str], module: str) -> None:
    assert [name for name in names if re.fullmatch(rf"immured/{module}\.[\w.-]*so", name)]


@pytest.mark.parametrize(("folder", "suffix"), [("daemon/immured", ".py"), ("profiles", "")])
def test_the_wheel_leaves_out_none_of(names: set[str], folder: str, suffix: str) -> None:
    base = ROOT / folder
    files = [path for path in base.rglob(f"*{suffix}") if path.is_file() and "__pycache__" not in path.parts]
    inside = "immured" if suffix else "immured/profiles"
    assert {f"{inside}/{path.relative_to(base)}" for path in files} <= names


def test_the_wheel_holds_nothing_but_the_package(names: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in names} == {"immured"}


def test_nothing_of_a_build_or_its_sources_is_in_the_wheel(names: set[str]) -> None:
    assert not [name for name in names if name.endswith((".pyc", ".c", ".h", ".o", ".pyx"))]


def test_the_installed_launcher_can_be_executed(installed: Path) -> None:
    (launcher,) = installed.glob(f"lib/python*/site-packages/{LAUNCHER}")
    assert stat.S_IMODE(launcher.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["immure", "immured"])
def test_an_installed_script_starts(installed: Path, name: str) -> None:
    assert run(installed / "bin" / name, "--version", cwd=installed).startswith(f"{name} ")


@pytest.mark.needs_root
def test_what_is_installed_runs_a_program_through_a_daemon(installed: Path) -> None:
    where, *end = run(installed / "bin" / "python", "-c", THROUGH_A_DAEMON, cwd=installed).split()
    assert Path(where).is_relative_to(installed)
    assert end == ["exited", "0"]
