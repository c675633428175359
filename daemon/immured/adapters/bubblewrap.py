"""A bubblewrap command line as a manifest. Pure, but for the descriptors that the line itself names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from immured.adapters.bubblewrap_words import Option, read_descriptor, read_words
from immured.adapters.calls import only, permitted_by, without
from immured.adapters.draft import Draft, beneath, clean
from immured.adapters.imported import Imported, Surroundings, invalid
from immured.adapters.view import BIND, DIRECTORY, FILE, FIXED, KERNEL, LINK, TMPFS, Mount, place
from immured.isolation.seccomp import host_architecture
from immured.isolation.syscalls import numbers
from immured.wire.strict import shown

__all__ = ["import_bubblewrap"]

_ALWAYS: Final = {
    "--unshare-all", "--unshare-user", "--unshare-user-try", "--unshare-ipc", "--unshare-pid", "--unshare-uts",
    "--unshare-cgroup", "--unshare-cgroup-try", "--disable-userns", "--assert-userns-disabled", "--new-session",
    "--die-with-parent", "--unshare-net",
}  # fmt: skip
_LOST: Final = {
    "--argv0": "a program is called by its own name",
    "--level-prefix": "of bubblewrap's own messages",
    "--as-pid-1": "PID 1 is the daemon's",
    "--lock-file": "no lock is taken",
    "--sync-fd": "no descriptor is held",
    "--block-fd": "a run does not wait",
    "--userns-block-fd": "a run does not wait",
    "--info-fd": "the result and the ledger have what can be told",
    "--json-status-fd": "the result and the ledger have what can be told",
    "--userns": "a user namespace of its own",
    "--userns2": "a user namespace of its own",
    "--pidns": "a pid namespace of its own",
    "--exec-label": "no labels are set",
    "--file-label": "no labels are set",
    "--overlay-src": "no overlay is made; `capture`, in a sandbox that lives, is the like of one",
    "--overlay": "no overlay is made; `capture`, in a sandbox that lives, is the like of one",
    "--tmp-overlay": "no overlay is made; `capture`, in a sandbox that lives, is the like of one",
    "--ro-overlay": "no overlay is made",
    "--chmod": "modes stay as they are",
    "--bind-fd": "what is bound is named by its path",
    "--ro-bind-fd": "what is bound is named by its path",
}
_FILES: Final = {"--file": 0o666, "--bind-data": 0o600, "--ro-bind-data": 0o600}


@dataclass
class _Line:
    """What is known while the options are gone through."""

    mounts: list[Mount] = field(default_factory=list)
    filters: list[tuple[str, bytes]] = field(default_factory=list)
    cwd: str | None = None
    shares: bool = True
    perms: int | None = None
    size: int | None = None


def import_bubblewrap(words: Sequence[str], host: Surroundings, descriptor: Callable[[int], bytes]) -> Imported:
    """A command line without its `bwrap`. `descriptor` reads one of those that it names to its end.

    Raises Refused.
    """
    options, command = read_words(words, descriptor)
    draft, line = Draft("bubblewrap", host), _Line()
    for option in options:
        if option.name in _ALWAYS:
            _namespace(draft, line, option)
        elif option.name in _LOST:
            draft.lost(str(option), _LOST[option.name])
        elif not _place(line, option, descriptor, draft) and not _surroundings(draft, line, option):
            _process(draft, line, option, descriptor)
    draft.argv = command
    program = host.real(command[0]) if command and command[0].startswith("/") else None
    place(draft, line.mounts, "bubblewrap", program=None)
    _missing(draft, program)
    if draft.root == "host":
        draft.stricter("/", "only read: bubblewrap's own root is in memory, and can be written to")
    _network(draft, line)
    if line.filters:
        _filter(draft, line.filters)
    else:
        draft.stricter("no --seccomp", "the profile default: what is in none of its groups is refused")
    _directory(draft, line)
    draft.roomy("bubblewrap")
    return draft.finish()


def _namespace(draft: Draft, line: _Line, option: Option) -> None:
    if option.name in ("--unshare-all", "--unshare-net"):
        line.shares = False
    draft.maps(option.name, "always")


def _place(line: _Line, option: Option, descriptor: Callable[[int], bytes], draft: Draft) -> bool:
    """What is mounted or made. Returns whether the option is of that kind."""
    name, said = option.name.removesuffix("-try"), str(option)
    perms, size = line.perms, line.size
    if name in ("--bind", "--dev-bind", "--ro-bind"):
        source, target = option.words
        line.mounts.append(
            Mount(
                BIND, clean(target), said, source=clean(source, draft.host.cwd), writable=name != "--ro-bind",
                optional=option.name.endswith("-try"), devices=name == "--dev-bind",
            )
        )  # fmt: skip
    elif name in ("--proc", "--dev", "--mqueue"):
        line.mounts.append(Mount(KERNEL, clean(option.words[0]), said))
    elif name == "--tmpfs":
        line.mounts.append(
            Mount(TMPFS, clean(option.words[0]), said, size=size, mode=0o755 if perms is None else perms)
        )
    elif name == "--dir":
        line.mounts.append(Mount(DIRECTORY, clean(option.words[0]), said, mode=0o755 if perms is None else perms))
    elif name == "--symlink":
        line.mounts.append(Mount(LINK, clean(option.words[1]), said, source=option.words[0]))
    elif name == "--remount-ro":
        line.mounts.append(Mount(FIXED, clean(option.words[0]), said))
    elif name in _FILES:
        content = read_descriptor(option.words[0], descriptor)
        line.mounts.append(Mount(FILE, clean(option.words[1]), said, content=content))
    else:
        return False
    line.perms = line.size = None
    return True


def _surroundings(draft: Draft, line: _Line, option: Option) -> bool:
    """Variables and the directory. Returns whether the option is of that kind."""
    if option.name == "--chdir":
        line.cwd = clean(option.words[0])
    elif option.name == "--setenv":
        name, value = option.words
        if not name or "=" in name:
            raise invalid(f"--setenv names {shown(name)}, which is no variable")
        draft.variables[name] = value
        draft.env.pop(name, None)
    elif option.name == "--unsetenv":
        draft.variables.pop(option.words[0], None)
        draft.maps(str(option), "not passed on")
    elif option.name == "--clearenv":
        draft.variables.clear()
        draft.passed = []
        draft.maps(option.name, "a run passes none on")
        draft.looser(option.name, "PATH, HOME, USER, LANG and TMPDIR are always set")
    else:
        return False
    return True


def _process(draft: Draft, line: _Line, option: Option, descriptor: Callable[[int], bytes]) -> None:
    name, words = option.name, option.words
    if name == "--share-net":
        line.shares = True
    elif name == "--perms":
        line.perms = _number(option, 8, 0o7777)
    elif name == "--size":
        line.size = _number(option, 10, 1 << 50)
    elif name in ("--seccomp", "--add-seccomp-fd"):
        kept = [] if name == "--seccomp" else line.filters
        line.filters = [*kept, (name, read_descriptor(words[0], descriptor))]
    elif name in ("--uid", "--gid"):
        if words[0] == "1000":
            draft.maps(str(option), "as ever")
        else:
            draft.lost(str(option), "the payload is 1000 inside")
    elif name == "--hostname":
        draft.lost(str(option), "the sandbox's name is its own")
    elif name == "--cap-drop":
        draft.maps(str(option), "no capability is ever had")
    else:
        draft.stricter(str(option), "no capability is ever had")


def _number(option: Option, base: int, most: int) -> int:
    text = option.words[0]
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if not text.isascii() or not text.isalnum() or not 0 <= value <= most:
        raise invalid(f"{option.name} takes a number, not {shown(text)}")
    return value


def _missing(draft: Draft, program: str | None) -> None:
    if program is not None and draft.root == "host" and any(beneath(program, one) for one in draft.hide):
        draft.stricter(program, "is not in what the line shows, and cannot be executed")


def _network(draft: Draft, line: _Line) -> None:
    draft.network = "loopback"
    if line.shares:
        draft.lost("network", "the host's is shared; here there is none but a loopback of the sandbox's own")
    else:
        draft.maps("network", "a loopback of the sandbox's own")


def _filter(draft: Draft, filters: list[tuple[str, bytes]]) -> None:
    """Of several, the kernel takes the strictest answer."""
    found = [permitted_by(program) for _, program in filters]
    source, permitted = filters[-1][0], frozenset.intersection(*(one.permitted for one in found))
    if all(one.rest for one in found):
        without(draft, source, frozenset(numbers(host_architecture())) - permitted)
        draft.stricter(f"{source}: the rest", "what the profile default allows")
    else:
        only(draft, source, permitted)
    if any(one.looks for one in found):
        draft.lost(f"{source}: arguments", "calls are let through or refused as with arguments of 0")


def _directory(draft: Draft, line: _Line) -> None:
    """--chdir; else where the caller stands, if that is seen; else its home; else the root."""
    if line.cwd is not None:
        draft.cwd = line.cwd
        return
    for path in (draft.host.cwd, draft.host.home):
        around = draft.placed(path)
        seen = draft.root == "/" if around is None else around[0] != "tmpfs" or around[1] == path
        if seen and not any(beneath(path, one) for one in draft.hide):
            draft.cwd = path
            return
    draft.cwd = "/"
