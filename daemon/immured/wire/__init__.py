"""From bytes on a socket to verified, typed messages, and back. Sans-I/O; it knows nothing of sandboxes.

    frames          4-byte length and body; descriptors ride with a frame's first byte
    sockets         the thin I/O around `frames`: recvmsg and sendmsg with descriptors
    strict_msgpack  msgpack without its traps
    strict          maps with a fixed set of names
    keys            Ed25519, strict
    envelope        DSSE signatures over exact bytes
    messages        hello, command, reply, data

docs/protocol.md is the same in prose, and tests/vectors/wire/ in bytes.
"""
