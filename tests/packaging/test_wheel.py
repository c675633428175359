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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 500
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


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that finds neither the tree nor an index."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        command, cwd=cwd, env=surroundings | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment,
        capture_output=True, text=True, timeout=PATIENCE, check=False, umask=0o022,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    place = tmp_path_factory.mktemp("release")
    shutil.copytree(ROOT, place / "tree", symlinks=True, ignore=LEFT_OUT)
    make = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", make, place, cwd=place / "tree")
    shutil.rmtree(place / "tree")
    (made,) = place.glob("immured-*.tar.gz")
    return made


def wheel_of(sources: Path, place: Path, **environment: str) -> tuple[Path, str]:
    """The wheel that the source distribution makes, and what its making said."""
    pip = [sys.executable, "-m", "pip", "wheel", "-v", "--no-cache-dir", "--no-deps", "--no-build-isolation"]
    # What setup.py says, pip repeats on stderr.
    said = run("/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *pip, "-w", place, sources, cwd=place, **environment)
    (made,) = place.glob("immured-*.whl")
    return made, said


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(sources, tmp_path_factory.mktemp("wheel"))[0]


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def install(wheel: Path, place: Path) -> None:
    """Makes an environment with the wheel in it. What the wheel needs is lent by ours; an editable install is not."""
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    python = place / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=place.parent)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("installed") / "venv"
    install(wheel, place)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def moved(installed: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the environment, elsewhere, whose original is out of reach."""
    away = installed.with_name("away")
    shutil.copytree(installed, tmp_path / "moved", symlinks=True)
    installed.rename(away)
    yield tmp_path / "moved"
    away.rename(installed)


@pytest.mark.parametrize("name", ["immured/py.typed", "immured/_core.pyi", "immured/_abi.pyi", LAUNCHER])
def test_the_wheel_holds(names: set[str], name: str) -> None:
    assert name in names


@pytest.mark.parametrize("module", ["_core", "_abi"])
def test_the_wheel_holds_the_native_module(names: set[str], module: str) -> None:
    assert [name for name in names if re.fullmatch(rf"immured/{module}\.[\w.-]*so", name)]


@pytest.mark.parametrize(
    ("folder", "suffix"), [("daemon/immured", ".py"), ("daemon/immured/identity", ".toml"), ("profiles", "")]
)
def test_the_wheel_leaves_out_none_of(names: set[str], folder: str, suffix: str) -> None:
    base = ROOT / folder
    files = [path for path in base.rglob(f"*{suffix}") if path.is_file() and "__pycache__" not in path.parts]
    inside = folder.removeprefix("daemon/") if suffix else "immured/profiles"
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


NATIVE = "(run: native client "
WITHOUT_LIBSODIUM = """#!/bin/sh
case "$*" in *sodium*) echo "sodium.h: no such file" >&2; exit 1 ;; esac
exec gcc "$@"
"""


def is_native(program: Path) -> bool:
    return program.read_bytes()[:4] == b"\x7fELF"


def test_the_installed_immure_is_native(installed: Path) -> None:
    assert is_native(installed / "bin" / "immure")
    assert NATIVE in run(installed / "bin" / "immure", "--version", cwd=installed)


def test_through_a_link_it_finds_its_python(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "immure").symlink_to(installed / "bin" / "immure")
    assert NATIVE in run(tmp_path / "immure", "--version", cwd=tmp_path)


def test_an_environment_that_was_moved_goes_on(moved: Path) -> None:
    assert NATIVE in run(moved / "bin" / "immure", "--version", cwd=moved)


def test_where_we_stand_is_no_place_to_import_from(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "immured.py").write_text("print('planted')")
    (tmp_path / "click.py").write_text("print('planted')")
    assert "planted" not in run(installed / "bin" / "immure", "--version", cwd=tmp_path)


def test_outside_of_a_virtual_environment_pips_script_knows_the_interpreter(wheel: Path, tmp_path: Path) -> None:
    options: list[str | Path] = ["install", "--no-deps", "--prefix", tmp_path / "usr", "--ignore-installed"]
    run(sys.executable, "-m", "pip", *options, wheel, cwd=tmp_path)
    (site,) = tmp_path.glob("usr/lib/python*/site-packages")
    program = tmp_path / "usr/bin/immure"
    assert is_native(program)
    assert NATIVE in run(program, "--version", cwd=tmp_path, PYTHONPATH=str(site))


def test_without_its_python_half_it_says_so(installed: Path, tmp_path: Path) -> None:
    shutil.copy(installed / "bin" / "immure", tmp_path)
    done = subprocess.run([tmp_path / "immure", "run"], capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"immure: not_built: ")


def test_a_python_that_its_user_may_not_execute_is_told_from_one_that_is_missing(
    installed: Path, tmp_path: Path
) -> None:
    place = tmp_path / "bin"
    place.mkdir()
    shutil.copy(installed / "bin" / "immure", place)
    (tmp_path / "pyvenv.cfg").touch()
    (place / "python3").write_text("#!/bin/sh\n")
    (place / "python3").chmod(0o644)
    done = subprocess.run([place / "immure", "status"], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert b"does not start: Permission denied\nremedy: install it where you may execute its Python" in done.stderr


@pytest.mark.needs_root
def test_it_does_not_serve_with_the_rights_of_a_setuid_bit(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "immure"
    shutil.copy(installed / "bin" / "immure", program)
    os.chown(program, 65534, 65534)
    program.chmod(0o6755)
    done = subprocess.run([program, "--version"], capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"immure: setuid: ")


def test_without_libsodium_immure_is_python(sources: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(WITHOUT_LIBSODIUM)
    compiler.chmod(0o755)
    made, said = wheel_of(sources, tmp_path, CC=str(compiler))
    assert "no libsodium" in said
    assert "remedy: apt-get install" in said
    install(made, tmp_path / "venv")
    program = tmp_path / "venv" / "bin" / "immure"
    assert not is_native(program)
    assert not (tmp_path / "venv" / "bin" / "immure-python").exists()
    assert "(run: Python)" in run(program, "--version", cwd=tmp_path)
