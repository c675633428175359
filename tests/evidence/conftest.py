"""One real daemon for the folder."""

from __future__ import annotations

from tests.daemon import client, daemon, mortal

__all__ = ["client", "daemon", "mortal"]
