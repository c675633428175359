"""What a proposed manifest adds, for whoever is to approve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.cli.manifest_check import profiles_of
from immured.cli.manifest_words import added_lines, baseline_words
from immured.cli.say import printable
from immured.cli.target import SYSTEM_STATE
from immured.errors import ImmuredError
from immured.isolation.granted import granted
from immured.manifest.builtin import class_text, parse_toml
from immured.manifest.difference import difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from immured.client.sync import Client
    from immured.manifest.schema import Manifest

__all__ = ["growth_lines"]


def growth_lines(client: Client, args: Mapping[str, object], state: str | None = None) -> list[str]:
    """Of a proposed `manifest.load`: what the file admits beyond its baseline, as whoever looks may see that: the last
    one of its name that is in force, else its class. Computed here, from what was proposed, by nobody's word."""
    raw = args.get("manifest")
    if not isinstance(raw, bytes):
        return []
    try:
        manifest = parse_toml(raw)
    except ImmuredError as refused:
        return ["adds", f"  it is not understood here, and so not compared: {printable(refused.message)}"]
    baseline, said, unseen = _baseline(client, manifest)
    found = difference(baseline, manifest, granted(profiles_of(state or SYSTEM_STATE)))
    lines = [f"adds, beside {baseline_words(said)}"]
    lines += [f"  {line}" for line in added_lines(found.added)] or ["  nothing"]
    return [*lines, *unseen]


def _baseline(client: Client, manifest: Manifest) -> tuple[Manifest, dict[str, object], list[str]]:
    """With what it is compared, how that is called, and what is to be said where one was not to be seen."""
    unseen: list[str] = []
    try:
        for one in reversed(client.manifests.list(manifest.name)):
            if one.standing == "in_force" and not one.built_in:
                shown = client.manifests.show(one.digest).manifest
                if shown is not None:
                    return parse_toml(shown), {"kind": "manifest", "name": one.name, "digest": one.digest}, unseen
    except ImmuredError as refused:
        unseen = [f"  the last one of its name was not to be seen: {printable(refused.message)}"]
    found = parse_toml(class_text(manifest.class_))
    return found, {"kind": "class", "name": manifest.class_, "digest": found.digest}, unseen
