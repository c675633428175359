"""The native core: plans packed in C, constants from headers."""
