"""Host ids: who else has, or may come to have, those that sandboxes and the broker take for their own."""

from __future__ import annotations

import grp
import os
import pickle
import pwd
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.host.check import Check, Status
from immured.host.ids import BLOCKS, BROKER_IDS, SLOT_BASE, SLOT_SIZE, SLOTS_PER_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "OUR_BLOCKS",
    "SYSTEMD",
    "Claim",
    "broker",
    "ids",
    "is_running",
    "launchers",
    "named",
    "overlapping",
    "probe",
    "subordinate",
]

OUR_BLOCKS: Final = range(SLOT_BASE, SLOT_BASE + BLOCKS * SLOTS_PER_BLOCK * SLOT_SIZE)
_NSS_S: Final = 3.0
_MAX_NAMED: Final = 1000


@dataclass(frozen=True)
class Claim:
    """A range of host ids that somebody else has: `first` up to, not including, `end`, by `owner`."""

    first: int
    end: int
    owner: str


SYSTEMD: Final = (
    # systemd.io/UIDS-GIDS
    Claim(0, 1000, "system accounts"),
    Claim(60001, 60514, "systemd-homed"),
    Claim(61184, 65520, "systemd's DynamicUser="),
    Claim(65534, 65536, "nobody, and what 16 bits cannot hold"),
    Claim(524288, 1879048192, "systemd-nspawn and container managers"),
    Claim(4294967294, 4294967296, "what means nobody to every system call"),
)


def probe(
    state: Path, slots: range | None, broker_id: int | None, etc: Path = Path("/etc"), proc: Path = Path("/proc")
) -> Iterator[Check]:
    """Every finding about ids, for the daemon of `state`.

    `slots`: the configured ids of its sandboxes; None: one of our blocks. `broker_id`: whom its broker becomes; None
    where that is not known.
    """
    wanted = [slots if slots is not None else OUR_BLOCKS]
    if broker_id is not None and broker_id in BROKER_IDS:
        wanted.append(range(broker_id, broker_id + 1))
    accounts = bounded(lambda: named(wanted))
    claims = [
        *subordinate(etc / "subuid"),
        *subordinate(etc / "subgid"),
        *SYSTEMD,
        *(accounts if accounts is not None else in_files(etc)),
    ]
    if slots is not None:
        claims += launchers(proc, but=_daemon(state))
        if slots.start < BROKER_IDS.stop and BROKER_IDS.start < slots.stop:
            claims.append(Claim(BROKER_IDS.start, BROKER_IDS.stop, "brokers of ours"))
    yield ids(claims, wanted)
    if accounts is None:
        yield Check(
            "host.accounts", Status.WARN,
            f"the directory of accounts did not answer in {_NSS_S:g} s: /etc/passwd and /etc/group alone were read",
            "see nsswitch.conf(5); whether an account has one of our ids is not known until it answers",
        )  # fmt: skip
    yield map_holds(proc, wanted)


def ids(claims: Iterable[Claim], wanted: Iterable[range]) -> Check:
    """Each run has 65,536 host ids that are nobody else's."""
    wanted = list(wanted)
    said = ", ".join(f"{one.start} to {one.stop - 1}" if len(one) > 1 else f"{one.start}" for one in wanted)
    facts: dict[str, object] = {
        "first": wanted[0].start, "end": wanted[0].stop, "ranges": len(wanted[0]) // SLOT_SIZE,
        "broker": wanted[1].start if len(wanted) > 1 else None,
    }  # fmt: skip
    taken = [claim for one in wanted for claim in overlapping(claims, one.start, one.stop)]
    if not taken:
        return Check("host.ids", Status.OK, f"{said}: all free", facts=facts, stands=True)
    owners = ", ".join(sorted({f"{claim.owner} ({claim.first} to {claim.end - 1})" for claim in taken})[:5])
    return Check(
        "host.ids", Status.WARN, f"{said}; also claimed by {owners}: a run could own their files",
        "configure slot_base and slot_count in config.toml outside of that, or move that claim (see subuid(5)) and "
        "what it owns", facts, stands=False,
    )  # fmt: skip


def overlapping(claims: Iterable[Claim], first: int, end: int) -> list[Claim]:
    """The claims that reach into `first` up to `end`."""
    return [claim for claim in claims if claim.first < end and first < claim.end]


def map_holds(proc: Path, wanted: Iterable[range]) -> Check:
    """In a container, the ids that exist are those of its own map."""
    rows = [line.split() for line in _lines(proc / "self/uid_map")]
    mapped = [range(int(row[0]), int(row[0]) + int(row[2])) for row in rows if len(row) == 3]
    for one in wanted:
        if not any(held.start <= one.start and one.stop <= held.stop for held in mapped):
            return Check(
                "host.id-map", Status.FAIL, f"{one.start} to {one.stop - 1} do not exist in this user namespace",
                "map them into the container, or configure slot_base, slot_count and [broker] user within its map",
            )  # fmt: skip
    return Check("host.id-map", Status.OK, "every id that is needed exists here")


