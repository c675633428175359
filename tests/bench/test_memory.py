"""Memory's arithmetic, and that it sees real memory."""

from __future__ import annotations

import subprocess
import sys

from bench import memory

MEMINFO = """\
MemTotal:       24684564 kB
SUnreclaim:        40000 kB
KernelStack:        3000 kB
PageTables:         2000 kB
Percpu:             1000 kB
HugePages_Total:       0
"""


def test_lines_without_a_unit_are_no_memory() -> None:
    assert "HugePages_Total" not in memory.parse_kib(MEMINFO)
    assert memory.parse_kib(MEMINFO)["MemTotal"] == 24684564


def test_this_kernel_counts_what_pss_does_not_show() -> None:
    meminfo = memory.read_meminfo()
    assert all(meminfo[name] > 0 for name in memory.KERNEL)


def test_drift_of_the_machine_is_nobodys() -> None:
    # 100 more for everybody by the middle, 200 by the end; and 50 sandboxes of 10 each in the middle.
    assert memory.per_unit([1000, 1000], [1600], [1200], units=50) == 10


def test_a_process_and_its_children_are_counted() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        while len(pids := memory.tree(parent.pid)) < 2:
            pass
        both = memory.of_processes(pids)
        alone = memory.of_processes([parent.pid])
        assert parent.stdin is not None
        parent.stdin.close()
    assert both["processes"] == 2
    assert both["Rss"] > alone["Rss"] >= alone["Pss"] > 0


def test_a_process_that_is_gone_counts_nothing() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    assert memory.of_processes([gone.pid]) == {"Rss": 0, "Pss": 0, "processes": 0}
