"""The fields of nsjail's config, as its config.proto (NsJailConfig) names them, and its two forms read. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final

from immured.adapters.imported import invalid
from immured.adapters.strict_json import MAX_TEXT, read_json
from immured.adapters.text_format import Field, Message, read_text
from immured.wire.strict import shown, take

__all__ = ["CONFIG", "read_config"]


def _fields(**kinds: str | Field) -> dict[str, Field]:
    """`name="string"`, `name="string*"` for a repeated one."""
    found = {}
    for name, kind in kinds.items():
        found[name] = kind if isinstance(kind, Field) else Field(kind.rstrip("*"), repeated=kind.endswith("*"))
    return found


def _message(fields: Mapping[str, Field], *, repeated: bool = False) -> Field:
    return Field("message", repeated=repeated, fields=fields)


def _enum(*values: str) -> Field:
    return Field("enum", values=values)


_ID_MAP: Final = _fields(inside_id="string", outside_id="string", count="uint32", use_newidmap="bool")
_MOUNT: Final = _fields(
    src="string", prefix_src_env="string", src_content="bytes", dst="string", prefix_dst_env="string", fstype="string",
    options="string", is_bind="bool", rw="bool", is_dir="bool", mandatory="bool", is_symlink="bool", nosuid="bool",
    nodev="bool", noexec="bool",
)  # fmt: skip
_EXE: Final = _fields(path="string", arg="string*", arg0="string", exec_fd="bool")
_TRAFFIC: Final = _fields(
    src_ip="string", dst_ip="string", iif="string", oif="string", sport="uint32", dport="uint32", sport_end="uint32",
    dport_end="uint32", proto=_enum("UNKNOWN_PROTO", "TCP", "UDP", "ICMP", "ICMPV6"),
    action=_enum("UNKNOWN_ACTION", "DROP", "REJECT", "ALLOW"), ip_family=_enum("IPV4", "IPV6"),
)  # fmt: skip
_PASTA: Final = _fields(
    nat="bool", enable_tcp="bool", enable_udp="bool", enable_icmp="bool", ip4_enabled="bool", mask4="string",
    enable_ip4_dhcp="bool", ip6_enabled="bool", mask6="string", enable_ip6_dhcp="bool", enable_ip6_ra="bool",
    enable_dns="bool", dns_forward="string", map_gw="bool", tcp_map_in="string", udp_map_in="string",
    tcp_map_out="string", udp_map_out="string",
)  # fmt: skip
_RULE: Final = _fields(
    direction=_enum("GUEST_TO_HOST", "HOST_TO_GUEST"),
    action=_enum("DROP", "REJECT", "ALLOW", "REDIRECT", "ENCAP_SOCKS5", "ENCAP_CONNECT"),
    proto=_enum("ANY", "TCP", "UDP", "ICMP"), src_ip="string", sport="uint32", sport_end="uint32", dst_ip="string",
    dport="uint32", dport_end="uint32", redirect_ip="string", redirect_port="uint32",
)  # fmt: skip
_USER_NET: Final = _fields(
    backend=_enum("NSTUN", "PASTA"), pasta=_message(_PASTA), rule4=_message(_RULE, repeated=True),
    rule6=_message(_RULE, repeated=True), ip4="string", gw4="string", ip6="string", gw6="string", ns_iface="string",
    # Of the older form, without a backend (before 2026).
    enable="bool", ip="string", mask="string", gw="string", ip6_enable="bool", nat="bool", tcp_ports="string",
    udp_ports="string", tcp_map_in="string", udp_map_in="string", tcp_map_out="string", udp_map_out="string",
    enable_ip4_dhcp="bool", enable_dns="bool", mask4="string", mask6="string",
)  # fmt: skip
_LIMIT: Final = _enum("VALUE", "SOFT", "HARD", "INF")
_LIMITS: Final = ("as", "core", "cpu", "fsize", "nofile", "nproc", "stack", "memlock", "rtprio", "msgqueue")

CONFIG: Final = {
    **_fields(
        name="string", description="string*", mode=_enum("LISTEN", "ONCE", "RERUN", "EXECVE"), hostname="string",
        cwd="string", no_pivotroot="bool", port="uint32", bindhost="string", max_conns="uint32",
        max_conns_per_ip="uint32", time_limit="uint32", daemon="bool", max_cpus="uint32", nice_level="int32",
        log_fd="int32", log_file="string", log_level=_enum("DEBUG", "INFO", "WARNING", "ERROR", "FATAL"),
        keep_env="bool", envar="string*", keep_caps="bool", cap="string*", silent="bool", skip_setsid="bool",
        stderr_to_null="bool", disable_no_new_privs="bool", forward_signals="bool",
        disable_tsc="bool", oom_score_adj="int32", disable_rl="bool", persona_addr_compat_layout="bool",
        persona_mmap_page_zero="bool", persona_read_implies_exec="bool", persona_addr_limit_3gb="bool",
        persona_addr_no_randomize="bool", clone_newnet="bool", clone_newuser="bool", clone_newns="bool",
        clone_newpid="bool", clone_newipc="bool", clone_newuts="bool", clone_newcgroup="bool", clone_newtime="bool",
        uidmap=_message(_ID_MAP, repeated=True), gidmap=_message(_ID_MAP, repeated=True), mount_proc="bool",
        mount=_message(_MOUNT, repeated=True), seccomp_policy_file="string", seccomp_string="string*",
        seccomp_log="bool", seccomp_unotify="bool", seccomp_unotify_report="string", use_core_scheduling="bool",
        cgroup_mem_max="uint64", cgroup_mem_memsw_max="uint64", cgroup_mem_swap_max="int64", cgroup_mem_mount="string",
        cgroup_mem_parent="string", cgroup_pids_max="uint64", cgroup_pids_mount="string", cgroup_pids_parent="string",
        cgroup_net_cls_classid="uint32", cgroup_net_cls_mount="string", cgroup_net_cls_parent="string",
        cgroup_cpu_ms_per_sec="uint32", cgroup_cpu_mount="string", cgroup_cpu_parent="string", cgroupv2_mount="string",
        use_cgroupv2="bool", detect_cgroupv2="bool", iface_no_lo="bool", iface_own="string*", macvlan_iface="string",
        macvlan_vs_ip="string", macvlan_vs_nm="string", macvlan_vs_gw="string", macvlan_vs_ma="string",
        macvlan_vs_mo="string", traffic_rule=_message(_TRAFFIC, repeated=True), user_net=_message(_USER_NET),
        exec_bin=_message(_EXE),
    ),
    "pass_fd": Field("int32", repeated=True),
    **{f"rlimit_{name}": Field("uint64") for name in _LIMITS},
    **{f"rlimit_{name}_type": _LIMIT for name in _LIMITS},
}  # fmt: skip
"""Of NsJailConfig. What older releases called differently stands beside what it is called now."""

_CAMEL: Final = re.compile(r"_([a-z0-9])", re.ASCII)


def read_config(text: str) -> Message:
    """A config in protobuf's text form, or in its JSON form. Raises Refused `adapter_invalid`."""
    if len(text) > MAX_TEXT:
        raise invalid(f"the config has {len(text)} characters; at most {MAX_TEXT}", "make it smaller")
    if not text.strip():
        raise invalid("the config is empty")
    if text.lstrip().startswith("{"):
        return _from_json(read_json(text, "the config"), CONFIG, "config")
    return read_text(text, CONFIG)


