"""Sandboxes held ready, each taken once."""
