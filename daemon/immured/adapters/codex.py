"""A Codex policy as a manifest. Pure."""

from __future__ import annotations

from typing import Final

from immured.adapters.codex_policy import DENY, METADATA, READ, WRITE, Policy, Rule, read_file
from immured.adapters.draft import Draft, beneath
from immured.adapters.imported import Imported, Surroundings, unsupported
from immured.adapters.patterns import matching, still

__all__ = ["NETWORK", "import_codex", "import_policy"]

NETWORK: Final = "network"
"""The source of the finding that says that a network was asked for."""

_SCAN_DEPTH: Final = 12
_MAX_MATCHES: Final = 160
_CALLS: Final = (
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvmmsg",
    "sendmmsg", "sendto", "setsockopt", "shutdown",
)  # fmt: skip
"""What the helper's filter refuses without a network, by name, whatever the socket's family."""

_LEGACY_CALLS: Final = (*_CALLS, "recvmsg", "sendmsg")
_PLATFORM: Final = ("/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32")


def import_codex(text: str, host: Surroundings) -> Imported:
    """A policy from a file, in any of its forms. Raises Refused."""
    return import_policy(read_file(text, host), host)


def import_policy(policy: Policy, host: Surroundings) -> Imported:
    """What Codex's Linux helper would hold a command to, as a manifest.

    Raises Refused `adapter_unsupported`.
    """
    draft = Draft("codex", host)
    whole = {rule.path: rule for rule in _effective(policy.rules)}
    base = whole.pop("/", None)
    if base is not None and base.access == WRITE:
        raise unsupported(
            "the policy lets everything be written but for what it names", "name what may be written, not what may not"
        )
    full = base is not None and base.access == READ
    _root(draft, policy, full=full)
    for path in sorted(whole, key=lambda one: (one.count("/"), one)):
        _rule(draft, whole, path, full=full)
    _patterns(draft, policy)
    _metadata(draft, policy, whole)
    _network(draft, policy)
    for one in policy.unknown:
        draft.stricter(one, "this place is not known here: nothing is let through for it")
    draft.roomy("Codex")
    draft.cwd = host.cwd
    return draft.finish()


def _effective(rules: tuple[Rule, ...]) -> list[Rule]:
    """Of rules for one path the strongest: deny, then write, then read."""
    order = (READ, WRITE, DENY)
    found: dict[str, Rule] = {}
    for rule in rules:
        if not rule.pattern and (
            rule.path not in found or order.index(rule.access) > order.index(found[rule.path].access)
        ):
            found[rule.path] = rule
    return list(found.values())


def _root(draft: Draft, policy: Policy, *, full: bool) -> None:
    if full:
        draft.root = "/"
        draft.maps("read /", "the host's whole tree is the root, as the caller may read it")
        draft.stricter(
            "read /dev, /proc, /tmp", "the sandbox's own stand there; of others' files only what anybody may read"
        )
        return
    draft.stricter("the rest of the host", "not there at all")
    if policy.minimal:
        draft.maps("minimal", "the host's programs: /usr and its links")
        draft.stricter("minimal: /etc", "only the files that programs need, and accounts of the sandbox's own")
    else:
        draft.looser(
            "no minimal", "the host's programs (/usr and its links) are read all the same: no root is without them"
        )


def _rule(draft: Draft, whole: dict[str, Rule], path: str, *, full: bool) -> None:
    rule, around = whole[path], _around(whole, path)
    outer = around.access if around is not None else READ if full else DENY
    inner = [one for other, one in whole.items() if other != path and beneath(other, path)]
    if _led(draft, whole, path) and (rule.access == WRITE or (rule.access == READ and outer != WRITE)):
        draft.leads(rule.source)
    elif rule.access == WRITE:
        placed = draft.placed(draft.host.real(path))  # a directory around it that is written may be none of the host's
        within = outer == WRITE and placed is not None and placed[0] == "write"
        if not within and draft.writable(path, rule.source, optional=True):
            draft.maps(rule.source, "written")
    elif rule.access == READ:
        _readable(draft, whole, rule, outer, inner)
    elif outer == DENY and not full:
        draft.maps(rule.source, "not there at all")
    elif any(one.access != DENY for one in inner):
        draft.place_tmpfs(draft.host.real(path), mode=0o555)
        draft.maps(rule.source, "an empty directory, in which what is let through again stands")
    else:
        draft.hide.append(draft.host.real(path))
        draft.maps(rule.source, "shown empty")


