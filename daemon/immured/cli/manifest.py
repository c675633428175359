"""`immure manifest`: the table of its subcommands, each imported when it is called for."""

from __future__ import annotations

import click

from immured.cli.lazy import LazyGroup

__all__ = ["manifest"]

COMMANDS = {
    "new": ("immured.cli.manifest_write:new", "A manifest to begin from, as a class has it."),
    "lint": ("immured.cli.manifest_check:lint_file", "What is wrong with a file, and what may not be meant."),
    "show": ("immured.cli.manifest_look:show", "What a manifest admits."),
    "diff": ("immured.cli.manifest_look:diff", "What a manifest admits that another does not."),
    "sign": ("immured.cli.manifest_write:sign_file", "Sign a file with your key."),
    "verify": ("immured.cli.manifest_check:verify", "Whether the signatures of a file hold."),
    "load": ("immured.cli.manifest_store:load", "Have a signed manifest in force."),
    "list": ("immured.cli.manifest_store:list_manifests", "Those that the daemon has."),
    "revoke": ("immured.cli.manifest_store:revoke", "Take one out of force, for good."),
    "import": ("immured.cli.manifest_import:import_", "Another tool's policy as a manifest."),
    "schema": ("immured.cli.manifest_write:schema", "The JSON Schema of manifests, for editors."),
}


@click.group(cls=LazyGroup, table=COMMANDS, no_args_is_help=True)
def manifest() -> None:
    """What sandboxes may do: write it, look at it, sign it, have it in force.

    `new`, `lint`, `sign`, `diff`, `import`, `schema`, and `show` and `verify` of a file, need no daemon.

    \b
      immure manifest new build --class build --out build.toml
      immure manifest lint build.toml
      immure manifest sign build.toml
      immure manifest load build.toml
      immure run --manifest build.toml -- make
    """
