"""Which paths look like somebody's secrets. Pure. Such a path is never granted by having been read once."""

from __future__ import annotations

import re
from posixpath import basename
from typing import Final

__all__ = ["IN_HOME", "is_secret"]

IN_HOME: Final = (
    ".aws", ".azure", ".cargo/credentials.toml", ".config/gcloud", ".config/gh", ".config/hub", ".config/op",
    ".docker/config.json", ".git-credentials", ".gnupg", ".kube", ".local/share/keyrings", ".mozilla", ".my.cnf",
    ".netrc", ".npmrc", ".password-store", ".pgpass", ".pypirc", ".ssh", ".terraform.d", ".vault-token",
)  # fmt: skip
"""Beneath the caller's home: hidden while a run is learned from, and whenever something above is granted."""

_NAME: Final = re.compile(
    r".*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk)|id_(rsa|dsa|ecdsa|ed25519)(_.*)?|\.netrc|\.pgpass|\.htpasswd"
    r"|\.env(\..+)?|credentials(\.json)?|secrets?(\.(json|toml|ya?ml|txt))?|shadow",
    re.IGNORECASE,
)


def is_secret(path: str, home: str | None) -> bool:
    """Whether it is one of `IN_HOME`, beneath one, or named like a key or a password file anywhere."""
    if home is not None and home != "/":
        for name in IN_HOME:
            if path == f"{home}/{name}" or path.startswith(f"{home}/{name}/"):
                return True
    return _NAME.fullmatch(basename(path)) is not None
