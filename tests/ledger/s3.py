"""A server that speaks S3 over HTTP, in a process of its own: versions, object lock and checksums as S3 has them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from immured.ledger.exports.place import Place
from tests.patience import PATIENCE_S

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
_LISTENS = re.compile(rb"https?://127\.0\.0\.1:\d+(?=\s)")


class Server:
    """One that runs, and what its own user can do there."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def make(self, bucket: str, *, lock: bool = False, versions: bool = False) -> None:
        self.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=lock)
        if versions:
            self.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        return [one["Key"] for one in found]

    def get(self, bucket: str, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def delete(self, bucket: str, key: str, **more: object) -> None:
        self.client.delete_object(Bucket=bucket, Key=key, **more)

    def versions(self, bucket: str, key: str) -> list[str]:
        found = self.client.list_object_versions(Bucket=bucket, Prefix=key)
        return [one["VersionId"] for kind in ("Versions", "DeleteMarkers") for one in found.get(kind, ())]


@contextlib.contextmanager
def s3_server(certificate: Path | None = None, key: Path | None = None) -> Iterator[Server]:
    """Start one, and end it; with a certificate it speaks TLS."""
    with tempfile.TemporaryFile() as output:
        words = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        if certificate is not None:
            words += ["--ssl", "-c", str(certificate), "-k", str(key)]
        process = subprocess.Popen(words, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not (listens := _LISTENS.search(said := os.pread(output.fileno(), 1 << 16, 0))):
                assert process.poll() is None, said.decode()[-2000:]
                assert time.monotonic() < deadline, said.decode()[-2000:]
                time.sleep(0.05)
            yield Server(listens[0].decode())
        finally:
            process.kill()
            process.wait(PATIENCE_S)


def credentials(place: Path) -> Path:
    """A file with the keys that the server takes."""
    path = place / "credentials"
    path.touch(0o600)
    path.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    return path


def far(**more: float) -> datetime:
    return datetime.now(UTC) + timedelta(**more)


__all__ = ["KEY", "SECRET", "Place", "Server", "credentials", "far", "s3_server"]
