"""Settings of Anthropic's sandbox-runtime as a manifest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from immured.adapters.draft import Draft, above, beneath, clean
from immured.adapters.imported import Imported, Surroundings, unsupported
from immured.adapters.patterns import is_pattern, matching, still
from immured.adapters.srt_settings import Settings, read_settings

__all__ = ["import_settings", "import_srt", "shell"]

DANGEROUS: Final = (
    ".gitconfig", ".gitmodules", ".bashrc", ".bash_profile", ".zshrc", ".zprofile", ".profile", ".ripgreprc",
    ".mcp.json", ".vscode", ".idea", ".claude/commands", ".claude/agents",
)  # fmt: skip
"""What srt lets nobody write, in the current directory and the same names below it."""

_DEFAULT_WRITE: Final = ("~/.npm/_logs", "~/.claude/debug")
_TEMPORARY: Final = "/tmp/claude"  # noqa: S108 - srt's own name
_SYSTEM: Final = ("/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32")
_SSH: Final = "/etc/ssh/ssh_config.d"
_MAX_FOUND: Final = 160
_SCAN_DEPTH: Final = 12


def import_srt(text: str, host: Surroundings) -> Imported:
    """A settings file. Raises Refused."""
    return import_settings(read_settings(text), host)


def shell(command: str, host: Surroundings) -> tuple[str, ...]:
    """How srt runs a command line: by bash, as PATH has it."""
    return (host.program("bash") or "/bin/bash", "-c", command)


def import_settings(settings: Settings, host: Surroundings) -> Imported:
    """What srt would hold a command on Linux to. Raises Refused `adapter_unsupported`."""
    if settings.unconfined:
        raise unsupported(
            "filesystem.disabled is true: srt then lets everything be read and written",
            "leave it out; nothing runs here without walls",
        )
    draft = Draft("srt", host)
    _reading(draft, settings)
    _writing(draft, settings)
    _denied_reading(draft, settings)
    _mandatory(draft, settings)
    _network(draft, settings)
    for name, why in settings.aside.items():
        draft.maps(name, f"nothing to do: {why}")
    if settings.nested:
        draft.stricter("enableWeakerNestedSandbox", "/proc is the sandbox's own all the same")
    for name in settings.unset:
        draft.maps(f"credentials.envVars {name}", "not passed on")
    for name in settings.masked:
        draft.stricter(f"credentials mask {name}", "denied: there is no proxy that would put it in")
    draft.env |= {"SANDBOX_RUNTIME": "1", "TMPDIR": _TEMPORARY}
    draft.roomy("srt")
    draft.cwd = host.cwd
    return draft.finish()


def _reading(draft: Draft, settings: Settings) -> None:
    if not settings.listed:
        draft.root = "/"
        draft.maps("reading", "the host's whole tree is the root, as the caller may read it")
        draft.stricter(
            "/dev, /proc, /tmp", "the sandbox's own stand there; of others' files only what anybody may read"
        )
        return
    if settings.system:
        draft.maps("autoAllowSystemPaths", "the host's programs: /usr and its links")
        draft.stricter(
            "autoAllowSystemPaths: /etc", "only the files that programs need, and accounts of the sandbox's own"
        )
    else:
        draft.looser(
            "autoAllowSystemPaths: false", "the host's programs are read all the same: no root is without them"
        )
    for path, source in _opened(draft, settings):
        real = draft.host.real(path)
        if not any(beneath(real, one) for one in _SYSTEM) and draft.placed(real) is None:
            draft.place_read(real, optional=True)
        draft.maps(source, "read")


def _writing(draft: Draft, settings: Settings) -> None:
    draft.place_tmpfs(above(_TEMPORARY))
    draft.place_tmpfs(_TEMPORARY)
    draft.stricter(above(_TEMPORARY), "empty, and the sandbox's own, as /tmp/claude in it is")
    asked = _written(draft, settings)
    for path, source in sorted(asked, key=lambda one: one[0].count("/")):
        if path in (above(_TEMPORARY), _TEMPORARY):
            continue
        if draft.led(path, (one for one, _ in asked)):
            draft.leads(source)
            continue
        around = draft.placed(draft.host.real(path))
        if (around is not None and around[0] == "write") or draft.writable(path, source, optional=True):
            draft.maps(source, "written")
    for path, source in _paths(draft, settings.deny_write, "denyWrite"):
        _keep(draft, path, source, "held")


def _written(draft: Draft, settings: Settings) -> list[tuple[str, str]]:
    """What is asked to be written, srt's own places too."""
    own = [(clean(draft.host.home + one[1:]), f"default {one}") for one in _DEFAULT_WRITE]
    own = [(path, source) for path, source in own if draft.host.owner(path)]
    return own + _paths(draft, settings.allow_write, "allowWrite", opens=True)


def _opened(draft: Draft, settings: Settings) -> list[tuple[str, str]]:
    """What `allowRead` lets be read."""
    written = [path for path, _ in _written(draft, settings)]
    found = []
    for path, source in _paths(draft, settings.allow_read, "allowRead", opens=True):
        if draft.led(path, written):
            draft.leads(source)
        else:
            found.append((path, source))
    return found


