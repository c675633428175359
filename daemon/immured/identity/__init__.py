"""Whose key it is, what it may do, and whether its nonce is new. Sans-I/O: values in, values out, the clock passed in."""
