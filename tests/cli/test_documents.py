"""The words for strangers do not point at what is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from immured.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


NAMED = sorted(set(TEST.findall((ROOT / "docs/threat-model.md").read_text())))


@pytest.mark.parametrize("reference", NAMED, ids="::".join)
def test_every_test_that_the_threat_model_names_exists(reference: tuple[str, str]) -> None:
    file, name = reference
    assert (ROOT / file).exists()
    assert name in functions(ROOT / file)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_subcommand_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"`immure ([a-z]+)", document.read_text()))
    assert named <= set(COMMANDS)
