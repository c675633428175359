"""`make install` and its reverse: an environment of its own below PREFIX/lib, two commands, three units, an account.

Runs under the Python that the daemon will run under, with nothing but its standard library. Idempotent: over an older
installation it is an upgrade, which keeps live sandboxes.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / ".build" / "wheels"
SOURCES = ("daemon", "native", "profiles", "pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "_native", "*.egg-info")
UNITS = ("immured.socket", "immured-launcher.service", "immured.service")
STATE = Path("/var/lib/immured")
ACCOUNT = "immured"
OLDEST_PYTHON = (3, 11)
NEWER = {254: "immured-launcher.service.d-254.conf"}
"""systemd's version -> the drop-in for it and later."""


class Wrong(Exception):
    """What keeps it from being done, and what to do about it."""


class Place:
    """Where everything goes. `root` is DESTDIR: somebody packages, and nothing is started."""

    def __init__(self, prefix: Path, root: Path | None) -> None:
        self.prefix = prefix
        self.root = root
        self.library = self.at(prefix / "lib" / "immured")
        self.units = self.at(prefix / "lib" / "systemd" / "system")

    def at(self, path: Path) -> Path:
        """The path as it is written to now."""
        return path if self.root is None else self.root / path.relative_to("/")

    def links(self) -> dict[Path, Path]:
        """Commands, and what they lead to."""
        inside = self.prefix / "lib" / "immured" / "bin"
        return {
            self.at(self.prefix / "bin" / "immure"): inside / "immure",
            self.at(self.prefix / "sbin" / "immured"): inside / "immured",
        }

    def files(self) -> dict[Path, Path]:
        """What is copied: where to, where from."""
        found = {self.units / name: ROOT / "systemd" / "system" / name for name in UNITS}
        for kind in ("sysusers.d", "tmpfiles.d"):
            found[self.at(self.prefix / "lib" / kind / "immured.conf")] = ROOT / "systemd" / kind / "immured.conf"
        for oldest, name in NEWER.items():
            if systemd_version() >= oldest:
                unit, _, number = name.removesuffix(".conf").rpartition(".d-")
                found[self.units / f"{unit}.d" / f"{number}.conf"] = ROOT / "systemd" / "drop-ins" / name
        found[self.at(self.prefix / "share" / "doc" / "immured" / "systemd.md")] = ROOT / "docs" / "systemd.md"
        return found


def run(*command: str | Path, check: bool = True, quiet: bool = False) -> int:
    """One command; its exit status. Raises Wrong."""
    out = subprocess.DEVNULL if quiet else None
    # What a developer's shell has Python find is not what is installed.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=clean, umask=0o022
    )
    if check and done.returncode != 0:
        raise Wrong(f"{' '.join(map(str, command))}: exit status {done.returncode}")
    return done.returncode


