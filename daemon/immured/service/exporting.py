"""The process that keeps one copy of the ledger: forked while the daemon is root, a user without rights ever after.

A file system that does not answer keeps whoever asks it from ending, SIGKILL or not. In a thread of the broker's that
would keep the broker from ending, its locks held, and its successor from starting; a process of its own holds nothing
but the copy. It takes orders from the broker alone, by a socket pair, and ends when that does.

The broker cannot write to what it exports to: whoever takes it over can have more copied, and nothing changed there.
One that copies to a server connects to it, where the broker connects to nobody; what signs its requests it read while
it was root, and it never says that to anybody. Its libraries are imported in it alone.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import importlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.errors import ConfigurationError, ImmuredError
from immured.host.landlock import READ, WRITE, Landlock
from immured.ledger.exports.head import ExportError, Head, folder_of
from immured.service import confine, harden, offshoot, outward
from immured.service.broker_user import User
from immured.service.state import Paths

if TYPE_CHECKING:
    from immured.ledger.exports.copy import Copy
    from immured.ledger.exports.place import Place
    from immured.ledger.exports.s3 import S3
    from immured.ledger.exports.tiles import TileCopy

__all__ = ["MAX_MESSAGE", "Exporter", "start_exporter"]

MAX_MESSAGE: Final = 1 << 16
_AUTHORITIES: Final = "AWS_CA_BUNDLE"  # whose certificates are believed, where not those that come with boto3
_METADATA: Final = 80  # 169.254.169.254 and 169.254.170.2 speak HTTP
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV})


@dataclass(slots=True)
class Exporter:
    """The broker's end of one: its socket (SOCK_SEQPACKET, not blocking), its process, where it copies to.

    It is sent maps in msgpack: `op` (`copy` or `probe`), `origin`, `begun`, and for `copy` `size`, `end`, `vkeys`. It
    answers each, in their order, with `{op, done: true, ...}` (of a copy `entries`, `bytes`, `began`) or
    `{op, code, message, remedy}`, and while it copies says `{at: "copy"}` after each piece.
    """

    place: Place
    socket: socket.socket
    pid: int

    def close(self) -> None:
        """Have it end, and take note if it has."""
        self.socket.close()
        self.reap()

    def reap(self) -> int | None:
        """How it ended (`os.waitpid`'s status), None while it lives."""
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return status if pid else None
        return None


def start_exporter(place: Place, paths: Paths, user: User) -> Exporter:
    """Fork the exporter of one destination. Called as root, with one thread. Raises OSError."""
    ledger = os.open(paths.ledger, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found: list[tuple[S3 | None, ImmuredError | None]] = []  # in the child alone

    def give_up_root() -> None:
        found.append(_prepared(place))
        _confine(place, ledger, user)

    try:
        started = offshoot.start(
            f"the exporter to {place.name}",
            {ledger},
            give_up_root,
            lambda orders: _serve(place, ledger, orders, *found[0]),
        )
    finally:
        os.close(ledger)
    return Exporter(place, started.socket, started.pid)


def _prepared(place: Place) -> tuple[S3 | None, ImmuredError | None]:
    """While files may still be read: import what copies, and of a server take what signs requests; or why not."""
    for module in ("copier", "source", "pieces") if place.directory is None else ("copier", "source"):
        importlib.import_module(f"immured.ledger.exports.{module}")
    if place.directory is not None:
        return None, None
    codecs.lookup("idna")  # imported when a name is first asked for, and by then it may be out of the user's reach
    from botocore.httpsession import get_cert_path

    from immured.ledger.exports.s3 import S3, session_of

    get_cert_path(True)  # the same of what looks for the authorities' certificates
    try:
        return S3(place, session_of(place)), None
    except ConfigurationError as error:
        return None, error


def _confine(place: Place, ledger: int, user: User) -> None:
    """Become the broker's user, who here reads the ledger's directory, and writes to the copy's or connects to what
    keeps it. Raises ConfigurationError, OSError."""
    with Landlock() as domain:
        domain.allow(ledger, READ)
        if place.directory is None:
            outward.allow_outward(domain, _ports(place), os.environ.get(_AUTHORITIES, ""))
            outward.enter(domain, user)
            return
        program = confine.broker_filter()
        for path in _writable(place.directory):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    domain.allow(fd, WRITE)
                finally:
                    os.close(fd)
        harden.drop_capabilities()
        harden.become(user.uid, user.gid)
        harden.hide_memory()
        domain.enter()
    harden.filter_calls(program)


def _ports(place: Place) -> set[int]:
    """Of its server; and of what a host in a cloud asks for credentials, where none were given."""
    return {place.port} | ({_METADATA} if place.credentials is None else set())


def _writable(directory: Path) -> list[Path]:
    """The directory; and where a file system may come, or go and come again, what it stands in: Landlock knows inodes,
    and those of a mount are others each time. Never all there is: there a remount takes a restart."""
    places = [directory]
    if _may_be_mounted(directory):
        above = next((one for one in directory.parents if one.is_dir()), Path("/"))
        if above != Path("/"):
            places.append(above)
    return places


def _may_be_mounted(directory: Path) -> bool:
    try:
        return not directory.is_dir() or directory.is_mount() or not any(directory.iterdir())
    except OSError:
        return True  # not even root can look: somebody's FUSE, or a disk with an error


def _serve(place: Place, ledger: int, orders: offshoot.Orders, s3: S3 | None, refused: ImmuredError | None) -> None:
    from immured.ledger.exports.copier import copier
    from immured.ledger.exports.source import LedgerFiles

    copies: dict[str, Copy | TileCopy] = {}

    def progress() -> None:
        orders.say({"at": "copy"})

    while said := orders.next():
        if refused is not None:
            told = f"{place.name}: {refused.message}"
            remedy = f"{refused.remedy}; then restart the daemon"
            orders.say({"op": said["op"], "code": refused.code, "message": told, "remedy": remedy})
            continue
        origin = said["origin"]
        if origin not in copies:
            copies[origin] = copier(place, folder_of(origin), LedgerFiles(ledger), s3, progress)
        orders.say({"op": said["op"], **_answer(place, copies[origin], said)})


def _answer(place: Place, copy: Copy | TileCopy, said: Mapping[str, object]) -> dict[str, object]:
    begun = bool(said["begun"])
    try:
        if said["op"] == "probe":
            copy.probe(begun=begun)
            return {"done": True}
        head = Head(int(str(said["size"])), int(str(said["end"])))
        vkeys = said["vkeys"]
        copied = copy.catch_up(head, vkeys if isinstance(vkeys, bytes) else b"", begun=begun)
    except ExportError as error:
        named = error.message if place.to in error.message else f"{place.name}: {error.message}"
        return {"code": error.code, "message": named, "remedy": error.remedy}
    except OSError as error:
        return _unreachable(place, error)
    return {"done": True, "entries": copied.entries, "bytes": copied.bytes, "began": copied.began}


def _unreachable(place: Place, error: OSError) -> dict[str, object]:
    message = f"{place.name}: {error.strerror or error}"
    return {"code": "export_unreachable", "message": message, "remedy": _remedy(place.to, error.errno)}


def _remedy(directory: str, number: int | None) -> str:
    if number in _REFUSED:
        return (
            f"give {directory} to the daemon's user (uid {os.geteuid()}), who must be able to pass what is above; "
            "under systemd it needs ReadWritePaths= too (docs/ledger.md, Exports); then restart the daemon"
        )
    if number in _FULL:
        return "free space there; what is missing is copied then"
    if number in _ABSENT:
        return "make the directory, or mount what holds it"
    return "see to what holds it (kernel log, mount options, network); it is tried again"
