"""Ways out: a tree with hostile links in it, and paths that lead out of it wherever they are simply followed.

`outside` stands beside the root. Each way is shown by `test_controls` to reach it when nobody checks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SECRET = b"nobody in here may read this\n"
OWNER = 1000


@dataclass(frozen=True)
class Way:
    """A way to the directory `outside`. `path` begins at the root; `{outside}` is the absolute path of it."""

    name: str
    path: str
    linked: bool = True
    """By a link in the tree, not by the path alone."""

    def to(self, outside: Path, *rest: str) -> bytes:
        return os.fsencode("/".join((self.path.replace("{outside}", str(outside)), *rest)))


WAYS = (
    Way("up", "/../outside", linked=False),
    Way("up from a directory", "/a/../../outside", linked=False),
    Way("up behind a dot", "/./../outside", linked=False),
    Way("up with many slashes", "//a//..//..//outside", linked=False),
    Way("up far more than there is", "/a/b/../../../outside", linked=False),
    Way("relative link", "/relative"),
    Way("absolute link", "/absolute"),
    Way("chain of links", "/chain"),
    Way("link deep down", "/a/b/deep"),
    Way("link to above, then down", "/above/outside"),
    Way("link to the root", "/slash{outside}"),
    Way("link with slashes and dots", "/dotted"),
    Way("link through a directory and back", "/winding"),
)


def plant(root: Path, outside: Path) -> None:
    """Makes both."""
    for directory in (outside, outside / "below", root / "a", root / "a" / "b", root / "stock"):
        directory.mkdir(exist_ok=True)
        os.chown(directory, OWNER, OWNER)
    for path, content in (
        (outside / "secret", SECRET),
        (outside / "below" / "secret", SECRET),
        (root / "stock" / "mine", b"mine\n"),
        (root / "a" / "file", b"inside\n"),
    ):
        path.write_bytes(content)
        path.chmod(0o666)
        os.chown(path, OWNER, OWNER)
    up = os.path.relpath(outside, root)
    for name, target in (
        ("relative", up),
        ("absolute", str(outside)),
        ("chain", "chain2"),
        ("chain2", "a/chain3"),
        ("a/chain3", f"../{up}"),
        ("a/b/deep", f"../../{up}"),
        ("above", ".."),
        ("slash", "/"),
        ("dotted", f".//./{up}//."),
        ("winding", f"a/../a/b/../../{up}"),
        ("secret-relative", f"{up}/secret"),
        ("secret-absolute", str(outside / "secret")),
        ("secret-chain", "secret-relative"),
        ("secret-deep", f"a/b/../../{up}/below/secret"),
    ):
        (root / name).symlink_to(target)


LAST_LINKS = ("secret-relative", "secret-absolute", "secret-chain", "secret-deep")
"""Names in the root that are links to a file outside."""


def picture(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is below: name, mode, size, content. What two of them differ in was changed."""
    found = {}
    for path in sorted(directory.rglob("*")):
        st = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(directory))] = (st.st_mode, st.st_size if content else 0, content)
    return found
