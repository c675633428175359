"""From what a learning run asked for to a manifest that allows it, and no more (docs/learning.md)."""
