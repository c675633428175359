"""Forks of a layered root share what was saved: nothing is copied, all changes hold, through many saves too."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.storage.forks import Operation, do, make_image, manifest_of, tree

pytestmark = pytest.mark.needs_root

FILES: dict[str, str | None] = {
    "w": None,
    **{f"w/{one}": None for one in "abc"},
    **{f"w/{one}/{two}": None for one in "ab" for two in "ab"},
    **{f"w/{one}/{two}/{three}": f"image {one}{two}{three}" for one in "ab" for two in "ab" for three in "abc"},
    "w/c/a": "image ca",
    "w/d": "image d",
}


@pytest.fixture(scope="module")
def image(daemon: ThrowawayDaemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_image(daemon, tmp_path_factory.mktemp("image"), FILES)


@pytest.fixture
def names(client: Client) -> Iterator[list[str]]:
    """Snapshots that a test makes, and that go afterwards."""
    made: list[str] = []
    yield made
    for one in Snapshots(client).list():
        if one.name in made:
            Snapshots(client).remove(one.name)


def save(client: Client, sandbox: str, name: str, names: list[str]) -> None:
    names.append(name)
    Snapshots(client).save(sandbox, name)


def test_every_kind_of_change_holds_in_a_fork_and_in_a_fork_of_it(client: Client, image: str, names: list[str]) -> None:
    manifest = manifest_of(image)
    with client.sandbox(manifest=manifest) as first:
        said = do(
            first,
            [
                ("clear", "/w/a/a/a", ""),  # a whiteout
                ("clear", "/w/a/b", ""),  # of a directory
                ("clear", "/w/b/a", ""),
                ("mkdir", "/w/b/a", ""),  # an opaque directory
                ("write", "/w/b/a/new", "one"),
                ("clear", "/w/d", ""),
                ("mkdir", "/w/d", ""),  # a directory where a file was
                ("write", "/w/d/in", "one"),
                ("clear", "/w/c", ""),
                ("write", "/w/c", "a file where a directory was"),
                ("mkdir", "/w/n", ""),
                ("write", "/w/n/x", "one"),
            ],
        )
        assert said == ["done"] * 12
        before = tree(first, "/w")
        save(client, first.id, "kinds-1", names)
    with client.sandbox(manifest=manifest, snapshot="kinds-1") as second:
        assert tree(second, "/w") == before
        said = do(
            second,
            [
                ("write", "/w/a/a/a", "back"),  # over a whiteout of the saved layer
                ("mkdir", "/w/a/b", ""),  # over one of a directory: what the image has below does not come back
                ("clear", "/w/b/a/new", ""),  # in an opaque directory of the saved layer
                ("clear", "/w/n/x", ""),  # in one that the image does not have
                ("clear", "/w/c", ""),
                ("mkdir", "/w/c", ""),
                ("clear", "/w/d", ""),
            ],
        )
        assert said == ["done"] * 7
        before = tree(second, "/w")
        assert not [line for line in before if line.startswith(("/w/a/b/", "/w/n/", "/w/c/", "/w/d", "/w/b/a/"))]
        save(client, second.id, "kinds-2", names)
    Snapshots(client).remove("kinds-1")
    with client.sandbox(manifest=manifest, snapshot="kinds-2") as third:
        assert tree(third, "/w") == before
        assert do(third, [("clear", "/w/n", ""), ("clear", "/w/b", "")]) == ["done"] * 2


def some_operations(chance: random.Random, count: int) -> list[Operation]:
    def path() -> str:
        return "/".join(["/w", *(chance.choice("abcd") for _ in range(chance.randint(1, 3)))])

    def one() -> Operation:
        what = chance.choice(["write", "write", "mkdir", "mkdir", "clear", "rename", "link", "symlink", "chmod"])
        first, other = path(), path()
        return what, first, {"rename": other, "link": other, "chmod": "700"}.get(what, f"text {chance.random()}")

    return [one() for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_of_forks_is_always_what_it_was_when_saved(
    client: Client, image: str, names: list[str], seed: int
) -> None:
    manifest, chance = manifest_of(image), random.Random(seed)
    last: str | None = None
    before: list[str] | None = None
    for round_ in range(7):
        with client.sandbox(manifest=manifest, snapshot=last) as sandbox:
            if before is not None:
                assert tree(sandbox, "/w") == before, (seed, round_)
            do(sandbox, some_operations(chance, 40))
            before = tree(sandbox, "/w")
            assert not [line for line in before if " ? " in line]
            name = f"chain-{seed}-{round_}"
            save(client, sandbox.id, name, names)
        if last is not None:
            Snapshots(client).remove(last)
        last = name


def test_forks_do_not_see_each_other_and_copy_nothing(
    daemon: ThrowawayDaemon, client: Client, image: str, names: list[str]
) -> None:
    manifest = manifest_of(image)
    with client.sandbox(manifest=manifest) as first:
        assert do(first, [("fill", "/w/c", "300"), ("write", "/w/d", "saved")]) == ["done"] * 2
        save(client, first.id, "shared", names)
    small = {**manifest, "limits": {"disk": "4M"}}
    with client.sandbox(manifest=small) as begun:
        big = begun.exec(["/bin/tool", "write", "/w/big", "x" * 100_000], cwd="/")
        assert big.exit_code == 0
        save(client, begun.id, "small", names)
    saved = daemon.state / "snapshots" / "default" / "small"
    # More than a fork may write itself, which a copy would be.
    [root] = [place for place in saved.iterdir() if (place / "w" / "big").is_file()]
    (root / "w" / "big").write_bytes(b"x" * (8 << 20))
    with client.sandbox(manifest=small, snapshot="small") as fork:
        assert do(fork, [("write", "/w/own", "x" * 1000), ("chmod", "/w/big", "600")]) == [
            "done",
            "No space left on device",
        ]
    forks = [client.sandbox(manifest=manifest, snapshot="shared") for _ in range(3)]
    try:
        for number, fork in enumerate(forks):
            assert do(fork, [("write", "/w/d", str(number)), ("clear", f"/w/c/{number}", "")]) == ["done"] * 2
        for number, fork in enumerate(forks):
            said = tree(fork, "/w")
            assert [line for line in said if line.startswith("/w/d ")] == [f"/w/d 100644 {number}"]
            assert {line.split()[0] for line in said if line.count("/") == 3 and line.startswith("/w/c/")} == {
                "/w/c/a",
                *(f"/w/c/{other}" for other in range(3) if other != number),
            }
        with pytest.raises(ImmuredError) as refused:
            Snapshots(client).remove("shared")
        assert refused.value.code == "snapshot_in_use"
    finally:
        for fork in forks:
            fork.remove()


def test_a_saved_directory_is_moved_by_copying_as_one_of_the_image_is(
    client: Client, image: str, names: list[str]
) -> None:
    """redirect_dir=nofollow: no redirection is ever made, so none has to hold."""
    manifest = manifest_of(image)
    with client.sandbox(manifest=manifest) as first:
        assert (
            do(first, [("mkdir", "/w/n", ""), ("write", "/w/n/x", "one"), ("rename", "/w/n", "/w/m")]) == ["done"] * 3
        )
        assert do(first, [("rename", "/w/a", "/w/z")]) == ["Invalid cross-device link"]
        save(client, first.id, "moved", names)
    with client.sandbox(manifest=manifest, snapshot="moved") as fork:
        assert do(fork, [("rename", "/w/m", "/w/k")]) == ["Invalid cross-device link"]
        assert do(fork, [("rename", "/w/m/x", "/w/m/y")]) == ["done"]
        assert "/w/m/y 100644 one" in tree(fork, "/w/m")


def test_owners_and_the_snapshots_own_tree_stay_as_they_are(
    daemon: ThrowawayDaemon, client: Client, image: str, names: list[str]
) -> None:
    manifest = manifest_of(image)
    with client.sandbox(manifest=manifest) as first:
        assert do(first, [("write", "/w/d", "saved"), ("clear", "/w/a/a", "")]) == ["done"] * 2
        save(client, first.id, "still", names)
    place = daemon.state / "snapshots" / "default" / "still"

    def facts() -> dict[Path, tuple[int, ...]]:
        found: dict[Path, tuple[int, ...]] = {}
        for top, directories, files in os.walk(place):
            for name in (*directories, *files):
                st = os.lstat(Path(top, name))
                found[Path(top, name)] = (
                    st.st_mode,
                    st.st_uid,
                    st.st_size,
                    st.st_nlink,
                    st.st_mtime_ns,
                    st.st_ctime_ns,
                )
        return found

    before = facts()
    with client.sandbox(manifest=manifest, snapshot="still") as fork:
        do(
            fork,
            [("write", "/w/d", "changed"), ("mkdir", "/w/a/a", ""), ("clear", "/w/b", ""), ("chmod", "/w/c", "700")],
        )
        assert do(fork, [("write", "/bin/tool", "no"), ("write", "/bin/other", "no")]) != ["done"] * 2
    assert facts() == before
