"""What another sandbox offers: a server, shared memory, a queue, files. Lives until its input ends."""

import ctypes
import json
import os
import socket
import sys

NAME = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
server = socket.create_server(("127.0.0.1", 0))
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0" + NAME)
abstract.listen()
key = int.from_bytes(os.urandom(3), "little") + 1
segment = libc.shmget(key, 4096, 0o1666)
queue = libc.mq_open(b"/" + NAME.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
files = [f"{place}/{NAME}" for place in ("/tmp", "/dev/shm")]
for path in files:
    with open(path, "w") as file:
        file.write("the neighbour's")
assert segment >= 0, "no shared memory"
assert queue >= 0, "no queue"
print(json.dumps({"port": server.getsockname()[1], "key": key, "pid": os.getpid()}), flush=True)
sys.argv[0] = "immured-neighbour"
sys.stdin.read()
libc.shmctl(segment, 0, None)
libc.mq_unlink(b"/" + NAME.encode())
for path in files:
    os.unlink(path)
