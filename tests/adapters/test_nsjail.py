"""nsjail's configs, in both of their forms."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from immured.adapters.imported import Imported
from immured.adapters.nsjail import import_nsjail
from immured.adapters.nsjail_fields import read_config
from immured.adapters.show import manifest_text
from immured.cli.surroundings import Here
from immured.errors import Refused
from immured.manifest.builtin import parse_map, parse_toml
from tests.adapters.told import Told, filesystem, verdicts

CONFIGS = Path(__file__).parent / "nsjail"
THEIRS = os.environ.get("NSJAIL_CONFIGS", "")
USR = 'mount { src: "/usr" dst: "/usr" is_bind: true }\n'


def imported(text: str, told: Told | None = None) -> Imported:
    found = import_nsjail(text, told or Told())
    parse_map(found.manifest)
    parse_toml(manifest_text(found, "nsjail", "x"))
    return found


def limits(text: str) -> dict[str, object]:
    found = imported(text).manifest["limits"]
    assert isinstance(found, dict)
    return found


def test_nothing_at_all_is_nsjails_defaults() -> None:
    found = imported('name: "empty"')
    assert found.manifest["limits"] == {
        "memory": 4096 << 20, "pids": 4096, "files": 32, "wall": "600s", "disk": 1 << 20, "cpu_time": "600s",
    }  # fmt: skip
    assert found.manifest["command"] == {"cwd": "/", "pass_env": []}
    assert filesystem(found) == {"root": "host", "hide": ["/usr/bin", "/usr/lib", "/usr/local", "/usr/share"]}
    assert verdicts(found)["no /proc"] == "looser"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("time_limit: 0", "wall", "none"),
        ("time_limit: 5", "wall", "5s"),
        ("rlimit_as_type: INF", "memory", "8G"),
        ("rlimit_as: 64", "memory", 64 << 20),
        ("cgroup_mem_max: 1048576", "memory", 1 << 20),
        ("rlimit_as: 1 cgroup_mem_max: 999999999", "memory", 1 << 20),
        ("cgroup_pids_max: 10", "pids", 10),
        ("rlimit_nproc: 7 rlimit_nproc_type: VALUE", "pids", 7),
        ("rlimit_nproc: 7", "pids", 4096),
        ("max_cpus: 2", "cpus", "2"),
        ("cgroup_cpu_ms_per_sec: 1500", "cpus", "1.500"),
        ("rlimit_nofile: 1", "files", 4),
        ("rlimit_fsize: 0", "disk", 65536),
        ("rlimit_cpu_type: HARD", "cpu_time", None),
        ("rlimit_cpu: 18446744073709551615", "cpu_time", "31622400s"),
        ("time_limit: 4294967295", "wall", "31622400s"),
        ("rlimit_as: 18446744073709551615", "memory", 1 << 50),
        ("rlimit_fsize: 18446744073709551615", "disk", 1 << 50),
        ("max_cpus: 4294967295", "cpus", "4096"),
        ("disable_rl: true", "files", 65536),
    ],
)
def test_a_limit_is_the_nearest_that_is_not_wider(text: str, name: str, value: object) -> None:
    assert limits(text).get(name) == value


def test_what_of_the_hosts_programs_is_not_mounted_is_empty() -> None:
    found = imported(
        'mount { src: "/usr/lib" dst: "/usr/lib" is_bind: true } mount { src: "/bin" dst: "/bin" is_bind: true }'
    )
    assert filesystem(found)["hide"] == ["/usr/local", "/usr/share"]
    assert filesystem(imported(USR)) == {"root": "host"}


def test_a_program_that_is_executed_by_descriptor_is_to_be_seen() -> None:
    told = Told(files={"/usr/bin/tool": "", "/srv/tool": ""})
    found = imported('exec_bin { path: "/usr/bin/tool" exec_fd: true }', told)
    assert "/usr/bin" not in filesystem(found)["hide"]  # type: ignore[operator]
    assert verdicts(found)["/usr/bin"] == "looser"
    found = imported('exec_bin { path: "/srv/tool" exec_fd: true }', told)
    assert filesystem(found)["read"] == ["/srv/tool"]
    assert "/usr/bin" in filesystem(found)["hide"]  # type: ignore[operator]


def test_a_program_that_is_not_there_is_said() -> None:
    assert verdicts(imported('exec_bin { path: "/usr/bin/none" }'))["exec_bin /usr/bin/none"] == "lost"


def test_mounts_in_the_order_in_which_they_cover_each_other() -> None:
    text = """
        mount { src: "/home/ann/a" dst: "/data/a" is_bind: true }
        mount { dst: "/data" fstype: "tmpfs" rw: true options: "size=2m,mode=0755,nr_inodes=10" }
        mount { src: "/home/ann/b" dst: "/data/b" is_bind: true rw: true noexec: true }
        mount { src: "/srv" dst: "/data/c" is_bind: true rw: true }
    """
    found = imported(text, Told(directories={"/home/ann/a", "/home/ann/b"}))
    assert filesystem(found)["tmpfs"] == [{"path": "/data", "size": 2 << 20, "mode": "0755"}]
    assert filesystem(found)["write"] == [{"path": "/home/ann/b", "target": "/data/b", "noexec": True}]
    assert filesystem(found)["read"] == [{"path": "/srv", "target": "/data/c"}]
    said = verdicts(found)
    assert said["mount /data/c"] == "lost"
    assert said["mount /data 'nr_inodes=10'"] == "lost"


def test_files_go_where_a_run_may_put_them() -> None:
    text = """
        mount { dst: "/user" fstype: "tmpfs" rw: true }
        mount { src_content: "a" dst: "/user/a" }
        mount { src_content: "b" dst: "/etc/resolv.conf" }
        mount { src_content: "c" dst: "/elsewhere" }
    """
    found = imported(text)
    assert found.files == {"/user/a": b"a"}
    said = verdicts(found)
    assert (said["file /user/a"], said["file /etc/resolv.conf"], said["file /elsewhere"]) == (
        "maps",
        "stricter",
        "lost",
    )


def test_paths_begin_with_variables() -> None:
    text = """
        mount { prefix_src_env: "HOME" src: "/x" dst: "/x" is_bind: true }
        mount { prefix_src_env: "NONE" src: "/y" dst: "/y" is_bind: true mandatory: false }
        mount { prefix_src_env: "NONE" src: "/z" dst: "/z" is_bind: true }
        envar: "HOME"
        envar: "NONE"
        envar: "A=b=c"
    """
    found = imported(text, Told(directories={"/home/ann/x"}))
    assert filesystem(found)["read"] == [{"path": "/home/ann/x", "target": "/x"}]
    said = verdicts(found)
    assert (said["mount /y"], said["mount /z"]) == ("stricter", "lost")
    assert found.manifest["command"] == {"cwd": "/", "env": {"A": "b=c"}, "pass_env": ["HOME", "NONE"]}
    assert found.env == {"HOME": "/home/ann"}


def test_a_root_of_ones_own() -> None:
    found = imported('mount { src: "/srv/root" dst: "/" is_bind: true } mount { dst: "/tmp" fstype: "tmpfs" rw: true }')
    assert filesystem(found) == {"root": "/srv/root", "tmpfs": ["/tmp"]}


def test_calls_that_are_denied_and_calls_that_are_all() -> None:
    found = imported('seccomp_string: "KILL { ptrace, open_by_handle_at, getcwd, exit_group, no_such } DEFAULT ALLOW"')
    assert found.manifest["syscalls"] == {"profile": "default", "deny": ["getcwd"]}
    said = verdicts(found)
    assert said["seccomp_string exit_group"] == "looser"
    assert said["seccomp_string no_such"] == "lost"
    found = imported('seccomp_string: "ALLOW { read, write, ptrace, mount, inotify_add_watch } DEFAULT KILL"')
    calls = found.manifest["syscalls"]
    assert isinstance(calls, dict)
    assert calls["allow"] == ["inotify_add_watch", "ptrace"]
    assert "openat" in calls["deny"]
    assert "read" not in calls["deny"]


def test_a_policy_file_is_read_where_it_is() -> None:
    told = Told(files={"/home/ann/project/p.kafel": "DENY { getcwd } DEFAULT ALLOW"})
    found = imported('seccomp_policy_file: "p.kafel"', told)
    assert found.manifest["syscalls"] == {"profile": "default", "deny": ["getcwd"]}
    with pytest.raises(Refused, match="cannot be read"):
        import_nsjail('seccomp_policy_file: "gone"', told)


def test_a_network_is_lost_in_every_form() -> None:
    for text in ("user_net { }", "clone_newnet: false", 'macvlan_iface: "eth0"', 'iface_own: "eth1"'):
        found = imported(text)
        assert any(one.verdict == "lost" and "loopback" in one.words for one in found.findings), text
        assert found.manifest["network"] == {"mode": "loopback"}
    assert imported("iface_no_lo: true").manifest["network"] == {"mode": "none"}


def test_every_field_that_is_named_is_accounted_for() -> None:
    """What is asked for by name has a finding by that name, or is in a limit's, a mount's, the command's."""
    found = imported((CONFIGS / "shell.cfg").read_text(), Told(files={"/usr/bin/bash": ""}))
    said = " ".join(one.source for one in found.findings)
    names = "mode hostname time_limit max_cpus envar cap skip_setsid pass_fd rlimit_as rlimit_cpu rlimit_fsize"
    names += " rlimit_nofile user_net uidmap gidmap /lib64 /tmp /proc /dev/null /etc/resolv.conf /NOTE /dev/fd"
    for name in f"{names} seccomp_string exec_bin description".split():
        assert name in said, name


