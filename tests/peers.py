"""Peers that are not root: the kernel takes a connection's user from whoever connects."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["connecting_as"]


@contextlib.contextmanager
def connecting_as(uid: int) -> Iterator[None]:
    """Who connects within does so as that user, of no other group."""
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
