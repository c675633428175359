"""A daemon for each test, which dies and comes back."""

from tests.daemon import mortal

__all__ = ["mortal"]
