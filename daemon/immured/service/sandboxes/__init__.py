"""Sandboxes that live: what the broker knows of each, and what it does with them."""
