"""Where a witness is asked. By itself, for whoever reads a configuration and speaks no HTTP."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Address"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<prefix>(?:/[A-Za-z0-9._~-]+)*)/?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a witness is asked. `prefix`: of the path, without a slash at its end."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `http://HOST[:PORT][/PREFIX]`, or https. Raises ValueError."""
        found = _URL.fullmatch(url)
        if found is None:
            raise ValueError("it is not http://HOST[:PORT][/PREFIX], or https")
        port = int(found["port"] or _DEFAULT_PORTS[found["scheme"]])
        if not 0 < port <= 65_535 or "/.." in found["prefix"] + "/" or "/./" in found["prefix"] + "/":
            raise ValueError("it has no port, or no path, that a witness could have")
        host = found["host"].strip("[]")
        host.encode("idna")  # a name that none can be asked for: a UnicodeError, which is a ValueError
        return cls(found["scheme"], host, port, found["prefix"])
