"""Whose key it is, what it may do, and whether its nonce is new. Sans-I/O, the clock passed in."""