def _readable(draft: Draft, whole: dict[str, Rule], rule: Rule, outer: str, inner: list[Rule]) -> None:
    real = draft.host.real(rule.path)
    if outer == WRITE:
        opens = any(one.access == WRITE for one in inner) and not _led(draft, whole, rule.path)
        if opens and draft.host.kind(real) is not None:
            draft.place_read(real)
        else:
            draft.protect[_beside(draft, rule.path)] = "held"
        draft.maps(rule.source, "stays as it is; where it is missing, nobody makes it")
    elif outer == DENY:
        if draft.root == "host" and any(beneath(real, one) for one in _PLATFORM):
            draft.maps(rule.source, "part of the host's programs")
            return
        draft.place_read(real, optional=True)
        draft.maps(rule.source, "read")


def _beside(draft: Draft, path: str) -> str:
    """The path with the links above its last name resolved: the name itself is what is protected."""
    directory, _, name = path.rpartition("/")
    return draft.host.real(directory or "/").rstrip("/") + "/" + name


def _led(draft: Draft, whole: dict[str, Rule], path: str) -> bool:
    return draft.led(path, (one for one, rule in whole.items() if rule.access == WRITE))


def _around(whole: dict[str, Rule], path: str) -> Rule | None:
    found = [one for other, one in whole.items() if other != path and beneath(path, other)]
    return max(found, key=lambda one: len(one.path), default=None)


def _patterns(draft: Draft, policy: Policy) -> None:
    for rule in (one for one in policy.rules if one.pattern):
        top = still(rule.path)
        depth = _SCAN_DEPTH if policy.depth is None else policy.depth
        found = list(matching(rule.path, draft.host.walk(top, depth)))
        if len(found) > _MAX_MATCHES:
            raise unsupported(
                f"{rule.source} means {len(found)} places; a manifest names at most 256",
                "deny the directories above them",
            )
        draft.hide += found
        draft.maps(
            rule.source, f"{len(found)} of them are there, and shown empty; what appears later is not, as with Codex"
        )


def _metadata(draft: Draft, policy: Policy, whole: dict[str, Rule]) -> None:
    """`.git` and its kind, in every workspace that is written. The group holds what more git looks for, where it is."""
    roots = [draft.host.real(one) for one in dict.fromkeys(policy.workspaces)]
    roots = [one for one in roots if one in draft.write]
    given = {
        draft.host.real(path) for path, rule in whole.items() if rule.access == WRITE and not _led(draft, whole, path)
    }
    places = [f"{root}/{name}" for root in roots for name in METADATA]
    hidden = [f"{root}/{name}" for root in draft.write for name in (".git", ".hg", ".gitmodules")]
    if any(beneath(place, one) for place in hidden for one in draft.hide):
        pass  # a group protects in every directory, and what is hidden cannot be protected
    elif any(place in given for place in places):
        draft.looser(
            "a writable .git", "the policy names it as written: its hooks and its configuration are not protected"
        )
    elif roots:
        draft.groups.append("vcs")
        for root in draft.write:
            for name in (".hg", ".gitmodules"):
                draft.protect[f"{root}/{name}"] = "passed"
            if root not in roots:
                draft.protect[f"{root}/.git"] = "passed"
    for place in places:
        if place not in given:
            draft.protect.setdefault(place, "held")
    for root in roots:
        target = _gitdir(draft, root)
        if target is not None and any(beneath(target, one) for one in draft.write):
            draft.protect.setdefault(target, "held")
    if roots:
        draft.maps(", ".join(METADATA), "stay as they are in every directory that is written, missing ones too")
        draft.stricter(".hg, .gitmodules", "stay as they are, where they are there")


def _gitdir(draft: Draft, root: str) -> str | None:
    """Where a `.git` that is a file says that the repository is."""
    if draft.host.kind(f"{root}/.git") != "file":
        return None
    said = (draft.host.text(f"{root}/.git") or "").strip()
    if not said.startswith("gitdir:"):
        return None
    path = said.removeprefix("gitdir:").strip()
    return draft.host.real(path if path.startswith("/") else f"{root}/{path}")


def _network(draft: Draft, policy: Policy) -> None:
    if policy.network:
        draft.network = "loopback"
        draft.lost(NETWORK, "the policy gives all of it; here there is none but a loopback of the sandbox's own")
        return
    draft.env["CODEX_SANDBOX_NETWORK_DISABLED"] = "1"
    draft.deny += _LEGACY_CALLS if policy.legacy else _CALLS
    draft.maps(NETWORK, "none, not even a loopback; the socket calls that Codex refuses are refused")
