"""Templates: sandboxes held ready, each with an interpreter of its own that has imported what it will need and waits.

read     DIR/templates/NAME.toml, the operator's
making   one of them, from nothing to waiting
pool     so many of each held ready; taken once
waiting  the program that waits, inside
"""
