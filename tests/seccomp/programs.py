"""What people run, which no filter may disturb; and what no filter may let through."""

from __future__ import annotations

import errno
import shutil
from typing import Final

BASH: Final = """
set -e
echo a | tr a b > f
(sleep 0 & wait)
test $(<f) = b
mkfifo p
umask 077
kill -0 $$
echo ok
"""
COREUTILS: Final = """
set -e
cp /bin/true t; chmod 755 t; ./t
ln -s t l; mv l m; touch -d @0 t; du -s . ; sync t; nproc
echo ok
"""
GCC: Final = """
set -e
echo 'int main(void) { return 0; }' > a.c
gcc -O2 -pipe a.c -o a
./a
echo ok
"""
GIT: Final = """
set -e
git init -q .
echo 1 > x; git add x
git -c user.name=a -c user.email=a@b commit -qm 1
git gc -q; git fsck
echo ok
"""
MAKE: Final = """
set -e
printf 'all: a b\\na b:\\n\\ttouch $@\\n' > Makefile
make -j4 -s
test -e b
echo ok
"""
TAR: Final = """
set -e
mkdir d; echo 1 > d/f
tar czf d.tgz d; rm -r d; tar xzf d.tgz
cat d/f
echo ok
"""
PERL: Final = 'pipe(R, W); if (!fork) { print W 1; exit } wait; print "ok\\n"'
NODE: Final = """
const fs = require('fs'), net = require('net'), { Worker } = require('worker_threads');
fs.promises.writeFile('x', '1').then(() => net.createServer().listen(0, '127.0.0.1', function () {
  this.close();
  require('child_process').execFileSync('true');
  new Worker('process.exit(0)', { eval: true }).on('exit', () => console.log('ok'));
}));
"""
PYTHON: Final = """
import asyncio, concurrent.futures, mmap, multiprocessing, os, select, signal, socket, ssl, subprocess, tempfile

async def serve():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    server.close()

asyncio.run(serve())
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert sum(pool.map(int, "123")) == 6
assert subprocess.run(["true"]).returncode == 0
queue = multiprocessing.get_context("fork").SimpleQueue()
child = os.fork()
if child == 0:
    queue.put(1)
    os._exit(0)
os.waitpid(child, 0)
assert queue.get() == 1
mmap.mmap(-1, 4096)
os.memfd_create("x")
os.pidfd_open(os.getpid())
os.eventfd(0)
socket.socketpair()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
os.sched_setaffinity(0, os.sched_getaffinity(0))
signal.setitimer(signal.ITIMER_REAL, 0)
with tempfile.TemporaryFile() as f, tempfile.TemporaryFile() as g:
    f.write(b"1")
    f.flush()
    os.copy_file_range(f.fileno(), g.fileno(), 1, 0)
os.posix_spawn("/bin/true", ["true"], {})
os.wait()
print("ok")
"""

PROGRAMS: Final = {
    "bash": ("bash", "-c", BASH),
    "cp": ("sh", "-c", COREUTILS),
    "gcc": ("sh", "-c", GCC),
    "git": ("sh", "-c", GIT),
    "make": ("sh", "-c", MAKE),
    "node": ("node", "-e", NODE),
    "perl": ("perl", "-e", PERL),
    "python3": ("python3", "-c", PYTHON),
    "tar": ("sh", "-c", TAR),
}
"""By the program that must be there; every one exits 0 and says `ok` last."""

PRESENT: Final = sorted(name for name in PROGRAMS if shutil.which(name))

ATTEMPT: Final = """
import ctypes, errno, fcntl, os, socket, stat, sys

libc = ctypes.CDLL(None, use_errno=True)
numbers = {numbers}

def raising(answer):
    if answer == -1:
        raise OSError(ctypes.get_errno(), "")

open("f", "w").close()
try:
    {attempt}
except OSError as refusal:
    print(refusal.errno)
else:
    print(0)
"""
"""Prints the errno of one attempt, or 0."""

REFUSALS: Final = {
    "setuid by chmod": ("os.chmod('f', 0o4755)", errno.EPERM),
    "setgid by fchmod": ("os.fchmod(1, 0o2755)", errno.EPERM),
    "setuid by open": ("os.open('s', os.O_CREAT | os.O_WRONLY, 0o4755)", errno.EPERM),
    "setuid by O_TMPFILE": ("os.open('.', os.O_TMPFILE | os.O_RDWR, 0o4700)", errno.EPERM),
    "setgid by mkdir": ("os.mkdir('d', 0o2755)", errno.EPERM),
    "setuid by mknod": ("os.mknod('n', 0o104755)", errno.EPERM),
    "a device": ("os.mknod('n', stat.S_IFCHR | 0o600, os.makedev(1, 3))", errno.EPERM),
    "a whiteout": ("raising(libc.renameat2(-100, b'f', -100, b'g', 4))", errno.EINVAL),
    "a user namespace": ("raising(libc.unshare(0x10000000))", errno.EPERM),
    "a user namespace by clone": ("raising(libc.syscall(numbers['clone'], 0x10000011, 0, 0, 0, 0))", errno.EPERM),
    "another's namespace": ("raising(libc.setns(os.open('/proc/self/ns/net', 0), 0))", errno.EPERM),
    "a new mount": ("raising(libc.syscall(numbers['fsopen'], b'tmpfs', 0))", errno.EPERM),
    "a copy of a mount": ("raising(libc.syscall(numbers['open_tree'], -100, b'/', 1))", errno.EPERM),
    "bpf": ("raising(libc.syscall(numbers['bpf'], 0, 0, 0))", errno.EPERM),
    "perf": ("raising(libc.syscall(numbers['perf_event_open'], 0, 0, -1, -1, 0))", errno.EPERM),
    "userfaultfd": ("raising(libc.syscall(numbers['userfaultfd'], 1))", errno.EPERM),
    "tracing another": ("raising(libc.ptrace(16, os.getppid(), 0, 0))", errno.EPERM),
    "AF_VSOCK": ("socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", errno.EPERM),
    "the console's selection": ("fcntl.ioctl(0, 0x541c, b'x')", errno.EPERM),
    "a mount": ("raising(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))", errno.EPERM),
    "ptrace": ("raising(libc.ptrace(0, 0, 0, 0))", errno.EPERM),
    "a keyring": ("raising(libc.syscall(numbers['keyctl'], 0, -3, 0))", errno.EPERM),
    "io_uring": ("raising(libc.syscall(numbers['io_uring_setup'], 8, 0))", errno.EPERM),
    "clone3": ("raising(libc.syscall(numbers['clone3'], 0, 0))", errno.ENOSYS),
    "AF_ALG": ("socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)", errno.EPERM),
    "AF_PACKET": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", errno.EPERM),
    "AF_PACKET by SOCK_PACKET": ("socket.socket(socket.AF_INET, 10, 0x300)", errno.EPROTONOSUPPORT),
    "AF_CAN": ("socket.socket(29, socket.SOCK_RAW)", errno.EAFNOSUPPORT),
    "SCTP": ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)", errno.EPROTONOSUPPORT),
    "typing into a terminal": ("fcntl.ioctl(0, 0x5412, b'x')", errno.EPERM),
    "typing into a terminal, with junk above": (
        "raising(libc.ioctl(0, ctypes.c_ulong(1 << 32 | 0x5412), 0))",
        errno.EPERM,
    ),
}
"""What is tried, in ATTEMPT's words, and the errno that it gets."""