def test_the_json_form_is_the_same_config() -> None:
    text = """name: "j" timeLimit: 1""".replace("timeLimit", "time_limit")
    text += (
        ' mount { src_content: "a\\n" dst: "/tmp/a" } rlimit_as: 128 exec_bin { path: "/bin/sh" arg: "-c" arg: "true" }'
    )
    form = {
        "name": "j", "timeLimit": 1, "rlimitAs": "128",
        "mount": [{"srcContent": base64.b64encode(b"a\n").decode(), "dst": "/tmp/a"}],
        "execBin": {"path": "/bin/sh", "arg": ["-c", "true"]},
    }  # fmt: skip
    assert read_config(json.dumps(form)) == read_config(text)
    assert imported(json.dumps(form)).manifest == imported(text).manifest


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"mode": "TWICE"}', '{"timeLimit": -1}', '{"mount": {}}', '{"mount": [{"srcContent": "%"}]}',
     '{"nmae": "x"}', "time_limt: 3", 'envar: "=x" envar: "a b"', 'seccomp_string: "{"',
     "mode: ONCE mode: ONCE", 'cwd: "a\\000b"'],
)  # fmt: skip
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        import_nsjail(text, Told())
    assert refused.value.code == "adapter_invalid"


if THEIRS:

    @pytest.mark.parametrize("path", sorted(Path(THEIRS).iterdir()), ids=lambda path: path.name)
    def test_nsjails_own_configs_are_imported(path: Path) -> None:
        found = import_nsjail(path.read_text(), Here(environment={"HOME": "/home/ann", "XAUTHORITY": "/x"}))
        parse_map(found.manifest)
        parse_toml(manifest_text(found, "nsjail", path.name))
