"""Every way out, by every command: refused by its name, nothing outside read or changed; unchecked, each leads out."""

from __future__ import annotations

from pathlib import Path

import pytest

from immured.isolation.files_words import FilesOp, FilesRefusal
from tests.traversal.acts import ACTS, Act
from tests.traversal.alone import Alone, Refusal
from tests.traversal.vectors import LAST_LINKS, SECRET, WAYS, Way, picture, plant

CASES = [pytest.param(act, way, id=f"{act.name}: {way.name}") for act in ACTS for way in WAYS]
REFUSALS = {FilesRefusal.OUTSIDE, FilesRefusal.LINK}


@pytest.fixture
def outside(root: Path) -> Path:
    path = root.parent / "outside"
    plant(root, path)
    return path


@pytest.mark.parametrize(("act", "way"), CASES)
def test_is_refused(clerk: Alone, outside: Path, act: Act, way: Way) -> None:
    before, inside = picture(outside), picture(outside.parent / "root")
    with pytest.raises(Refusal) as refused:
        act.clerk(clerk, way.to(outside, *act.rest))
    assert refused.value.why in REFUSALS
    assert picture(outside) == before
    assert picture(outside.parent / "root") == inside
    # It serves on.
    assert clerk.get(b"/a/file") == b"inside\n"


@pytest.mark.parametrize(("act", "way"), CASES)
def test_control_leads_out_where_nobody_checks(root: Path, outside: Path, act: Act, way: Way) -> None:
    before = picture(outside)
    given = act.naive(root, way.to(outside, *act.rest))
    assert given or picture(outside) != before
    if isinstance(given, bytes):
        assert SECRET in given


@pytest.mark.parametrize("name", LAST_LINKS)
@pytest.mark.parametrize(
    "act",
    [
        pytest.param(act, id=act.name)
        for act in ACTS
        if act.name in ("get", "get by descriptor", "stat, following", "archive", "list", "extract")
    ],
)
def test_a_last_link_out_is_not_followed(clerk: Alone, outside: Path, act: Act, name: str) -> None:
    with pytest.raises(Refusal) as refused:
        act.clerk(clerk, f"/{name}".encode())
    assert refused.value.why in REFUSALS


@pytest.mark.parametrize("name", LAST_LINKS)
def test_control_a_last_link_is_followed_by_who_opens_it(root: Path, outside: Path, name: str) -> None:
    assert (root / name).read_bytes() == SECRET


@pytest.mark.parametrize("name", LAST_LINKS)
def test_a_last_link_is_shown_replaced_moved_and_removed_as_itself(
    clerk: Alone, root: Path, outside: Path, name: str
) -> None:
    path, target = f"/{name}".encode(), (root / name).readlink()
    before = picture(outside)
    row = clerk.ask(FilesOp.STAT, path).rows[0]
    assert (row.kind, row.target) == ("link", bytes(target))
    assert clerk.names(b"/")[name.encode()] == "link"
    with pytest.raises(Refusal) as refused:
        clerk.ask(FilesOp.CHMOD, path, mode=0o600)
    assert refused.value.why is FilesRefusal.LINK
    clerk.ask(FilesOp.MOVE, path, b"/elsewhere")
    assert (root / "elsewhere").is_symlink()
    clerk.put(b"/elsewhere", b"new")
    assert not (root / "elsewhere").is_symlink()
    assert (root / "elsewhere").read_bytes() == b"new"
    clerk.remove(b"/elsewhere")
    assert not (root / "elsewhere").exists()
    assert picture(outside) == before


@pytest.mark.parametrize(
    "name", [way.path[1:] for way in WAYS if way.linked and way.path.count("/") == 1 and "{" not in way.path]
)
def test_a_tree_with_links_out_is_removed_and_archived_without_them(
    clerk: Alone, root: Path, outside: Path, name: str
) -> None:
    (root / name).rename(root / "stock" / "link")
    before = picture(outside)
    assert SECRET not in clerk.archive(b"/stock")
    assert b"/stock/link" in clerk.glob(b"/stock/**")
    assert not [found for found in clerk.glob(b"/stock/**") if b"secret" in found]
    clerk.remove(b"/stock", recursive=True)
    assert not (root / "stock").exists()
    assert picture(outside) == before
