"""S3 and what speaks its protocol, by boto3 (the extra `s3`), as far as a copy needs it.

Imported only by who copies: the daemon itself has no use for some 40 MiB of it. Every object is put with its SHA-256,
which the server compares, and with how long it is locked, where that is asked for; each is read again and compared.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from immured.errors import ConfigurationError
from immured.ledger.exports.head import ExportError, differs
from immured.ledger.exports.place import Bucket, Place, bucket_of

__all__ = ["S3", "Credentials", "Version", "read_credentials", "session_of"]

T = TypeVar("T")

_PROBE: Final = ".probe"
_MAX_OBJECT: Final = 1 << 26
_MAX_FILE: Final = 1 << 16
_TIMEOUT_S: Final = 10
_ABSENT: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_NO_LOCK: Final = frozenset({"ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed"})
_REFUSED: Final = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
# Providers of AWS's chain that need nothing but files and the environment; and those that ask a server on the network.
_LOCAL: Final = frozenset({"env", "shared-credentials-file", "config-file"})
_ASKED: Final = frozenset({"container-role", "iam-role"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs requests. Never shown, never in the ledger."""

    key: str
    secret: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object: its id, and whether it is what a plain read gives."""

    id: str
    latest: bool
    deleted: bool
    """It is a mark that there is none."""


def read_credentials(path: Path, *, owner: int = 0) -> Credentials:
    """A file as AWS's tools have it: in `[default]`, `aws_access_key_id` and `aws_secret_access_key`, and where the key
    is a temporary one `aws_session_token`.

    Raises ConfigurationError: it is not `owner`'s alone to read, or not such a file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            facts = os.fstat(fd)
            text = os.read(fd, _MAX_FILE).decode()
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise _bad_credentials(path, getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, owner) or facts.st_mode & 0o077:
        raise _bad_credentials(path, "others than its owner may read it", f"chown {owner} {path}; chmod 0600 {path}")
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
        given = dict(parser["default"])
        return Credentials(
            given["aws_access_key_id"], given["aws_secret_access_key"], given.get("aws_session_token") or None
        )
    except (configparser.Error, KeyError):
        raise _bad_credentials(path, "it has no [default] with aws_access_key_id and aws_secret_access_key") from None


def session_of(place: Place, *, owner: int = 0) -> Any:
    """A botocore session that has what signs requests, as far as files and the environment say it: the rest is asked
    for on the network, at the first request. Raises ConfigurationError."""
    try:
        import boto3
        import botocore.session
    except ImportError:
        raise ConfigurationError(
            "no_s3", f"{place.to}: boto3 is not installed", "install the extra: pip install 'immured[s3]'"
        ) from None
    session = botocore.session.Session()
    if place.region:
        session.set_config_variable("region", place.region)
    if place.credentials is not None:
        read = read_credentials(place.credentials, owner=owner)
        session.set_credentials(read.key, read.secret, read.token)
    else:
        chain = session.get_component("credential_provider")
        every = list(chain.providers)
        chain.providers = [one for one in every if one.METHOD in _LOCAL]
        found = chain.load_credentials()
        chain.providers = [one for one in every if one.METHOD in _ASKED]
        if found is not None:
            frozen = found.get_frozen_credentials()
            session.set_credentials(frozen.access_key, frozen.secret_key, frozen.token)
    return boto3.session.Session(botocore_session=session)


