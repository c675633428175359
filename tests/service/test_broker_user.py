"""Whom the broker becomes."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.host.ids import BROKER_IDS, SLOT_BASE, SLOT_SIZE
from immured.service.broker_user import ACCOUNT, User, find_user, free_user, lock_id

STATE = Path("/var/lib/immured")
NO_SLOTS = range(0)


def without_account(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pwd.getpwnam

    def getpwnam(name: str) -> pwd.struct_passwd:
        if name == "immured":
            raise KeyError(name)
        return real(name)

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)


def test_without_an_account_it_is_an_id_that_no_sandbox_ever_has(monkeypatch: pytest.MonkeyPatch) -> None:
    without_account(monkeypatch)
    user = find_user(None, STATE, NO_SLOTS)
    assert user.uid in BROKER_IDS
    assert BROKER_IDS[0] == SLOT_BASE + 8 * 511 * SLOT_SIZE
    assert find_user(None, STATE, NO_SLOTS) == user
    assert find_user(None, Path("/elsewhere"), NO_SLOTS) != user


def test_the_account_of_its_name_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.struct_passwd(("immured", "x", 993, 992, "", "/", "/bin/false"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: account)
    assert find_user(None, STATE, NO_SLOTS) == User(993, 992, "immured")


def test_an_account_is_taken_by_name_and_by_number() -> None:
    daemon = pwd.getpwnam("daemon")
    for said in ("daemon", str(daemon.pw_uid)):
        assert find_user(said, STATE, NO_SLOTS) == User(daemon.pw_uid, daemon.pw_gid, "daemon")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("root", "root"),
        ("0", "root"),
        ("nobody", "cannot"),
        ("no-such-account", "no account"),
        ("4294967295", "no user id"),
        (str(SLOT_BASE + 5 * SLOT_SIZE), "ids of sandboxes"),
        ("200000", "ids of sandboxes"),
    ],
)
def test_whom_it_may_not_become(said: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_user(said, STATE, range(131072, 262144))
    assert caught.value.code == "no_broker_user"
    assert why in caught.value.message


@pytest.mark.needs_root
def test_two_daemons_never_share_an_id_of_ours(tmp_path: Path) -> None:
    """The lock is a process's: the other daemon is one."""
    user = User(BROKER_IDS[-1], BROKER_IDS[-1])
    held, fd = lock_id(tmp_path, user)
    assert held == user
    assert fd is not None
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(write, str(lock_id(tmp_path, user)[0].uid).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert int(pipe.read()) == BROKER_IDS[0]  # the next, from the start again
    os.waitpid(child, 0)
    os.close(fd)


@pytest.mark.needs_root
def test_whom_a_daemon_would_become_is_known_without_taking_it(tmp_path: Path) -> None:
    user = User(BROKER_IDS[-1], BROKER_IDS[-1])
    assert free_user(tmp_path / "not-there", user) == user
    _, fd = lock_id(tmp_path, user)
    assert fd is not None
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            seen = free_user(tmp_path, user)
            taken, _ = lock_id(tmp_path, user)
            os.write(write, f"{seen.uid} {taken.uid}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == f"{BROKER_IDS[0]} {BROKER_IDS[0]}"
    os.waitpid(child, 0)
    os.close(fd)
    assert free_user(tmp_path, User(993, 992, "immured")) == User(993, 992, "immured")


def test_an_account_needs_no_lock(tmp_path: Path) -> None:
    assert lock_id(tmp_path, User(993, 992, "immured")) == (User(993, 992, "immured"), None)


def test_the_account_that_systemd_makes_is_the_one_that_is_looked_for() -> None:
    lines = (Path(__file__).parents[2] / "systemd" / "sysusers.d" / "immured.conf").read_text().splitlines()
    [account] = [line.split() for line in lines if line and not line.startswith("#")]
    assert account[:3] == ["u", ACCOUNT, "-"]
