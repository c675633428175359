"""The walls of a process that the daemon starts to speak to another machine for it: connections, and nothing else.

    with Landlock() as domain:
        domain.allow(ledger, READ)
        allow_outward(domain, [443])
        enter(domain, user)

It listens nowhere, sees no file but Python's own and the resolver's, and keeps no right of root's. To which hosts it
connects no kernel can be told by name: Landlock knows ports (Linux 6.7), and a firewall the user.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.host.landlock import READ, Landlock
from immured.service import confine, harden

if TYPE_CHECKING:
    from immured.service.broker_user import User

__all__ = ["allow_outward", "enter"]

_DNS: Final = 53
_RESOLVER: Final = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/pki", "/etc/ca-certificates"),
)
_NAMESERVERS: Final = "/etc/resolv.conf"


def allow_outward(domain: Landlock, ports: Iterable[int], *more: str) -> None:
    """Allow connections to these TCP ports and to name servers, and to read what that takes, and these files too, where
    they are there. Raises OSError."""
    for port in sorted(set(ports)):
        domain.allow_connect(port)
    domain.allow_connect(_DNS, udp=True)
    for place in (*_readable(), *more):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                domain.allow(fd, READ, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
            finally:
                os.close(fd)


def enter(domain: Landlock, user: User) -> None:
    """Become the broker's user without any capability, in the domain, behind the filter. For good; with one thread.
    Raises ConfigurationError, OSError."""
    program = confine.broker_filter(outward=True)
    harden.drop_capabilities()
    harden.become(user.uid, user.gid)
    harden.hide_memory()
    domain.enter()
    harden.filter_calls(program)


def _readable() -> Iterator[str]:
    yield from confine.readable()
    yield from _RESOLVER
    # What writes it puts a new file in its place, and a rule is on the old one. Where it is a link to somewhere that
    # holds nothing else (/run/systemd/resolve), the rule is on that directory.
    real = Path(_NAMESERVERS).resolve()
    if real.parent not in (Path("/etc"), Path("/"), Path("/run"), Path("/var/run")):
        yield os.fspath(real.parent)
