"""sqlite3, loaded when something of it is first asked for: few are ever asked what takes an index, and a daemon that is
not would hold a megabyte of it for as long as it lives."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    import sqlite3

    value: object = getattr(sqlite3, name)
    globals()[name] = value
    return value
