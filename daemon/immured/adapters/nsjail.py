"""An nsjail config as a manifest. Pure."""

from __future__ import annotations

import re
from typing import Final, cast

from immured.adapters.calls import only, without
from immured.adapters.draft import ROOMY, Draft, clean, label
from immured.adapters.imported import Imported, Surroundings, invalid
from immured.adapters.kafel import read_kafel
from immured.adapters.nsjail_fields import read_config
from immured.adapters.text_format import Message
from immured.adapters.view import BIND, FILE, KERNEL, LINK, TMPFS, Mount, place
from immured.wire.strict import shown

__all__ = ["import_nsjail"]

_MIB: Final = 1 << 20
_LARGEST: Final = 1 << 50  # the most that a manifest's limits take, as manifest/limits.py has it
_LONGEST: Final = 366 * 86_400
_MOST_CPUS: Final = 4096
_MOST_TASKS: Final = 1 << 22
_SIZE: Final = re.compile(r"([0-9]{1,15})([kmg]?)", re.ASCII | re.IGNORECASE)
_NOTHING: Final = {
    "description": "for people", "log_fd": "of nsjail's own log", "log_file": "of nsjail's own log",
    "log_level": "of nsjail's own log", "seccomp_log": "the ledger and the result name what is refused",
    "cgroup_mem_mount": "limits are the daemon's to hold", "cgroup_mem_parent": "limits are the daemon's to hold",
    "cgroup_pids_mount": "limits are the daemon's to hold", "cgroup_pids_parent": "limits are the daemon's to hold",
    "cgroup_cpu_mount": "limits are the daemon's to hold", "cgroup_cpu_parent": "limits are the daemon's to hold",
    "cgroup_net_cls_mount": "limits are the daemon's to hold",
    "cgroup_net_cls_parent": "limits are the daemon's to hold",
    "cgroupv2_mount": "limits are the daemon's to hold", "use_cgroupv2": "limits are the daemon's to hold",
    "detect_cgroupv2": "limits are the daemon's to hold", "no_pivotroot": "the root is always pivoted to",
    "forward_signals": "a run is ended as a whole", "rlimit_core": "no core is ever written",
    "rlimit_core_type": "no core is ever written", "seccomp_unotify": "the result names what is refused",
}  # fmt: skip
_LOST: Final = (
    "hostname", "nice_level", "pass_fd", "oom_score_adj", "disable_tsc", "stderr_to_null", "silent", "port",
    "bindhost", "max_conns", "max_conns_per_ip", "cgroup_net_cls_classid", "cgroup_mem_memsw_max",
    "seccomp_unotify_report", "use_core_scheduling",
)  # fmt: skip
_NETWORK: Final = ("user_net", "macvlan_iface", "macvlan_vs_ip", "macvlan_vs_nm", "macvlan_vs_gw", "macvlan_vs_ma",
                   "macvlan_vs_mo", "iface_own", "traffic_rule")  # fmt: skip
_SYSTEM_LIMITS: Final = ("stack", "memlock", "rtprio", "msgqueue")


def import_nsjail(text: str, host: Surroundings) -> Imported:
    """A config in the text form of protobuf, or in its JSON form. Raises Refused."""
    config = read_config(text)
    draft = Draft(label(_text(config, "name"), "nsjail"), host)
    _command(draft, config)
    mounts = [_mount(draft, cast("Message", one)) for one in config.get("mount", [])]
    place(draft, [one for one in mounts if one is not None], "nsjail", program=_program(draft, config))
    if not _flag(config, "mount_proc") and not any(one is not None and one.target == "/proc" for one in mounts):
        draft.looser("no /proc", "the sandbox's own is always there")
    _environment(draft, config)
    _limits(draft, config)
    _network(draft, config)
    _calls(draft, config)
    _rights(draft, config)
    for name in config:
        if name in _NOTHING:
            draft.maps(name, f"nothing to do: {_NOTHING[name]}")
        elif name in _LOST:
            draft.lost(name, "cannot be said")
    return draft.finish()