class S3:
    """One prefix of a bucket. Methods raise ExportError."""

    def __init__(self, place: Place, session: Any, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        from botocore.config import Config

        self._place, self._now = place, now
        self._bucket: Bucket = bucket_of(place.to)
        # Behind an endpoint of its own a bucket is seldom a host's name. No proxy, no file of the user's.
        config = Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": "path"} if place.endpoint else None,
            parameter_validation=False,
            max_pool_connections=1,
            user_agent_extra="immured",
            proxies={},
        )
        region = place.region or session.region_name or "us-east-1"
        endpoint = place.endpoint or None
        self._client = session.client("s3", region_name=region, endpoint_url=endpoint, config=config)

    @property
    def where(self) -> str:
        """For messages."""
        return self._place.to

    def put(self, name: str, data: bytes, *, locked: bool = True) -> str:
        """Write an object; its version, empty where the bucket keeps none."""
        more: dict[str, object] = {}
        if locked and self._place.lock_ms:
            more["ObjectLockMode"] = self._place.lock_mode.upper()
            more["ObjectLockRetainUntilDate"] = self._now() + timedelta(milliseconds=self._place.lock_ms)
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        checked = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": digest}
        key = self._bucket.key(name)
        said = self._do(
            lambda: self._client.put_object(Bucket=self._bucket.name, Key=key, Body=data, **checked, **more)
        )
        return str(said.get("VersionId", ""))

    def get(self, name: str, version: str = "") -> bytes | None:
        """An object whole; None: it is not there."""
        found = self._get(name, {"VersionId": version} if version else {})
        return None if found is None else found[0]

    def part(self, name: str, offset: int, length: int) -> bytes:
        """Some bytes of an object; empty where it is gone, or has none there."""
        found = self._get(name, {"Range": f"bytes={offset}-{offset + length - 1}"}) if length else None
        return b"" if found is None else found[0]

    def kept(self, name: str, data: bytes) -> None:
        """Whether what was just put is there, and locked as it was asked to be. Raises ExportError."""
        found = self._get(name, {})
        if found is None or found[0] != data:
            raise differs(f"{name}, just written, reads otherwise")
        if not self._place.lock_ms:
            return
        mode, until = found[1].get("ObjectLockMode"), found[1].get("ObjectLockRetainUntilDate")
        least = self._now() + timedelta(milliseconds=self._place.lock_ms) - timedelta(minutes=5)
        if mode != self._place.lock_mode.upper() or not isinstance(until, datetime) or until < least:
            raise ExportError(
                "export_unlocked",
                f"{self.where}/{name} was to be locked until {least:%Y-%m-%d} ({self._place.lock_mode}), and is "
                f"{mode or 'not'} {until or 'locked'}",
                "use a bucket that was made with object lock, and a key that has s3:PutObjectRetention and "
                "s3:GetObjectRetention",
            )

    def names(self, folder: str, after: str = "") -> Iterator[tuple[str, int]]:
        """Names below a folder (which ends in a slash) and their sizes, in order."""
        prefix = self._bucket.key(folder)
        asked: dict[str, str] = {"StartAfter": prefix + after} if after else {}
        while True:
            said = self._do(
                lambda: self._client.list_objects_v2(Bucket=self._bucket.name, Prefix=prefix, **asked)  # noqa: B023
            )
            for one in said.get("Contents", ()):
                yield str(one["Key"])[len(prefix) :], int(one["Size"])
            if not said.get("IsTruncated"):
                return
            asked = {"ContinuationToken": str(said["NextContinuationToken"])}

    def folders(self) -> list[str]:
        """The names right below the prefix."""
        above = self._bucket.key("")
        said = self._do(lambda: self._client.list_objects_v2(Bucket=self._bucket.name, Prefix=above, Delimiter="/"))
        return [str(one["Prefix"])[len(above) :].rstrip("/") for one in said.get("CommonPrefixes", ())]

    def versions(self, name: str) -> list[Version]:
        """Every version of one object, the newest first; of a bucket that keeps none, what is there."""
        key = self._bucket.key(name)
        said = self._do(lambda: self._client.list_object_versions(Bucket=self._bucket.name, Prefix=key))
        found = [
            (one["LastModified"], Version(str(one["VersionId"]), bool(one["IsLatest"]), kind == "DeleteMarkers"))
            for kind in ("Versions", "DeleteMarkers")
            for one in said.get(kind, ())
            if one["Key"] == key
        ]
        return [version for _, version in sorted(found, key=lambda pair: (pair[1].latest, pair[0]), reverse=True)]

    def probe(self) -> None:
        """Whether it can be written to: an object is put, read, and removed; where the bucket locks every object, which
        would be there for good, one is asked for instead."""
        locks = self._locks()
        if self._place.lock_ms and locks is None:
            raise ExportError(
                "export_unlocked",
                f"{self.where} has no object lock, and {self._place.lock_mode} of each object was asked for",
                "make a bucket with object lock (it cannot be had later everywhere), or leave `lock` out",
            )
        if locks:
            self.get(_PROBE)
            return
        data = os.urandom(65_536)
        version = self.put(_PROBE, data, locked=False)
        try:
            if self.get(_PROBE) != data:
                raise differs("what was written to try it reads otherwise")
        finally:
            more = {"VersionId": version} if version and version != "null" else {}
            self._do(lambda: self._client.delete_object(Bucket=self._bucket.name, Key=self._bucket.key(_PROBE), **more))

    def _locks(self) -> bool | None:
        """Whether the bucket locks each object by itself; None: it has no object lock."""
        try:
            said = self._client.get_object_lock_configuration(Bucket=self._bucket.name)
        except Exception as error:
            if _code(error) in _NO_LOCK:
                return None
            if _code(error) in _REFUSED and not self._place.lock_ms:
                return None  # a key without that right may still be one that writes
            raise self._unreachable(error) from error
        return bool(said.get("ObjectLockConfiguration", {}).get("Rule"))

    def _get(self, name: str, more: dict[str, str]) -> tuple[bytes, dict[str, Any]] | None:
        try:
            said = self._client.get_object(
                Bucket=self._bucket.name, Key=self._bucket.key(name), ChecksumMode="ENABLED", **more
            )
            with contextlib.closing(said["Body"]) as body:
                data = body.read(_MAX_OBJECT + 1)
        except Exception as error:
            if _code(error) in _ABSENT or (_code(error) == "InvalidRange" and "Range" in more):
                return None
            raise self._unreachable(error) from error
        if len(data) > _MAX_OBJECT:
            raise differs(f"{name} has more than {_MAX_OBJECT} bytes")
        return data, said

    def _do(self, what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return what()
        except Exception as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ExportError:
        code = _code(error)
        if code in _REFUSED:
            remedy = "give the key s3:PutObject, GetObject, ListBucket and, with `lock`, the rights of retention"
        elif code == "NoSuchBucket":
            remedy = "make the bucket, with object lock if that is wanted"
        else:
            remedy = "see to the server, the network and the clock; it is tried again"
        if type(error).__name__ == "NoCredentialsError":
            remedy = "name a file with `credentials`, or give the daemon's environment AWS's own"
        return ExportError("export_unreachable", f"{self.where}: {_words(error)}", remedy)


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "…"


def _bad_credentials(
    path: Path, why: str, remedy: str = "write it as AWS's tools have it (docs/ledger.md)"
) -> ConfigurationError:
    return ConfigurationError("bad_credentials", f"{path}: {why}", remedy)
