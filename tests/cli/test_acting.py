"""Who the daemon sees when root calls."""

from __future__ import annotations

import os
import pwd

import pytest

from immured.cli.acting import User, become, wanted
from immured.errors import ConfigurationError
from immured.host.check import in_child

NOBODY = pwd.getpwnam("nobody")


def test_an_ordinary_user_stays_who_they_are() -> None:
    assert wanted(None, {"SUDO_UID": "0"}, uid=1000) is None


def test_root_without_sudo_stays_root() -> None:
    assert wanted(None, {}, uid=0) is None


def test_under_sudo_it_is_who_called() -> None:
    user = wanted(None, {"SUDO_UID": str(NOBODY.pw_uid)}, uid=0)
    assert user is not None
    assert (user.name, user.uid, user.gid) == ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)


@pytest.mark.parametrize("value", ["", "0", "-1", "root", "1 "])
def test_a_sudo_uid_that_is_no_user_changes_nothing(value: str) -> None:
    assert wanted(None, {"SUDO_UID": value}, uid=0) is None


def test_who_says_root_stays_root() -> None:
    assert wanted("root", {"SUDO_UID": str(NOBODY.pw_uid)}, uid=0) is None


def test_only_root_can_be_somebody_else() -> None:
    with pytest.raises(ConfigurationError) as refused:
        wanted("nobody", {}, uid=1000)
    assert refused.value.code == "not_root"


def test_a_user_who_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="nobody-here"):
        wanted("nobody-here", {}, uid=0)


@pytest.mark.needs_root
def test_who_becomes_a_user_keeps_nothing_of_root() -> None:
    user = User("nobody", NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,))

    def attempt() -> None:
        become(user, explicit=True)
        if os.getresuid() != (user.uid,) * 3 or os.getresgid() != (user.gid,) * 3 or os.getgroups() != [user.gid]:
            raise OSError(1, "another identity is left")
        try:
            os.setuid(0)
        except PermissionError:
            return
        raise OSError(2, "root again")

    assert in_child(attempt) == 0