def _text(config: Message, name: str, otherwise: str = "") -> str:
    return cast("str", config.get(name, [otherwise])[0])


def _flag(config: Message, name: str, otherwise: bool = False) -> bool:
    return cast("bool", config.get(name, [otherwise])[0])


def _number(config: Message, name: str, otherwise: int = 0) -> int:
    return cast("int", config.get(name, [otherwise])[0])


def _command(draft: Draft, config: Message) -> None:
    draft.cwd = clean(_text(config, "cwd", "/"))
    mode = _text(config, "mode", "ONCE")
    if mode in ("LISTEN", "RERUN"):
        draft.lost(f"mode {mode}", "a run is of one command, once: call it from what listens or repeats")
    elif "mode" in config:
        draft.maps(f"mode {mode}", "one command, once")
    if _flag(config, "daemon"):
        draft.lost("daemon", "start the run with `detach`, or in a sandbox that lives")
    if "exec_bin" not in config:
        return
    program = cast("Message", config["exec_bin"][0])
    path, first = _text(program, "path"), _text(program, "arg0")
    words = cast("list[str]", program.get("arg", []))
    draft.argv = (path or first, *words) if path or first else ()
    if draft.argv and draft.host.kind(draft.host.real(draft.argv[0])) is None:
        draft.lost(f"exec_bin {draft.argv[0]}", "is not there on this host")
    else:
        draft.maps("exec_bin", "the command")
    if path and first and first != path:
        draft.lost(f"exec_bin.arg0 {first}", "a program is called by its own name")
    if _flag(program, "exec_fd"):
        draft.looser("exec_bin.exec_fd", "the program is executed by its path, and so is to be seen")


def _program(draft: Draft, config: Message) -> str | None:
    """What is executed, where that is by a descriptor: only then it need not be in what the config mounts."""
    program = cast("Message", config["exec_bin"][0]) if "exec_bin" in config else {}
    return draft.argv[0] if draft.argv and _flag(program, "exec_fd") and draft.argv[0].startswith("/") else None


def _mount(draft: Draft, one: Message) -> Mount | None:
    target, source = _prefixed(draft, one, "dst"), _prefixed(draft, one, "src")
    said = f"mount {_text(one, 'dst') or _text(one, 'prefix_dst_env')}"
    optional = not _flag(one, "mandatory", otherwise=True)
    if target is None or source is None:
        verdict = draft.stricter if optional else draft.lost
        verdict(said, "the variable that begins its path is not set")
        return None
    writable, noexec = _flag(one, "rw"), _flag(one, "noexec")
    place_ = clean(target)
    if "src_content" in one:
        return Mount(FILE, place_, said, content=cast("bytes", one["src_content"][0]))
    if _flag(one, "is_symlink"):
        return Mount(LINK, place_, said, source=source, optional=optional)
    if _text(one, "fstype") == "tmpfs":
        size, mode = _options(draft, said, _text(one, "options"))
        if not writable:
            draft.looser(said, "can be written to: memory of the sandbox's own, which ends with it")
        return Mount(TMPFS, place_, said, size=size, mode=mode, noexec=noexec)
    if _text(one, "fstype"):
        return Mount(KERNEL, place_, said, optional=optional)
    if not _flag(one, "is_bind"):
        draft.lost(said, "is neither a bind nor a file system with a name")
        return None
    return Mount(BIND, place_, said, source=clean(source), writable=writable, optional=optional, noexec=noexec)


def _prefixed(draft: Draft, one: Message, name: str) -> str | None:
    variable = _text(one, f"prefix_{name}_env")
    if not variable:
        return _text(one, name)
    value = draft.host.environment.get(variable)
    return None if value is None else value + _text(one, name)


