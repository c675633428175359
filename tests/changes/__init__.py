"""Captured directories and change sets, against a live daemon."""
