"""`examples/build.toml`, as its first lines say, in a directory of an ordinary user's."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.signed.line import Line

EXAMPLE = Path(__file__).parents[2] / "examples" / "build.toml"
SOMEBODY = "nobody"


@pytest.fixture
def place() -> Iterator[Path]:
    """Holds the manifest, for projects in it, and one of them."""
    somebody = pwd.getpwnam(SOMEBODY)
    with tempfile.TemporaryDirectory(prefix="immured-") as made:
        here = Path(made)
        here.chmod(0o755)
        (here / "build.toml").write_text(EXAMPLE.read_text().replace("/srv/projects", made))
        (here / "web").mkdir()
        (here / "web" / "Makefile").write_text("all test install:\n\techo $@ > made\n")
        for path in (here / "web", here / "web" / "Makefile"):
            os.chown(path, somebody.pw_uid, somebody.pw_gid)
        yield here


def test_it_is_signed_loaded_agreed_to_and_run_for_a_project(daemon: ThrowawayDaemon, place: Path) -> None:
    immure = Line(daemon, place)
    assert immure("manifest", "lint", "build.toml", "--strict") == ""
    immure.sign("build.toml")
    immure("manifest", "load", "build.toml")
    run = ["run", "--as", SOMEBODY, "--manifest", "build.toml", "--set", f"project={place}/web", "--", "make", "-j4"]
    assert "consent_required" in immure(*run, "test", status=125)
    immure("consent", "accept", "build.toml", "--as", SOMEBODY)
    immure(*run, "test")
    assert (place / "web" / "made").read_text() == "test\n"
    assert "denied" in immure(*run, "deploy", status=125)
    assert "bad_argument" in immure(*(word.replace("/web", "-other/web") for word in run), "test", status=125)
