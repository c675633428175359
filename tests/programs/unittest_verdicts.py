"""Runs a module of unittest tests and writes each one's verdict as JSON: MODULE FILE [NAME...].

Runs *inside* a sandbox, and outside for comparison, under the host's own python3: standard library only. It stands in
for `python -m test --junit-xml`, which loses its results when a test's threads fail as well.
"""
# ruff: noqa: N802, N815 (unittest names the methods)

from __future__ import annotations

import importlib
import json
import sys
import unittest
from collections.abc import Iterator
from typing import Any


class Verdicts(unittest.TestResult):
    """Name to `passed`, `failed` or `skipped`; what failed in any part has failed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def _note(self, test: Any, verdict: str) -> None:
        if self.found.get(test.id()) != "failed":
            self.found[test.id()] = verdict

    def addSuccess(self, test: Any) -> None:
        self._note(test, "passed")

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self._note(test, "passed")

    def addSkip(self, test: Any, reason: str) -> None:
        self._note(test, "skipped")

    def addError(self, test: Any, err: Any) -> None:
        self._note(test, "failed")
        super().addError(test, err)
        print(test.id(), self.errors[-1][1], sep="\n", file=sys.stderr)

    addFailure = addError

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._note(test, "failed")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)


def chosen(suite: unittest.TestSuite, names: tuple[str, ...]) -> Iterator[unittest.TestCase]:
    """The tests of `suite` with these names; all of them where there are none."""
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from chosen(one, names)
        elif not names or one.id() in names:
            yield one


def main(module: str, file: str, *names: str) -> None:
    """The command line."""
    support: Any = importlib.import_module("test.support")
    support.use_resources = []  # no network, no gigabytes
    tests = unittest.defaultTestLoader.loadTestsFromName(f"test.{module}")
    found = Verdicts()
    unittest.TestSuite(chosen(tests, names)).run(found)
    with open(file, "w") as out:
        json.dump(found.found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
