"""The suite's rules: what needs a full cgroup v2 runs where there is one, and in CI nothing is skipped."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the host is. The rest is as hypothesis has it, here and in CI.
settings.register_profile(
    "any-host",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any-host")

CONTROLLERS = frozenset({"cpu", "io", "memory", "pids"})
HERE = Path(__file__).parent
# Folders in which every test starts a daemon, a launcher or a warden.
ROOTS = frozenset(
    {"escape", "hostile", "launcher", "learn", "programs", "shield", "takeover", "traversal", "walls", "warden"}
)
IN_CI = os.environ.get("CI") == "true"
THROWAWAY = os.environ.get("THROWAWAY_HOST") == "1"
MANY_INODES = 8_000


def cgroup2_missing() -> str:
    """What the host's cgroup v2 hierarchy at /sys/fs/cgroup lacks, in words; empty when it is whole."""
    listing = Path("/sys/fs/cgroup/cgroup.controllers")
    if not listing.exists():
        return "/sys/fs/cgroup is not a cgroup v2 hierarchy"
    missing = CONTROLLERS - set(listing.read_text().split())
    return f"cgroup v2 lacks the controllers {', '.join(sorted(missing))}" if missing else ""


def forget_files() -> None:
    """On a throw-away host, which may be User-Mode Linux: lets go of the files that its cache holds, if they are many.

    That kernel keeps each file of its host's open for as long as it is cached, and once it has as many as `ulimit -n`
    said there, no file of the host's opens and no program starts: EMFILE, ENOMEM, and the sooner the more memory it has
    to spare.
    """
    inodes = int(Path("/proc/sys/fs/inode-nr").read_text().split()[0])
    if inodes > MANY_INODES:
        Path("/proc/sys/vm/drop_caches").write_text("3")


def pytest_runtest_logfinish() -> None:
    if THROWAWAY:
        forget_files()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vm-follows",
        action="store_true",
        help="what needs a full cgroup v2 is left to the virtual machine, which runs next",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = cgroup2_missing()
    follows = bool(config.getoption("--vm-follows"))
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        if item.path.relative_to(HERE).parts[0] in ROOTS:
            item.add_marker(pytest.mark.needs_root)
        if missing and item.get_closest_marker("needs_cgroup2"):
            if follows:
                left.append(item)
                continue
            item.add_marker(pytest.mark.skip(reason=f"{missing}; remedy: boot with systemd.unified_cgroup_hierarchy=1"))
        if not THROWAWAY and item.get_closest_marker("needs_throwaway_host"):
            if follows:
                left.append(item)
                continue
            item.add_marker(
                pytest.mark.skip(reason="installs into this host; remedy: a virtual machine, with THROWAWAY_HOST=1")
            )
        if os.geteuid() != 0 and item.get_closest_marker("needs_root"):
            item.add_marker(pytest.mark.skip(reason="needs uid 0; remedy: run make test as root"))
        kept.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a skipped test is a failed one: a green run means that everything ran."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped in CI, where nothing may be: {why}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
