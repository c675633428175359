"""bubblewrap's own command lines here and, where bwrap works, there: a probe in each tells the same.

Where the two differ, the importer said so: `DIFFERENT` has each difference with the finding that tells it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.adapters.bubblewrap import import_bubblewrap
from immured.adapters.imported import Imported
from immured.cli.surroundings import Here
from immured.isolation.seccomp import compile_profile
from tests.adapters.conftest import NOBODY, Run, give
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root
BWRAP = shutil.which("bwrap")
PROBE = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
can() { if "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }
say cwd "$(pwd)"
say usr "$(can test -x /usr/bin/env)"
say etc "$(can test -r /etc/machine-id)"
say home "$(can test -e "$SECRET")"
say data "$(cat "$DATA/file" 2>/dev/null)"
say write_data "$(can touch "$DATA/made")"
say write_usr "$(can touch /usr/made)"
say write_etc "$(can touch /etc/made)"
say write_tmp "$(can touch /tmp/made)"
say exec_tmp "$(cp /bin/true /tmp/true 2>/dev/null; can /tmp/true)"
count=$(ls /proc 2>/dev/null | grep -c '^[0-9][0-9]*$')
say processes "$([ "$count" -lt 12 ] && echo few)"
say interfaces "$(tail -n +3 /proc/net/dev 2>/dev/null | grep -cv '^ *lo:')"
say variable "${VARIABLE:-unset}"
say null "$(can sh -c 'echo x > /dev/null')"
say kmsg "$(can test -e /dev/kmsg)"
say app "$(cat /app/file 2>/dev/null)"
say runtime "$(can test -d "/run/user/7")"
say note "$(cat /opt/note 2>/dev/null)"
"""

README = "--ro-bind /usr /usr --symlink usr/lib64 /lib64 --symlink usr/lib /lib --symlink usr/bin /bin"
README += " --proc /proc --dev /dev"
HOST = "--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp"
LINES = {
    "of the readme": f"{README} --unshare-all --new-session",
    "of the demo": (
        f"{README} --symlink usr/sbin /sbin --dir /tmp --dir /var --symlink ../tmp var/tmp "
        "--ro-bind /etc/resolv.conf /etc/resolv.conf --chdir / --unshare-all --die-with-parent --dir /run/user/7 "
        "--setenv XDG_RUNTIME_DIR /run/user/7 --setenv VARIABLE given"
    ),
    "of an application": (
        f"{README} --tmpfs /tmp --dir /run/user/7 --ro-bind DATA/app /app --bind DATA DATA --setenv VARIABLE given "
        "--setenv PATH /usr/bin --unshare-pid --unshare-net --unshare-ipc --seccomp 13"
    ),
    "of an agent": f"{HOST} --bind DATA DATA --chdir DATA --unshare-all --die-with-parent",
    "that hides a home": f"{HOST} --tmpfs HOME --bind DATA DATA --unshare-all",
    "from a descriptor": f"--args 14 --setenv VARIABLE more {README} --unshare-all --clearenv --setenv VARIABLE given",
}
DIFFERENT: dict[str, dict[str, str]] = {
    "of the readme": {"write_tmp": "no /tmp", "exec_tmp": "no /tmp"},
    # What bubblewrap makes of a root is in memory, and can be written to; here a root is only read.
    "of the demo": {"write_etc": "/"},
    "from a descriptor": {"write_tmp": "no /tmp", "exec_tmp": "no /tmp"},
}
Compare = Callable[[str], tuple[Imported, dict[str, str], dict[str, str] | None]]


@pytest.fixture
def compare(run: Run, workspace: Path) -> Compare:
    """The line imported; what a probe says here; what it says in bwrap, None where that does not work."""
    data, home = workspace / "home/data", workspace / "home"
    (data / "app").mkdir(parents=True)
    (data / "file").write_text("data")
    (data / "app/file").write_text("app")
    (home / "secret").write_text("s")
    give(workspace)
    held = {13: compile_profile("default"), 14: b"--ro-bind\0" + bytes(data / "app") + b"\0/app\0"}

    def both(name: str) -> tuple[Imported, dict[str, str], dict[str, str] | None]:
        words = LINES[name].replace("DATA", str(data)).replace("HOME", str(home)).split()
        told = {"SECRET": str(home / "secret"), "DATA": str(data), "PATH": "/usr/bin:/bin"}
        script = "".join(f"{key}={value}\n" for key, value in told.items()) + PROBE
        host = Here(str(data), {"HOME": str(home), "PATH": "/usr/bin:/bin"})
        found = import_bubblewrap([*words, "/bin/sh", "-c", script], host, held.__getitem__)
        result = run(found)
        assert result.exit_code == 0, (result.stderr, result.failure)
        (data / "made").unlink(missing_ok=True)
        theirs = in_bwrap(words, script, held, data, home)
        (data / "made").unlink(missing_ok=True)
        return found, answers(result.stdout), theirs

    return both


def answers(output: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.decode().splitlines())


def in_bwrap(words: list[str], script: str, held: dict[int, bytes], cwd: Path, home: Path) -> dict[str, str] | None:
    """As the user whom paths are of; None where there is no bwrap, or this host lets no user make namespaces."""
    if BWRAP is None:
        return None
    for number, content in held.items():
        (cwd.parent / str(number)).write_bytes(content)
        (cwd.parent / str(number)).chmod(0o644)
    opened = 'exec "$@" 13<../13 14<../14'
    done = subprocess.run(
        ["/bin/bash", "-c", opened, "bash", BWRAP, *words, "/bin/sh", "-c", script], user=NOBODY.pw_uid,
        group=NOBODY.pw_gid, extra_groups=[], cwd=cwd, env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if done.returncode and b"namespace" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    return answers(done.stdout)


@pytest.mark.parametrize("name", LINES)
def test_a_line_comes_to_the_same_here_and_in_bwrap(compare: Compare, name: str) -> None:
    found, ours, theirs = compare(name)
    assert ours["write_usr"] == "no"
    assert (ours["null"], ours["kmsg"], ours["processes"], ours["interfaces"]) == ("yes", "no", "few", "0")
    if theirs is None:
        return
    different = {key for key in ours if ours[key] != theirs[key]}
    assert different == set(DIFFERENT.get(name, {})), {key: (ours[key], theirs[key]) for key in different}
    said = {one.source for one in found.of("looser", "stricter", "lost")}
    assert {one for one in DIFFERENT.get(name, {}).values() if one} <= said


def test_what_an_application_may_and_may_not(compare: Compare) -> None:
    _, ours, _ = compare("of an application")
    assert {key: ours[key] for key in ("app", "data", "write_data", "home", "variable", "runtime", "etc")} == {
        "app": "app", "data": "data", "write_data": "yes", "home": "no", "variable": "given", "runtime": "yes",
        "etc": "no",
    }  # fmt: skip


def test_what_an_agent_may_and_may_not(compare: Compare, workspace: Path) -> None:
    found, ours, _ = compare("of an agent")
    assert found.cwd == ours["cwd"] == str(workspace / "home/data")
    assert (ours["write_data"], ours["write_etc"], ours["home"], ours["etc"]) == ("yes", "no", "yes", "yes")
    _, hidden, _ = compare("that hides a home")
    assert (hidden["home"], hidden["data"], hidden["write_data"]) == ("no", "data", "yes")
