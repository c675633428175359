"""bubblewrap's command lines."""

from __future__ import annotations

import errno
import struct

import pytest

from immured.adapters.bubblewrap import import_bubblewrap
from immured.adapters.bubblewrap_words import ARGUMENTS, Option, read_line, read_words
from immured.adapters.imported import Imported
from immured.adapters.show import manifest_text
from immured.errors import Refused
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile, host_architecture
from immured.isolation.syscalls import numbers
from immured.manifest.builtin import parse_map, parse_toml
from tests.adapters.told import Told, filesystem, verdicts

README = "--ro-bind /usr /usr --symlink usr/lib64 /lib64 --proc /proc --dev /dev --unshare-pid --new-session bash"


def closed(number: int) -> bytes:
    raise OSError(errno.EBADF, "Bad file descriptor")


def imported(line: str, told: Told | None = None, descriptors: dict[int, bytes] | None = None) -> Imported:
    found = import_bubblewrap(line.split(), told or Told(), (descriptors or {}).__getitem__ if descriptors else closed)
    parse_map(found.manifest)
    parse_toml(manifest_text(found, "bubblewrap", line))
    return found


def test_the_line_that_everybody_begins_with() -> None:
    found = imported(README)
    assert found.argv == ("bash",)
    assert filesystem(found) == {"root": "host"}
    assert verdicts(found)["network"] == "lost"
    assert verdicts(imported(README.replace("--unshare-pid", "--unshare-all")))["network"] == "maps"
    assert verdicts(imported(README.replace("--unshare-pid", "--unshare-all --share-net")))["network"] == "lost"


def test_the_whole_host_read_only_with_one_directory_written() -> None:
    line = "--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp"
    line += " --bind /home/ann/project /home/ann/project --unshare-all make"
    found = imported(line)
    assert filesystem(found) == {
        "root": "/", "write": ["/home/ann/project"], "tmpfs": [{"path": "/tmp", "mode": "0755"}],
    }  # fmt: skip
    assert found.cwd == "/home/ann/project"
    assert found.of("lost", "looser") == ()


def test_what_is_mounted_later_covers_what_was_before() -> None:
    told = Told(directories={"/home/ann/a", "/home/ann/b"})
    line = "--bind /home/ann/a /x/y --tmpfs /x --ro-bind /home/ann/b /x/z"
    line += " --size 8192 --perms 700 --tmpfs /w --remount-ro /w"
    found = filesystem(imported(line, told))
    assert found["read"] == [{"path": "/home/ann/b", "target": "/x/z"}]
    assert found["tmpfs"] == [{"path": "/x", "mode": "0755"}]
    assert "/w" in found["hide"]  # type: ignore[operator]
    assert "write" not in found


def test_a_root_that_is_bound_over_what_was_mounted() -> None:
    found = imported(
        "--tmpfs /a --bind /srv/root / --bind-try /home/ann/none /data sh", Told(directories={"/srv/root"})
    )
    assert filesystem(found)["root"] == "/srv/root"
    assert filesystem(found)["write"] == [{"path": "/home/ann/none", "target": "/data", "optional": True}]
    assert verdicts(found)["--bind /srv/root /"] == "stricter"
    assert verdicts(found)["--tmpfs /a"] == "maps"


def test_programs_from_elsewhere_stand_at_usr() -> None:
    found = filesystem(
        imported(
            "--ro-bind /home/ann/runtime /usr --ro-bind /home/ann/app /app", Told(directories={"/home/ann/runtime"})
        )
    )
    assert found["read"] == [
        {"path": "/home/ann/runtime", "target": "/usr"}, {"path": "/home/ann/app", "target": "/app"},
    ]  # fmt: skip
    assert "hide" not in found


def test_variables_are_the_lines_and_the_callers() -> None:
    found = imported("--setenv A 1 --setenv B 2 --unsetenv A sh")
    assert found.manifest["command"] == {"cwd": "/", "env": {"B": "2"}}
    found = imported("--setenv A 1 --clearenv --setenv B 2 --chdir /usr sh")
    assert found.manifest["command"] == {"cwd": "/usr", "env": {"B": "2"}, "pass_env": []}


def test_arguments_are_read_from_a_descriptor() -> None:
    given = {3: b"--ro-bind\0/usr\0/usr\0--setenv\0A\0b c\0", 4: b"--unshare-all\0"}
    found = imported("--args 3 --args 4 -- sh", descriptors=given)
    assert found.argv == ("sh",)
    assert found.manifest["command"] == {"cwd": "/", "env": {"A": "b c"}}
    assert filesystem(found) == {"root": "host"}
    for inner, said in (
        (b"--args\0005\0", "--args stands in what --args reads"),
        (b"sh\0", "what --args reads holds a command"),
    ):
        with pytest.raises(Refused) as refused:
            imported("--args 3 sh", descriptors={3: inner})
        assert refused.value.message == said