def _options(draft: Draft, said: str, options: str) -> tuple[int | None, int | None]:
    size = mode = None
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        found = _SIZE.fullmatch(value)
        if name == "size" and found:
            size = int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()]
        elif name == "mode" and re.fullmatch(r"[0-7]{1,4}", value):
            mode = int(value, 8)
        else:
            draft.lost(f"{said} {shown(option)}", "cannot be said")
    return size, mode


def _environment(draft: Draft, config: Message) -> None:
    draft.passed = []
    for one in cast("list[str]", config.get("envar", [])):
        name, given, value = one.partition("=")
        if given:
            draft.variables[name] = value
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            draft.passed.append(name)
            if name in draft.host.environment:
                draft.env[name] = draft.host.environment[name]
        else:
            raise invalid(f"envar names {shown(name)}, which is no variable")
    if _flag(config, "keep_env"):
        draft.passed = ["*"]
        draft.stricter("keep_env", "a run names the variables that it passes on")
    elif draft.passed:
        draft.maps("envar", f"a run may pass on {', '.join(draft.passed)}, and nothing else")
    draft.looser("environment", "PATH, HOME, USER, LANG and TMPDIR are always set")


def _limits(draft: Draft, config: Message) -> None:
    limits = draft.limits = dict(ROOMY)
    seconds = min(_number(config, "time_limit", 600), _LONGEST)
    limits["wall"] = f"{seconds}s" if seconds else "none"
    draft.maps("time_limit", f"wall {limits['wall']}")
    if cpus := min(_number(config, "max_cpus"), _MOST_CPUS):
        limits["cpus"] = str(cpus)
        draft.maps("max_cpus", f"cpus {cpus}")
    _resources(draft, config, limits)
    if memory := min(_number(config, "cgroup_mem_max"), _LARGEST):
        given = limits["memory"]
        limits["memory"] = max(memory, _MIB) if isinstance(given, str) else min(max(memory, _MIB), cast("int", given))
        draft.maps("cgroup_mem_max", f"memory {limits['memory']}")
    if pids := min(_number(config, "cgroup_pids_max"), _MOST_TASKS):
        limits["pids"] = min(pids, cast("int", limits["pids"]))
        draft.maps("cgroup_pids_max", f"pids {limits['pids']}")
    if share := min(_number(config, "cgroup_cpu_ms_per_sec"), _MOST_CPUS * 1000):
        limits["cpus"] = f"{max(share, 10) / 1000:.3f}"
        draft.maps("cgroup_cpu_ms_per_sec", f"cpus {limits['cpus']}")
    if "cgroup_mem_swap_max" in config:
        verdict = draft.maps if _number(config, "cgroup_mem_swap_max") == 0 else draft.stricter
        verdict("cgroup_mem_swap_max", "no swap")