def _from_json(value: object, fields: Mapping[str, Field], where: str) -> Message:
    names = {_CAMEL.sub(lambda found: found[1].upper(), name): name for name in fields} | {
        name: name for name in fields
    }
    given = take(value, where, names, code="adapter_invalid", unknown="adapter_invalid")
    message: Message = {}
    for name, inner in given.values.items():
        field = fields[names[name]]
        if field.repeated and not isinstance(inner, list):
            raise given.wrong(name, "is no list")
        values = inner if field.repeated and isinstance(inner, list) else [inner]
        message[names[name]] = [_json_value(one, field, f"{where}.{name}") for one in values]
    return message


def _json_value(value: object, field: Field, where: str) -> object:
    if field.fields is not None:
        return _from_json(value, field.fields, where)
    if field.kind == "bytes" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise invalid(f"{where} is {shown(value)}, which is no base64") from None
    if field.kind == "string" and isinstance(value, str):
        return value
    if field.kind == "bool" and isinstance(value, bool):
        return value
    if field.values and isinstance(value, str) and value in field.values:
        return value
    if field.kind in ("uint32", "uint64", "int32", "int64"):
        text = value if isinstance(value, str) else str(value) if type(value) is int else ""
        if re.fullmatch(r"-?[0-9]{1,20}", text, re.ASCII) and (field.kind[0] == "i" or int(text) >= 0):
            return int(text)
    raise invalid(f"{where} is {shown(str(value))}, which is no {field.kind}")
