"""What the format reserves and this version cannot do: [secrets], and destinations in [network]. Pure.

Their syntax is checked all the same, so that a manifest written for a later version is one; then it is refused: a
secret that is not delivered, or a wall with a door that nobody opens, would be a promise not kept.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from immured.manifest.items import INVALID, read_list
from immured.manifest.units import duration_of
from immured.wire.strict import kind_of, shown, take

if TYPE_CHECKING:
    from immured.errors import Refused
    from immured.wire.strict import Fields

__all__ = ["check_destinations", "check_secrets"]

_MAX_SECRETS: Final = 64
_MAX_DESTINATIONS: Final = 256
_DAY: Final = 86_400 * 10**9
_DELIVERIES: Final = ("env", "file", "fd")
_SECRET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_SOURCE: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}:[!-~]{1,400}", re.ASCII)
_DESTINATION: Final = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9.-]{1,253})):([1-9][0-9]{0,4})", re.ASCII)
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def check_secrets(top: Fields) -> None:
    """Raises Refused `manifest_invalid` for any secret: what is wrong with it, or that there are none yet."""
    secrets = top.optional("secrets", dict) or {}
    if len(secrets) > _MAX_SECRETS:
        raise top.wrong("secrets", f"has {len(secrets)} entries; at most {_MAX_SECRETS}")
    for name, value in secrets.items():
        if not _SECRET.fullmatch(name):
            raise top.wrong("secrets", f"holds the name {shown(name)}; write A-Z, a-z, 0-9 and `_`, at most 64")
        _check_secret(
            take(value, f"manifest.secrets.{name}", ("source", "delivery", "ttl"), code=INVALID, unknown=INVALID)
        )
    if secrets:
        raise _unsupported(top, "secrets", "leave [secrets] out")


def check_destinations(network: Fields) -> None:
    """Raises Refused `manifest_invalid` for any entry of `allow`, as `check_secrets` does."""
    if read_list(network, "allow", (), _read_destination, _MAX_DESTINATIONS):
        raise _unsupported(network, "allow", "leave it out: no sandbox reaches beyond its own loopback")


def _check_secret(fields: Fields) -> None:
    if not _SOURCE.fullmatch(source := fields.required("source", str)):
        raise fields.wrong("source", f"is {shown(source)}; write where it is from, such as 'vault:team/key'")
    if (delivery := fields.required("delivery", str)) not in _DELIVERIES:
        raise fields.wrong("delivery", f"is {shown(delivery)}; it may be 'env', 'file' or 'fd'")
    ttl = fields.required("ttl", str)
    try:
        nanoseconds = duration_of(ttl)
    except ValueError as error:
        raise fields.wrong("ttl", f"is {shown(ttl)}; {error}") from None
    if not 10**9 <= nanoseconds <= _DAY:
        raise fields.wrong("ttl", f"is {shown(ttl)}; it may be 1s to 24h")


def _read_destination(fields: Fields, name: str, value: object) -> str:
    """`host:port`: a DNS name in lower case, an IPv4 address, or an IPv6 address in brackets."""
    if not isinstance(value, str):
        raise fields.wrong(name, f"holds {kind_of(value)}; {_HINT}")
    found = _DESTINATION.fullmatch(value)
    if found is None or int(found[3]) > 65_535 or not (_is_address(found[1]) if found[1] else _is_host(found[2])):
        raise fields.wrong(name, f"holds {shown(value)}; {_HINT}")
    return value


_HINT: Final = "write host:port, such as 'example.org:443', '192.0.2.1:53' or '[2001:db8::1]:443'"


def _is_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    labels = text.split(".")
    if labels[-1].isdigit():
        try:
            return ipaddress.ip_address(text).version == 4
        except ValueError:
            return False
    return all(_LABEL.fullmatch(label) for label in labels)


def _unsupported(fields: Fields, name: str, remedy: str) -> Refused:
    refused = fields.wrong(name, "is not supported by this version, and not ignored either", remedy)
    refused.details["unsupported"] = refused.details["field"]
    return refused
