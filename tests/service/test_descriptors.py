"""What an open file is, asked of nobody but the kernel."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.host.statx import LOCAL, file_system_of, mode_of
from immured.service.descriptors import kind_of_descriptor


def looked_at(fd: int, look: Callable[[int], object]) -> object:
    try:
        return look(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["/", "/dev/null", "/etc/passwd"])
def test_the_type_is_the_one_that_stat_gives(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    assert looked_at(fd, mode_of) == stat.S_IFMT(os.stat(path).st_mode)


def test_a_pipe_is_a_pipe() -> None:
    read, write = os.pipe()
    os.close(write)
    assert looked_at(read, mode_of) == stat.S_IFIFO


def test_a_file_of_ours_is_on_a_local_disk(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert looked_at(fd, file_system_of) in LOCAL


def test_a_memory_file_may_be_passed() -> None:
    assert looked_at(os.memfd_create("x"), kind_of_descriptor) is None


def test_a_file_of_proc_may_not() -> None:
    assert (
        looked_at(os.open("/proc/self/mem", os.O_RDONLY), kind_of_descriptor)
        == "a file of proc, which is no local disk"
    )


def test_a_name_makes_no_memory_file(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "memfd:x", os.O_RDWR | os.O_CREAT)
    assert looked_at(fd, file_system_of) == looked_at(os.open(tmp_path, os.O_RDONLY), file_system_of)