def test_files_come_from_descriptors() -> None:
    line = "--tmpfs /home --file 11 /etc/passwd --bind-data 12 /home/note --ro-bind-data 13 /opt/x --dir /run/user/1"
    found = imported(line, descriptors={11: b"p", 12: b"n", 13: b"x"})
    assert found.files == {"/home/note": b"n"}
    said = verdicts(found)
    assert (said["file /etc/passwd"], said["file /home/note"], said["file /opt/x"]) == ("stricter", "maps", "lost")
    with pytest.raises(Refused, match="descriptor 11 cannot be read"):
        imported("--file 11 /etc/passwd")


def test_a_compiled_filter_is_asked_what_it_allows() -> None:
    program = compile_profile("default", (), ("ptrace", "getcwd", "mkdir"))
    found = imported(f"{README} ".replace("bash", "--seccomp 9 bash"), descriptors={9: program})
    calls = found.manifest["syscalls"]
    assert isinstance(calls, dict)
    assert {"getcwd", "mkdir"} <= set(calls["deny"])
    assert "read" not in calls["deny"]
    assert verdicts(found)["--seccomp"] in ("maps", "lost")


def test_a_filter_that_allows_a_list_allows_what_no_profile_does() -> None:
    program = compile_profile("default", ("ptrace",))
    calls = imported("--seccomp 9 --ro-bind / / sh", descriptors={9: program}).manifest["syscalls"]
    assert isinstance(calls, dict)
    assert calls["allow"] == ["ptrace"]


def test_a_filter_that_denies_one_call_denies_one_call() -> None:
    architecture = host_architecture()
    load, equal, answer = 0x20, 0x15, 0x06
    lines = [
        (load, 0, 0, 4), (equal, 1, 0, AUDIT_ARCH[architecture]), (answer, 0, 0, 0x80000000), (load, 0, 0, 0),
        (equal, 0, 1, numbers(architecture)["getcwd"]), (answer, 0, 0, 0x50000 | errno.EPERM),
        (answer, 0, 0, 0x7FFF0000),
    ]  # fmt: skip
    program = b"".join(struct.pack("=HBBI", *line) for line in lines)
    found = imported("--seccomp 9 --ro-bind / / sh", descriptors={9: program})
    calls = found.manifest["syscalls"]
    assert isinstance(calls, dict)
    assert calls == {"profile": "default", "deny": ["getcwd"]}
    with pytest.raises(Refused, match="none that the kernel takes"):
        imported("--seccomp 9 sh", descriptors={9: b"rubbish"})


def test_every_option_of_bubblewraps_has_a_finding_or_a_place() -> None:
    """Options that only change the next one, or the command, aside."""
    values = {"--args": None, "--perms": None, "--size": None, "--setenv": None, "--chdir": None, "--share-net": None}
    for name, count in ARGUMENTS.items():
        if name in values:
            continue
        words = ["1000"] * count if name in ("--uid", "--gid") else ["/home/ann"] * count
        if name in ("--file", "--bind-data", "--ro-bind-data", "--seccomp", "--add-seccomp-fd"):
            words = ["9", "/tmp/x"][:count]
        program = compile_profile("default")
        found = import_bubblewrap([name, *words, "sh"], Told(), lambda _: program)  # noqa: B023
        said = " ".join(one.source for one in found.findings)
        assert name in said or "/tmp/x" in said, name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--ro-bnd / / sh", "bubblewrap has no option '--ro-bnd'"),
        ("--ro-bind /usr", "--ro-bind takes 2 words"),
        ("--args x sh", "'x' is no descriptor"),
        ("--perms 9 --tmpfs /a", "--perms takes a number, not '9'"),
        ("--size -1 --tmpfs /a", "--size takes a number, not '-1'"),
        ("--setenv A=B c sh", "--setenv names 'A=B', which is no variable"),
    ],
)
def test_a_line_that_is_none_is_refused(line: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        imported(line)
    assert refused.value.message == said


def test_words_of_a_file() -> None:
    text = "# mine; $HOME\nexec /usr/bin/bwrap --ro-bind /usr /usr \\\n  --setenv PS1 'a b$' \\\n"
    text += "  bash -c 'ls; id | wc' # all\n"
    assert read_line(text) == ["--ro-bind", "/usr", "/usr", "--setenv", "PS1", "a b$", "bash", "-c", "ls; id | wc"]
    assert read_line("--dir\0/a b\0") == ["--dir", "/a b"]


@pytest.mark.parametrize(
    "line",
    [
        "bwrap --dir /run/user/$(id -u) sh", 'bwrap --dir "$HOME" sh', "bwrap --dir `pwd` sh", "bwrap sh; rm x",
        "bwrap --file 11 /x sh 11< <(date)", "bwrap sh | cat", "bwrap sh && id", "bwrap 'open", "bwrap sh > out",
    ],
)  # fmt: skip
def test_what_a_shell_would_fill_in_is_refused(line: str) -> None:
    with pytest.raises(Refused) as refused:
        read_line(line)
    assert refused.value.code == "adapter_invalid"


def test_the_command_begins_where_no_option_stands() -> None:
    assert read_words(["--clearenv", "sh", "--help"], closed) == ([Option("--clearenv", ())], ("sh", "--help"))
    assert read_words(["--", "--odd"], closed) == ([], ("--odd",))