def subordinate(path: Path) -> Iterator[Claim]:
    """The claims of /etc/subuid or /etc/subgid (`name:first:count`); a missing file claims nothing."""
    for line in _lines(path):
        parts = line.partition("#")[0].strip().split(":")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            first = int(parts[1])
            yield Claim(first, first + int(parts[2]), f"{parts[0]} in {path}")


def in_files(etc: Path) -> Iterator[Claim]:
    """One claim for each line of passwd and group."""
    for kind in ("passwd", "group"):
        for line in _lines(etc / kind):
            parts = line.split(":")
            if len(parts) > 2 and parts[2].isdigit():
                yield Claim(int(parts[2]), int(parts[2]) + 1, f"{'user' if kind == 'passwd' else kind} {parts[0]}")


def named(wanted: Iterable[range]) -> list[Claim]:
    """One claim for each user and group that the host knows by name and that has an id of `wanted`; 1,000 at most."""
    known = [(user.pw_uid, f"user {user.pw_name}") for user in pwd.getpwall()]
    known += [(group.gr_gid, f"group {group.gr_name}") for group in grp.getgrall()]
    return [Claim(number, number + 1, name) for number, name in known if any(number in one for one in wanted)][
        :_MAX_NAMED
    ]


def launchers(proc: Path = Path("/proc"), *, but: int = 0) -> Iterator[Claim]:
    """The blocks of other daemons that run now, as their launchers were told; not that of the daemon with pid `but`."""
    for entry in proc.iterdir():
        if not entry.name.isdigit() or _text(entry / "comm").strip() != "immured-launch":
            continue
        if f"\nPPid:\t{but}\n" in _text(entry / "status"):
            continue
        words = _text(entry / "cmdline").split("\0")
        given = dict(zip(words[1::2], words[2::2], strict=False))
        base, count = given.get("--slot-base", ""), given.get("--slot-count", "")
        if base.isdigit() and count.isdigit():
            yield Claim(int(base), int(base) + int(count) * SLOT_SIZE, f"the daemon of {given.get('--socket', '?')}")


def bounded(work: Callable[[], list[Claim]]) -> list[Claim] | None:
    """What `work` returns, from a child that is killed after three seconds; None then, or where it failed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(write)
    handle = os.pidfd_open(child)
    parts = []
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], _NSS_S)[0] and (part := pipe.read(1 << 16)):
            parts.append(part)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    os.waitpid(child, 0)
    try:
        found: list[Claim] = pickle.loads(b"".join(parts))  # noqa: S301 - our own child's
    except (EOFError, pickle.UnpicklingError):
        return None
    return found


def broker(state: Path, uid: int | None, name: str, problem: str, proc: Path = Path("/proc")) -> Check:
    """Whom the broker becomes (`uid`, and `name` where it is an account), and who it is now where it runs."""
    if problem:
        return Check(
            "broker.user", Status.FAIL, problem, "name a system user of its own as [broker] user in config.toml",
            stands=False,
        )  # fmt: skip
    said = f"uid {uid}" + (f" ({name})" if name else ", an id that no account has")
    facts: dict[str, object] = {"uid": uid, "account": name}
    pid = _daemon(state)
    fields = dict(line.split(":\t", 1) for line in _lines(proc / str(pid) / "status") if ":\t" in line) if pid else {}
    if not fields:
        return Check("broker.user", Status.OK, f"becomes {said}, for {state}", facts=facts, stands=True)
    now = int(fields["Uid"].split()[0])
    bare = all(int(fields[kind], 16) == 0 for kind in ("CapPrm", "CapEff", "CapBnd")) and fields["Seccomp"] == "2"
    facts |= {"pid": pid, "running_uid": now, "confined": bare}
    if now == 0 or not bare:
        return Check(
            "broker.user", Status.WARN, f"process {pid} runs as uid {now}, and has rights that a broker needs not",
            "restart the daemon: it is of an older version, or is just starting", facts, stands=False,
        )  # fmt: skip
    return Check(
        "broker.user", Status.OK, f"process {pid} runs as uid {now}, without a capability, behind its filter",
        facts=facts, stands=True,
    )  # fmt: skip


def is_running(state: Path) -> bool:
    """Whether a daemon of this state directory runs."""
    return _daemon(state) != 0


def _daemon(state: Path) -> int:
    """The pid that holds a state directory's lock; 0 where none does."""
    written = _text(state / "lock").strip()
    if not written.isdigit():
        return 0
    locks = _text(Path("/proc/locks"))
    return int(written) if f" {written} " in locks else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()
