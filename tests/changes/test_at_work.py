"""A directory that lies below a layer cannot be renamed there (EXDEV): what people use does well all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.changes.project import CALLER, Captured

AUTHOR = "; ".join(f"export GIT_{who}_{what}=somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL"))

_WHEELS = r"""
import zipfile
for v in "12":
    about = f"thing-{v}.dist-info"
    files = {
        "thing/__init__.py": f"VERSION = {v}",
        f"thing/only{v}.py": "",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: thing\nVersion: {v}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(f"thing-{v}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
"""


def _git(project: Path, *words: str) -> str:
    """On the host, as its owner."""
    done = subprocess.run(
        ["git", "-C", str(project), *words], user=CALLER, group=CALLER, extra_groups=[], env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_rename_is_refused_and_mv_copies(captured: Captured) -> None:
    said = captured.python(
        "import errno, os\ntry: os.rename('dir', 'moved')\nexcept OSError as error: print(errno.errorcode[error.errno])"
    )
    assert said == b"EXDEV\n"
    captured.sh("mv dir moved; mkdir inner; mv moved inner/again")
    captured.accept()
    assert (captured.path / "inner" / "again" / "sub" / "c").read_text() == "c\n"
    assert not (captured.path / "dir").exists()


def test_git_has_directories_moved_by_mv(capture: Callable[..., Captured], project: Path) -> None:
    _git(project, "init", "-q", "-b", "main")
    _git(project, "add", ".")
    _git(project, "-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "-m", "first")
    captured = capture()
    captured.sh(
        f"{AUTHOR}; set -e; git checkout -q -b work; git mv a.txt b.txt; git mv b.txt a.txt; "
        "! git mv dir moved 2>/dev/null; mv dir moved; git add -A; git commit -q -m moved; "
        "echo more >> a.txt; git commit -q -a -m more; git gc -q; git checkout -q main; git merge -q work; "
        'test -z "$(git status --porcelain)"'
    )
    captured.accept()
    assert _git(project, "log", "--format=%s").split() == ["more", "moved", "first"]
    assert _git(project, "status", "--porcelain") == ""
    _git(project, "fsck", "--strict")


def test_pip_installs_over_what_was_there(captured: Captured, capture: Callable[..., Captured]) -> None:
    captured.python(_WHEELS)
    install = "python3 -m pip install -q --no-index --no-deps --disable-pip-version-check --target site --upgrade"
    captured.sh(f"{install} ./thing-1-py3-none-any.whl")
    captured.accept()
    assert (captured.path / "site" / "thing" / "only1.py").exists()
    captured.sandbox.kill()
    later = capture()
    later.sh(f"{install} ./thing-2-py3-none-any.whl")
    assert later.python("import sys; sys.path.insert(0, 'site'); import thing; print(thing.VERSION)") == b"2\n"
    later.accept()
    assert sorted(one.name for one in (captured.path / "site" / "thing").glob("*.py")) == ["__init__.py", "only2.py"]
