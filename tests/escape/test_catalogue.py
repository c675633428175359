"""Every idea is contained, and every idea works where its wall is missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.escape.catalogue import ALL, HERE, IDEAS, Idea
from tests.escape.harness import World

LOOSENED = [
    idea for idea in IDEAS if idea.control.split()[0] in {"manifest", "scene"} and idea.scene != "several_times"
]
DOCUMENT = HERE.parents[1] / "docs" / "escape.md"


def meets_its_wall(idea: Idea, world: World) -> None:
    (kind, what), outcome = world.contained(idea)
    print(f"{kind}: {what}")  # -rP shows it
    if idea.open_here:
        assert kind == "got", f"{idea.title}: no longer open, as the file still says\n{outcome}"
        return
    assert kind == "contained", f"{idea.title}: {kind} {what}\n{outcome}"
    assert set(what.split()) <= idea.meets | idea.ends, f"{idea.title}: contained by something else: {what}\n{outcome}"


@pytest.mark.parametrize("idea", IDEAS, ids=lambda idea: idea.name)
def test_contained(idea: Idea, world: World) -> None:
    meets_its_wall(idea, world)


@pytest.mark.parametrize("idea", IDEAS, ids=lambda idea: idea.name)
def test_contained_as_an_exec(idea: Idea, living_world: World) -> None:
    """Behind the walls of a sandbox that lives."""
    meets_its_wall(idea, living_world)


@pytest.mark.parametrize("idea", LOOSENED, ids=lambda idea: idea.name)
def test_an_exec_gets_what_its_sandbox_gives(idea: Idea, living_world: World) -> None:
    """Controls that are sandboxes themselves: the way of an exec leads to what an idea is after."""
    (kind, what), outcome = living_world.control(idea)
    assert kind == "got", f"{idea.title}: {kind} {what}\n{outcome}"


@pytest.mark.parametrize("idea", IDEAS, ids=lambda idea: idea.name)
def test_the_same_idea_works_where_its_wall_is_missing(idea: Idea, world: World) -> None:
    (kind, what), outcome = world.control(idea)
    print(f"{kind}: {what}")  # -rP shows it
    if kind == "contained" and idea.needs:
        # Only where this kernel has no such thing for root either.
        (bare, why), outcome = world.lacking(idea)
        assert (bare, set(why.split()) & {"EPERM", "EACCES"}) == ("contained", set()), (
            f"{idea.title}: {what}\n{outcome}"
        )
        return
    assert kind == "got", f"{idea.title}: {kind} {what}\n{outcome}"


def test_there_are_as_many_as_was_promised() -> None:
    assert sum(not idea.open for idea in ALL) >= 60


def row(idea: Idea) -> str:
    wall = f"**open**: {idea.open}" if idea.open else idea.wall
    return f"| `{idea.name}` | {idea.title} | {wall} | {idea.fields['Reference']} |"


def rows(document: Path) -> Counter[str]:
    return Counter(line for line in document.read_text().splitlines() if line.startswith("| `"))


def test_the_document_lists_each_idea_as_its_file_tells_of_it() -> None:
    assert rows(DOCUMENT) == Counter(row(idea) for idea in ALL)
