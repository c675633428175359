"""`immure seccomp`: what a filter says to a call, and OCI profiles made into ours. No daemon, no key."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import click

from immured import _core
from immured.cli.say import json_text, note, printable
from immured.cli.target import SYSTEM_STATE
from immured.errors import ConfigurationError
from immured.isolation import oci, syscalls
from immured.isolation.oci_document import MAX_BYTES
from immured.isolation.profiles import nearest
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile, host_architecture
from immured.isolation.syscalls import Architecture
from immured.service.profiles import read_profiles

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["seccomp"]

_KERNEL = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9]).*", re.DOTALL)

architecture_option = click.option(
    "--arch", type=click.Choice(get_args(Architecture)), help="For this architecture; default: this machine's."
)


@click.group(no_args_is_help=True)
def seccomp() -> None:
    """Ask a system-call filter, or import a profile. docs/syscalls.md has the words."""


@seccomp.command(context_settings={"ignore_unknown_options": True})  # -1 is an argument
@click.argument("call")
@click.argument("arguments", metavar="[ARG]...", nargs=-1)
@click.option("--profile", default="default", show_default=True, metavar="NAME", help="Of the package, or installed.")
@click.option("--allow", multiple=True, metavar="CALL", help="As in a manifest's [syscalls]: a call, or @group.")
@click.option("--deny", multiple=True, metavar="CALL", help="The same.")
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="Whose installed profiles.")
@architecture_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def ask(
    call: str,
    arguments: tuple[str, ...],
    profile: str,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    state: str,
    arch: str | None,
    as_json: bool,
) -> None:
    """What the filter answers to CALL with these arguments (0 where none is given), and what PID 1 would be told of.

    CALL is a name or a number; an argument is a number: 10, 0x10, 0o10, or -1.
    """
    architecture = cast("Architecture", arch) if arch else host_architecture()
    values = tuple(_number(one) for one in arguments)
    if len(values) > 6:
        raise click.UsageError("a system call has at most six arguments")
    number = _call_number(call, architecture)
    profiles = read_profiles(Path(state) / "profiles")
    programs = [
        compile_profile(profile, allow, deny, architecture, explain=explain, profiles=profiles)
        for explain in (False, True)
    ]
    base, explained = (_core.seccomp_trace(program, AUDIT_ARCH[architecture], number, values) for program in programs)
    told = explained[0] != base[0]
    answer = {
        "call": call,
        "number": number,
        "architecture": architecture,
        "arguments": list(values),
        "profile": profile,
        "answer": syscalls.action_text(base[0]),
        "explained": told,
        "instructions": base[1],
    }
    if as_json:
        click.echo(json_text(answer))
        return
    shown = f"{call}({', '.join(arguments)})"
    click.echo(f"{printable(shown)}: {answer['answer']}{' (explained)' if told else ''}")


def _call_number(call: str, architecture: Architecture) -> int:
    numbers = syscalls.numbers(architecture)
    if call in numbers:
        return numbers[call]
    if call[:1].isdigit():
        return _number(call, 32)
    if call in syscalls.names() | syscalls.elsewhere():
        raise click.UsageError(f"{call} is no system call of {architecture}")
    raise click.UsageError(f"{call} is not a system call{nearest(call, numbers)}")


def _number(text: str, bits: int = 64) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise click.UsageError(f"{text} is not a number") from None
    if not -(1 << (bits - 1)) <= value < 1 << bits:
        raise click.UsageError(f"{text} does not fit {bits} bits")
    return value % (1 << bits)


@seccomp.command("import")
@click.argument("file", metavar="FILE.json", type=click.File("rb"))
@click.option("--name", metavar="NAME", help="The profile's name; default: the file's.")
@click.option(
    "--kernel", metavar="X.Y", default=platform.release(), show_default=True, help="For entries with minKernel."
)
@architecture_option
@click.option("--output", "-o", metavar="F", type=click.Path(), help="Write it there; default: standard output.")
def import_(file: BinaryIO, name: str | None, kernel: str, arch: str | None, output: str | None) -> None:
    """Make a profile from one of the OCI or Docker form (JSON), for a process without capabilities.

    What the profile cannot say, or no profile may allow, is told line by line, on standard error and in its head. As
    DIR/profiles/NAME.toml it is there for manifests from the daemon's next start on: [syscalls] profile = "NAME".
    """
    version = _KERNEL.fullmatch(kernel)
    if version is None:
        raise click.UsageError(f"--kernel: {kernel} is not a version such as 6.1")
    raw = file.read(MAX_BYTES + 1)
    imported = oci.import_profile(
        raw,
        name=name if name is not None else Path(file.name).stem,
        target=oci.Target(
            cast("Architecture", arch) if arch else host_architecture(), (int(version[1]), int(version[2]))
        ),
    )
    for line in imported.report:
        note(line)
    if output is None:
        sys.stdout.write(imported.text)
        return
    try:
        Path(output).write_text(imported.text)
    except OSError as error:
        raise ConfigurationError("bad_profile", f"{output}: {error.strerror}", "choose another --output") from error
