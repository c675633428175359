"""One real daemon for the folder."""

from __future__ import annotations

from tests.daemon import client, daemon

__all__ = ["client", "daemon"]