def _keep(draft: Draft, path: str, source: str, absent: str) -> bool:
    """What lies in what is written stays as it is. Returns whether it lies there."""
    directory, _, name = path.rpartition("/")
    real = draft.host.real(directory or "/").rstrip("/") + "/" + name
    if draft.host.real(path) in draft.write:
        draft.forget(draft.host.real(path))
        draft.maps(source, "not written")
        return True
    around = draft.placed(real)
    if around is None or around[0] != "write":
        draft.maps(source, "not written: nothing lets it be")
        return False
    for inner in [one for one in draft.write if beneath(one, real)]:
        draft.forget(inner)
    draft.protect[real] = absent
    draft.maps(source, "stays as it is" + ("; where it is missing, nobody makes it" if absent == "held" else ""))
    return True


def _denied_reading(draft: Draft, settings: Settings) -> None:
    again = [draft.host.real(path) for path, _ in _opened(draft, settings)]
    denied = [*_paths(draft, settings.deny_read, "denyRead")]
    denied += _paths(draft, settings.hidden, "credentials.files")
    if draft.host.kind(_SSH) is not None and not settings.listed:
        denied.append((_SSH, "default"))
    for path, source in denied:
        real = draft.host.real(path)
        opened = [one for one in again if beneath(one, real)] if not settings.listed else []
        written = [one for one in draft.write if beneath(one, real) and one != real]
        if real == "/":
            raise unsupported(f"{source}: everything is denied", "list what may be read: allowRead, without denyRead")
        if real in opened or any(beneath(real, one) for one in again if not settings.listed):
            draft.maps(source, "allowRead lets it be read")
        elif (opened or written) and draft.host.kind(real) == "directory":
            kept = {one: draft.write[one] for one in written}
            draft.place_tmpfs(real, mode=0o555)
            draft.write |= kept
            for one in (one for one in opened if one not in kept):
                draft.place_read(one, optional=True)
            draft.maps(source, "an empty directory, in which what is let through again stands")
        else:
            draft.hide.append(real)
            draft.maps(source, "shown empty")


def _mandatory(draft: Draft, settings: Settings) -> None:
    """What srt always keeps: in the current directory, and where it finds the same names a few levels below."""
    cwd, absent = draft.host.cwd, "held" if settings.hold_missing else "passed"
    around = draft.placed(cwd)
    below = [one for one in draft.write if beneath(one, cwd) and one != cwd]
    if (around is None or around[0] != "write") and not below:
        return
    for name in DANGEROUS:
        first = name.split("/")[0]
        place = f"{cwd}/{first if draft.host.kind(f'{cwd}/{first}') is None else name}"
        if place not in draft.protect:
            _keep(draft, place, "mandatory", absent)
    git = ["hooks"] if settings.allow_git_config else ["hooks", "config"]
    if draft.host.kind(f"{cwd}/.git") == "directory":
        for name in git:
            _keep(draft, f"{cwd}/.git/{name}", "mandatory", "held")
    found = [one for one in _nested(draft.host.walk(cwd, settings.depth), git) if one not in draft.protect]
    if len(found) > _MAX_FOUND:
        raise unsupported(
            f"{len(found)} places below {cwd} are to stay as they are; a manifest names at most 256",
            "a smaller mandatoryDenySearchDepth, or a smaller directory",
        )
    for one in found:
        _keep(draft, one, "mandatory", "passed")
    draft.findings = [one for one in draft.findings if one.source != "mandatory"]
    draft.maps("mandatory", f"{', '.join(DANGEROUS)}, .git/{', .git/'.join(git)} stay as they are")
    if not settings.hold_missing:
        draft.maps("protectNonexistentFiles: false", "those that are missing may be made")


def _nested(paths: Iterable[str], git: list[str]) -> Iterator[str]:
    for path in paths:
        if "/node_modules/" in path:
            continue
        for name in (*DANGEROUS, *(f".git/{one}" for one in git)):
            if path.lower().endswith(f"/{name}"):
                yield path


def _network(draft: Draft, settings: Settings) -> None:
    draft.network = "loopback"
    if settings.domains:
        draft.lost(
            "network.allowedDomains",
            f"{', '.join(settings.domains)}: none is reached, as srt answers for any other host",
        )
    else:
        draft.maps("network", "none but a loopback of the sandbox's own")
    if settings.denied:
        draft.maps("network.deniedDomains", "none is reached")
    if settings.unix_sockets:
        draft.maps("network.allowAllUnixSockets", "sockets with a path can be made and spoken to")
    else:
        draft.profile = "no-unix"
        draft.maps("unix sockets", "none can be made: the profile no-unix")


def _paths(draft: Draft, given: Iterable[str], name: str, *, opens: bool = False) -> list[tuple[str, str]]:
    """As srt resolves them: `~`, relative ones, a `/**` at the end. What a pattern means now; one that would let
    something through means nothing, as on Linux in srt.
    """
    found: list[tuple[str, str]] = []
    for text in given:
        source = f"filesystem.{name} {text}" if not name.startswith("credentials") else f"{name} {text}"
        path = text.removesuffix("/**") or "/"
        path = draft.host.home + path[1:] if path == "~" or path.startswith("~/") else path
        path = clean(path, draft.host.cwd)
        if not is_pattern(path):
            found.append((path, source))
        elif opens:
            draft.stricter(source, "a pattern lets nothing through, as with srt on Linux")
        else:
            meant = list(matching(path, draft.host.walk(still(path), _SCAN_DEPTH)))
            if len(meant) > _MAX_FOUND:
                raise unsupported(
                    f"{source} means {len(meant)} places", "a manifest names at most 256: name directories"
                )
            found += [(one, source) for one in meant]
            draft.maps(source, f"{len(meant)} of them are there; what appears later is not meant")
    return found