def systemd_version() -> int:
    """Of the manager that is installed; 0 where there is none."""
    try:
        said = subprocess.run(["systemctl", "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    number = said.split()[1]
    return int(number) if number.isdecimal() else 0


def check_python() -> None:
    """Everybody can read the interpreter: the broker is a user of its own. Raises Wrong."""
    if sys.version_info < OLDEST_PYTHON:
        raise Wrong(f"{sys.executable} is Python {sys.version_info.major}.{sys.version_info.minor}; 3.11 is needed")
    for path in Path(sys.executable).resolve().parents:
        if not path.stat().st_mode & stat.S_IXOTH or path in (Path("/home"), Path("/root")):
            raise Wrong(
                f"{sys.executable} lies in {path}, where the broker's user cannot read: SYSTEM_PYTHON=/usr/bin/python3"
            )


def make_wheels() -> None:
    """Our own wheel, and what it needs, as this Python wants them; what is there already is not fetched again."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="immured-wheel-") as made:
        tree = Path(made) / "tree"
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=LEFT_OUT)
            else:
                shutil.copy2(source, tree / name)
        run(sys.executable, "-m", "venv", Path(made) / "env")
        pip: list[str | Path] = [Path(made) / "env" / "bin" / "python3", "-m", "pip", "wheel", "-q"]
        for old in WHEELS.glob("immured-*.whl"):
            old.unlink()
        run(*pip, "--find-links", WHEELS, "-w", WHEELS, f"{tree}[daemon,cli]")


def install(place: Place) -> None:
    """Put everything in its place, and where this is no packaging, start it. Raises Wrong."""
    check_python()
    if not any(WHEELS.glob("immured-*.whl")):
        raise Wrong("there are no wheels yet: make wheels")
    _environment(place)
    for link, target in place.links().items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    for target, source in place.files().items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text().replace("/usr/local", str(place.prefix)))
        target.chmod(0o644)
    if place.root is None:
        _start(place)


def _environment(place: Place) -> None:
    """The environment, made beside the one in use and put in its place when it is whole."""
    library = place.library
    fresh, old = library.with_name("immured.new"), library.with_name("immured.old")
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    library.parent.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "venv", fresh)
    run(
        fresh / "bin" / "python3", "-m", "pip", "install", "--quiet", "--no-index", "--find-links", WHEELS,
        "--disable-pip-version-check", "immured[daemon,cli]",
    )  # fmt: skip
    run(fresh / "bin" / "python3", "-m", "compileall", "-q", fresh / "lib", quiet=True, check=False)
    if library.exists():
        library.rename(old)
    fresh.rename(library)
    # Scripts of pip's name the interpreter that they were made for.
    final = place.prefix / "lib" / "immured"
    for script in (library / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and (text := script.read_bytes()).startswith(b"#!"):
            script.write_bytes(text.replace(os.fsencode(fresh), os.fsencode(final)))
    (library / "pyvenv.cfg").write_text((library / "pyvenv.cfg").read_text().replace(str(fresh), str(final)))
    shutil.rmtree(old, ignore_errors=True)


def _start(place: Place) -> None:
    run("systemd-sysusers", place.at(place.prefix / "lib" / "sysusers.d" / "immured.conf"))
    directories = place.at(place.prefix / "lib" / "tmpfiles.d" / "immured.conf")
    run("systemd-tmpfiles", "--create", directories)
    if not (STATE / "keys").exists():
        run(place.prefix / "lib" / "immured" / "bin" / "immure", "init", "--state", STATE, quiet=True)
        run("systemd-tmpfiles", "--create", directories)
    if not Path("/run/systemd/system").exists():
        return
    run("systemctl", "daemon-reload")
    if run("systemctl", "is-active", "--quiet", "immured-launcher.service", check=False) == 0:
        run("systemctl", "reload", "immured-launcher.service")  # its own successor: same process, same sandboxes
        run("systemctl", "restart", "immured.service")
    run("systemctl", "enable", "--quiet", "--now", "immured.socket")


def uninstall(place: Place, *, purge: bool) -> None:
    """Stop, and take away what `install` put there; the state directory and the account too with `purge`."""
    if place.root is None and Path("/run/systemd/system").exists():
        run("systemctl", "disable", "--quiet", "--now", "immured.socket", check=False)
        run("systemctl", "stop", "immured-launcher.service", "immured.service", check=False)
    for path in (*place.links(), *place.files()):
        path.unlink(missing_ok=True)
        if path.parent.name.endswith(".d") and path.parent.parent == place.units and path.parent.exists():
            path.parent.rmdir()
    shutil.rmtree(place.library, ignore_errors=True)
    shutil.rmtree(place.at(place.prefix / "share" / "doc" / "immured"), ignore_errors=True)
    if place.root is None and Path("/run/systemd/system").exists():
        run("systemctl", "daemon-reload")
        run("systemctl", "reset-failed", "immured.socket", "immured-launcher.service", "immured.service",
            check=False, quiet=True)  # fmt: skip
    if purge and place.root is None:
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree("/run/immured", ignore_errors=True)
        if any(account.pw_name == ACCOUNT for account in pwd.getpwall()):
            run("userdel", ACCOUNT)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("act", choices=["wheels", "install", "uninstall"])
    parser.add_argument("--prefix", type=Path, default=Path("/usr/local"))
    parser.add_argument("--destdir", type=Path, help="a directory to package from; nothing is started")
    parser.add_argument("--purge", action="store_true", help="of uninstall: the state directory and the account too")
    given = parser.parse_args()
    place = Place(given.prefix, given.destdir.absolute() if given.destdir else None)
    try:
        if given.act == "wheels":
            make_wheels()
            return 0
        if place.root is None and os.geteuid() != 0:
            raise Wrong("this needs root, or DESTDIR= for packaging")
        if given.act == "install":
            install(place)
        else:
            uninstall(place, purge=given.purge)
    except (Wrong, OSError) as error:
        print(f"{given.act}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
