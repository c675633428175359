"""A tool's own list of mounts, on an empty root of its making, as what a sandbox here shows. Pure.

Here every root without a directory of its own is the host's programs: /usr, its links, a few files of /etc. What of
these a policy does not mount is hidden again, but for where the program lies that it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from immured.adapters.draft import OWN, Draft, above, beneath, clean

__all__ = ["Mount", "place"]

BIND: Final = "bind"
TMPFS: Final = "tmpfs"
FILE: Final = "file"
LINK: Final = "link"
KERNEL: Final = "kernel"
FIXED: Final = "fixed"
DIRECTORY: Final = "directory"

_PARTS: Final = (
    "bin",
    "games",
    "include",
    "lib",
    "lib32",
    "lib64",
    "libexec",
    "libx32",
    "local",
    "sbin",
    "share",
    "src",
)
_LINKED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_OWN_FILES: Final = ("passwd", "group", "hosts", "hostname", "resolv.conf", "nsswitch.conf")
_DEVICES: Final = (
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "pts",
    "ptmx",
    "shm",
    "mqueue",
    "fd",
    "stdin",
    "stdout",
    "stderr",
)
_LINKS: Final = {  # names, not files
    "/var/tmp": "/tmp",  # noqa: S108
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
_PRIVATE: Final = ("/tmp", "/var/tmp")  # noqa: S108 - names, not files


@dataclass(frozen=True, slots=True)
class Mount:
    """One of them, in the order in which the tool makes them. `kind`: bind, tmpfs, file (of `content`), link (to
    `source`), kernel (a file system of the kernel's), directory, or fixed (what stands at `target` becomes read-only).
    `said`: in the tool's words.
    """

    kind: str
    target: str
    said: str
    source: str = ""
    writable: bool = False
    optional: bool = False
    noexec: bool = False
    devices: bool = False
    size: int | None = None
    mode: int | None = None
    content: bytes = b""


def place(draft: Draft, mounts: Sequence[Mount], tool: str, *, program: str | None) -> None:
    """Fills in the draft's file system. `program`: the absolute path of what is run, if it is known."""
    mounts = [_through_links(draft, one) for one in mounts]
    roots = [number for number, one in enumerate(mounts) if one.target == "/" and one.kind == BIND]
    if roots:
        _root(draft, mounts[roots[-1]])
        before = [one for one in mounts[: roots[-1]] if one.target != "/"]
        for one in before:
            draft.maps(one.said, "covered by what is mounted over it")
        mounts = mounts[roots[-1] + 1 :]
    shown: set[str] = set()
    for one in mounts:
        _mount(draft, one, shown)
    if draft.root == "host":
        _hide_the_rest(draft, shown, tool, program)
        if draft.placed(_PRIVATE[0]) is None:
            draft.looser("no /tmp", "the sandbox's own is always there: memory that ends with it")
    _keep_files(draft)


def _root(draft: Draft, one: Mount) -> None:
    draft.root = one.source
    if one.source == "/":
        draft.maps(one.said, "the host's whole tree is the root, as the caller may read it")
        draft.stricter(
            "/dev, /proc, /tmp", "the sandbox's own stand there; of others' files only what anybody may read"
        )
    else:
        draft.maps(one.said, "the root")
    if one.writable:
        draft.stricter(one.said, "the root is only read")


def _through_links(draft: Draft, one: Mount) -> Mount:
    """/lib64 is where the host's link leads."""
    first, _, rest = one.target.lstrip("/").partition("/")
    if first in _LINKED and draft.host.kind(f"/{first}") == "link" and one.kind != LINK:
        return replace(one, target=clean(f"{draft.host.real(f'/{first}')}/{rest}"))
    return one


def _mount(draft: Draft, one: Mount, shown: set[str]) -> None:
    if one.target == "/":
        draft.maps(one.said, "the root is the sandbox's own, and only read")
    elif any(beneath(one.target, own) for own in OWN) and not (draft.root == "/" and beneath(one.target, "/sys")):
        _kernels(draft, one)
    elif one.kind == BIND:
        _bind(draft, one, shown)
    elif one.kind == TMPFS:
        draft.place_tmpfs(one.target, size=one.size, mode=one.mode, noexec=one.noexec)
        draft.maps(one.said, "an empty directory in memory")
    elif one.kind == DIRECTORY:
        _directory(draft, one)
    elif one.kind == FIXED:
        _fixed(draft, one)
    elif one.kind == FILE:
        draft.files[one.target] = one.content
    elif one.kind == LINK:
        _link(draft, one)
    else:
        draft.lost(one.said, "the kernel's own file systems stand at /proc and /dev alone")


def _kernels(draft: Draft, one: Mount) -> None:
    name = one.target.removeprefix("/dev/").split("/")[0]
    if one.kind == FIXED or one.target in ("/proc", "/dev"):
        draft.maps(one.said, f"{one.target} is the sandbox's own")
        if one.devices:
            draft.stricter(one.said, "none of the host's devices but null, zero, full, random, urandom and tty")
    elif beneath(one.target, "/dev") and name in _DEVICES:
        draft.maps(one.said, f"{one.target} is the sandbox's own")
    elif one.optional:
        draft.stricter(one.said, "nothing can be placed there")
    else:
        draft.lost(one.said, "nothing can be placed there")


def _bind(draft: Draft, one: Mount, shown: set[str]) -> None:
    source = draft.host.real(one.source)
    if one.devices:
        draft.stricter(one.said, "no device in it can be opened")
    same = source == one.target
    if same and draft.root == "/" and not one.writable and draft.placed(one.target) is None:
        draft.maps(one.said, "read, as part of the root")
    elif same and draft.root == "host" and beneath(source, "/usr") and not _replaced(draft, source):
        shown.add(source)
        draft.maps(one.said, "part of the host's programs")
        if one.writable:
            draft.stricter(one.said, "only read")
    elif one.writable and (source in _PRIVATE or draft.host.owner(source) == 0):
        if source in _PRIVATE:
            draft.place_tmpfs(one.target, noexec=one.noexec)
            draft.stricter(one.said, "an empty directory of the sandbox's own: the host's belongs to root")
        else:
            draft.place_read(source, one.target, optional=one.optional, noexec=one.noexec)
            draft.lost(one.said, "only read: no tree of root's is ever writable")
    elif draft.host.kind(source) == "other":
        draft.lost(one.said, "a device, a socket or a FIFO cannot be bound")
    else:
        placing = draft.place_write if one.writable else draft.place_read
        placing(source, one.target, optional=one.optional, noexec=one.noexec)
        draft.maps(one.said, "written" if one.writable else "read")
        if source == "/usr" or one.target == "/usr":
            shown.add("/usr")


def _replaced(draft: Draft, path: str) -> bool:
    return any(beneath(path, one) for one in draft.read if beneath(one, "/usr"))


def _directory(draft: Draft, one: Mount) -> None:
    around = draft.placed(one.target)
    if draft.root != "host" or (around is not None and around[0] != "tmpfs"):
        draft.maps(one.said, "stands where the host has it") if draft.host.kind(one.target) else draft.lost(
            one.said, "is not there, and is not made in what is the host's"
        )
        return
    draft.place_tmpfs(one.target, mode=one.mode)
    draft.maps(one.said, "an empty directory in memory")


def _fixed(draft: Draft, one: Mount) -> None:
    if one.target in draft.tmpfs and not any(beneath(path, one.target) for path in (*draft.read, *draft.write)):
        draft.forget(one.target)
        draft.hide.append(one.target)
        draft.maps(one.said, "empty, and only read")
    elif one.target in draft.write:
        entry = draft.write.pop(one.target)
        draft.read[one.target] = entry
        draft.maps(one.said, "only read")
    elif one.target in draft.tmpfs:
        draft.looser(one.said, "can be written to: memory of the sandbox's own, which ends with it")
    else:
        draft.maps(one.said, "only read")


def _link(draft: Draft, one: Mount) -> None:
    name = one.target.lstrip("/")
    target = clean(one.source, above(one.target))
    if name in _LINKED and target == f"/usr/{name}":
        if draft.host.kind(f"/usr/{name}") is None:
            draft.maps(one.said, "not there on this host")
        else:
            draft.maps(one.said, "as the host has it")
    elif _LINKS.get(one.target) == target and draft.placed(one.target) is not None:
        draft.place_tmpfs(one.target)
        draft.maps(one.said, "an empty directory in memory, and no link")
    elif _LINKS.get(one.target) == target:
        draft.maps(one.said, "the sandbox's own")
    else:
        draft.lost(one.said, "no link can be made")


def _hide_the_rest(draft: Draft, shown: set[str], tool: str, program: str | None) -> None:
    """Whatever of the host's programs no mount shows."""
    kept = draft.host.real(program) if program is not None else ""
    if kept and not beneath(kept, "/usr") and draft.placed(kept) is None and draft.host.kind(kept) is not None:
        draft.place_read(kept)
    if "/usr" not in shown:
        for part in _PARTS:
            path = f"/usr/{part}"
            inner = [one for one in shown if beneath(one, path)]
            placed = [one for one in (*draft.read, *draft.write, *draft.tmpfs) if beneath(one, path)]
            if path in inner or draft.host.kind(path) is None:
                continue
            if not inner and not placed and not beneath(kept, path):
                draft.hide.append(path)
            elif not placed and path != f"/usr/{part}/":
                draft.looser(path, f"all of it is read, and not only what {tool} shows of it")
        draft.maps("/usr", "what no mount shows of it is empty")
    draft.looser("/etc", "the files are read that programs need: ld.so.cache, localtime, certificates")
    if not any(one in draft.read for one in (f"/etc/{name}" for name in _OWN_FILES)):
        draft.looser("/etc/passwd", "and its kind are there, of the sandbox's own accounts")


def _keep_files(draft: Draft) -> None:
    """Files go where a run may put them; elsewhere they are lost, or the sandbox has its own."""
    for path in list(draft.files):
        around = draft.placed(path)
        if around is None and beneath(path, "/tmp"):  # noqa: S108
            around = ("tmpfs", "/tmp")  # noqa: S108
        if around is not None and around[0] != "read":
            draft.maps(f"file {path}", "put in before the run")
            continue
        del draft.files[path]
        if draft.root == "host" and path.startswith("/etc/") and path[5:] in _OWN_FILES:
            draft.stricter(f"file {path}", "the sandbox has its own")
        else:
            draft.lost(f"file {path}", "a run's files go to /tmp, to tmpfs and to what is written")
