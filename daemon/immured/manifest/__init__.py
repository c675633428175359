"""What a sandbox may do: one strict schema for a TOML file and for a map on the wire. docs/manifest.md specifies it.

This file only names the package's parts; it imports nothing, so that a client can read units without the rest.
"""
