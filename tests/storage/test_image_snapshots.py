"""A layered root is a place like others: what was changed of an image is saved, and begun with."""

from __future__ import annotations

from typing import Any

import pytest

from immured import Client
from immured.client.sandbox import Sandbox
from immured.client.snapshots import Snapshots
from tests.storage.test_images import image, program

__all__ = ["image", "program"]

pytestmark = pytest.mark.needs_root


def look(sandbox: Sandbox, *arguments: str) -> list[str]:
    result = sandbox.exec(["/bin/hello", *arguments], cwd="/")
    assert result.exit_code == 0, result
    return result.stdout.decode().splitlines()


def test_what_was_changed_of_an_image_is_there_again(client: Client, image: str) -> None:
    manifest: dict[str, Any] = {
        "schema": 1,
        "filesystem": {"root": f"image:{image}", "root_layer": True},
        "command": {"cwd": "/"},
    }
    with client.sandbox(manifest=manifest) as sandbox:
        assert look(sandbox, "write", "/home/new", "remove", "/home/mine") == [
            "/home/new: written",
            "/home/mine: removed",
        ]
        saved = Snapshots(client).save(sandbox.id, "layered")
        assert "/" in saved.places
    with client.sandbox(manifest=manifest, snapshot="layered") as fork:
        assert look(fork, "stat", "/home/new", "stat", "/bin/hello") == [
            "/home/new: 1000:1000 644",
            "/bin/hello: 0:0 755",
        ]
        assert look(fork, "write", "/home/new", "stat", "/home/mine") == [
            "/home/new: written",
            "/home/mine: No such file or directory",
        ]
    with client.sandbox(manifest=manifest) as fresh:
        assert look(fresh, "stat", "/home/new", "stat", "/home/mine") == [
            "/home/new: No such file or directory",
            "/home/mine: 1000:1000 644",
        ]
    Snapshots(client).remove("layered")