def _resources(draft: Draft, config: Message, limits: dict[str, object]) -> None:
    if _flag(config, "disable_rl"):
        draft.stricter("disable_rl", f"limits all the same: {', '.join(f'{name} {limits[name]}' for name in limits)}")
        return
    size = _resource(config, "as", 4096)
    if size is not None:
        size = min(max(size, 1), _LARGEST // _MIB)
        limits["memory"] = size * _MIB
        draft.stricter("rlimit_as", f"memory {size}M of the whole run, and not of each process")
    seconds = _resource(config, "cpu", 600)
    if seconds is not None:
        seconds = min(max(seconds, 1), _LONGEST)
        limits["cpu_time"] = f"{seconds}s"
        draft.stricter("rlimit_cpu", f"cpu_time {seconds}s of the whole run, and not of each process")
    files = _resource(config, "fsize", 1)
    if files is not None:
        room = max([files * _MIB, 64 * 1024, sum(cast("int", one.get("size", 0)) for one in draft.tmpfs.values())])
        limits["disk"] = room = min(room, _LARGEST)
        verdict = draft.stricter if files else draft.looser
        verdict("rlimit_fsize", f"disk {room} bytes: of a file, and of all private file systems together")
    descriptors = _resource(config, "nofile", 32)
    if descriptors is not None:
        limits["files"] = min(max(descriptors, 4), 1 << 20)
        draft.maps("rlimit_nofile", f"files {limits['files']}")
    tasks = _resource(config, "nproc", 1024, "SOFT")
    if tasks is not None:
        limits["pids"] = min(max(tasks, 1), _MOST_TASKS)
        draft.stricter("rlimit_nproc", f"pids {limits['pids']} of this run, and not of all of the user's")
    for name in _SYSTEM_LIMITS:
        if {f"rlimit_{name}", f"rlimit_{name}_type"} & config.keys() and _resource(config, name, 0, "SOFT") is not None:
            draft.lost(f"rlimit_{name}", "stays as the daemon's")


def _resource(config: Message, name: str, otherwise: int, kind: str = "VALUE") -> int | None:
    """The limit's value; None where it is infinite, or whatever nsjail was started with."""
    given = _text(config, f"rlimit_{name}_type", kind)
    return _number(config, f"rlimit_{name}", otherwise) if given == "VALUE" else None


def _network(draft: Draft, config: Message) -> None:
    if not _flag(config, "clone_newnet", otherwise=True):
        draft.lost("clone_newnet: false", "the host's network is not shared: none but a loopback of the sandbox's own")
    for name in _NETWORK:
        if name in config:
            draft.lost(name, "nothing is reached: there is a loopback of the sandbox's own")
    draft.network = "none" if _flag(config, "iface_no_lo") else "loopback"
    draft.maps("network", "no interface" if draft.network == "none" else "a loopback of the sandbox's own")


def _calls(draft: Draft, config: Message) -> None:
    source, text = "seccomp_string", "\n".join(cast("list[str]", config.get("seccomp_string", [])))
    if "seccomp_policy_file" in config:
        source = f"seccomp_policy_file {_text(config, 'seccomp_policy_file')}"
        read = draft.host.text(clean(_text(config, "seccomp_policy_file"), draft.host.cwd))
        if read is None:
            raise invalid(f"{source} cannot be read", "import it where it is, or give it as seccomp_string")
        text = f"{read}\n{text}" if text else read
    if not text.strip():
        draft.stricter("no seccomp policy", "the profile default: what is in none of its groups is refused")
        return
    calls = read_kafel(text)
    if calls.default:
        without(draft, source, calls.deny)
        draft.stricter(f"{source}: DEFAULT ALLOW", "of the rest, what the profile default allows")
    else:
        only(draft, source, calls.allow)
    other = sorted({answer for answer in calls.answers.values() if answer not in ("ERRNO(1)", "DENY")})
    if other:
        draft.lost(f"{source}: {', '.join(other)}", "a refused call fails with EPERM, and nobody is killed for it")
    if calls.partly:
        draft.stricter(source, f"refused whatever the arguments: {', '.join(sorted(calls.partly))}")


def _rights(draft: Draft, config: Message) -> None:
    if _flag(config, "keep_caps") or "cap" in config:
        draft.stricter("keep_caps, cap", "no capability is ever had")
    if _flag(config, "disable_no_new_privs"):
        draft.stricter("disable_no_new_privs", "no new privileges, ever")
    if _flag(config, "skip_setsid"):
        draft.stricter("skip_setsid", "a session of its own, ever")
    for name in ("uidmap", "gidmap"):
        inside = {_text(cast("Message", one), "inside_id") for one in config.get(name, [])}
        if inside - {"1000"}:
            draft.lost(f"{name} {', '.join(sorted(inside)) or 'own'}", "the payload is 1000 inside")
    for name in ("newuser", "newns", "newpid", "newipc", "newuts", "newcgroup"):
        if not _flag(config, f"clone_{name}", otherwise=True):
            draft.stricter(f"clone_{name}: false", "a namespace of its own all the same")
    for name in (one for one in config if one.startswith("persona_") and _flag(config, one)):
        draft.lost(name, "a program may set it itself where the walls let it: ADDR_NO_RANDOMIZE")
