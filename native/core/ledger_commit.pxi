# A part of _ledger_write.pyx: how lines become durable, and who hears of it, without the interpreter's lock where nothing of
# Python's is touched. immured/ledger/writer.py and immured/ledger/pending.py say what for.

from asyncio import Future, get_running_loop

from cython cimport no_gc_clear

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX, UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<stdbool.h>" nogil:
    ctypedef bint truth "bool"

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec, tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int, timespec *) noexcept

cdef extern from "ledger_awaited.h" nogil:
    enum imd_heard:
        IMD_HEARD_DURABLE
        IMD_HEARD_LOST
        IMD_HEARD_LATE
        IMD_HEARD_SIGNAL
    struct imd_bell:
        int fd
    struct imd_awaited:
        pass
    int imd_awaited_begin(imd_awaited *, uint64_t) noexcept
    void imd_awaited_end(imd_awaited *) noexcept
    void imd_awaited_advance(imd_awaited *, uint64_t) noexcept
    void imd_awaited_lose(imd_awaited *) noexcept
    uint64_t imd_awaited_count(imd_awaited *) noexcept
    imd_heard imd_awaited_wait(imd_awaited *, uint64_t, int64_t) noexcept
    int imd_bell_hang(imd_awaited *, imd_bell *) noexcept
    void imd_bell_expect(imd_awaited *, imd_bell *, uint64_t) noexcept
    uint64_t imd_bell_heard(imd_awaited *, imd_bell *, truth *) noexcept
    void imd_bell_ring(imd_awaited *, imd_bell *) noexcept
    void imd_bell_take_down(imd_awaited *, imd_bell *) noexcept

cdef extern from "ledger_writer.h" nogil:
    struct imd_batch:
        imd_batch *next
        size_t count, used
        uint8_t *lines
        uint8_t *leaves
    struct imd_writer:
        int fd
        bint synced
        uint64_t end, count
        int64_t took_ns
    int imd_writer_begin(imd_writer *, imd_awaited *, size_t) noexcept
    void imd_writer_end(imd_writer *) noexcept
    int imd_writer_submit(imd_writer *, const uint8_t *, size_t, const uint8_t *, bint) noexcept
    void imd_writer_rouse(imd_writer *, bint) noexcept
    bint imd_writer_is_empty(imd_writer *) noexcept
    void imd_writer_turn(imd_writer *) noexcept
    bint imd_writer_try_turn(imd_writer *) noexcept
    void imd_writer_give_turn(imd_writer *) noexcept
    int imd_writer_commit(imd_writer *) noexcept
    imd_batch *imd_writer_take(imd_writer *) noexcept
    size_t imd_writer_collectable(imd_writer *, size_t *) noexcept
    imd_batch *imd_writer_collect(imd_writer *, size_t) noexcept
    void imd_batch_free(imd_batch *) noexcept
    void imd_writer_spare(imd_writer *, imd_batch *) noexcept
    struct imd_patience:
        size_t entries
        int64_t ns
        uint64_t end
    int imd_writer_attend(imd_writer *) noexcept
    void imd_writer_stop(imd_writer *, bint) noexcept
    void imd_writer_follow(imd_writer *, int64_t, const imd_patience *) noexcept


cdef int64_t deadline(double seconds) noexcept:
    """So many seconds from now by CLOCK_MONOTONIC, in nanoseconds."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec + <int64_t>(max(0.0, min(seconds, 1e9)) * 1e9)


cdef double MUTE_S = 0.005


@no_gc_clear
cdef class Bell:
    """Those of one event loop who wait; but for `ring`, its own thread alone has to do with it. Where there is no descriptor
    for it, it is mute: then the loop looks every few milliseconds by itself."""

    # no_gc_clear: who takes it down needs `completion` to the last. The cycle through that one's `bells` is broken there.
    cdef imd_bell bell
    cdef Completion completion
    cdef object loop
    cdef list futures
    """(index, receipt, future); by their index where `ordered`."""
    cdef bint ordered, mute

    def __cinit__(self):
        self.bell.fd = -1

    def __init__(self, Completion completion not None, loop):
        self.completion, self.loop, self.futures, self.ordered = completion, loop, [], True
        if imd_bell_hang(&completion.awaited, &self.bell) == 0:
            try:
                loop.add_reader(self.bell.fd, self.heard)
                return
            except Exception:  # it cannot, or has no more descriptors either
                imd_bell_take_down(&completion.awaited, &self.bell)
        self.mute = True

    def __dealloc__(self):
        if self.completion is not None:
            imd_bell_take_down(&self.completion.awaited, &self.bell)

    cdef add(self, uint64_t seq, receipt, future):
        if self.futures and (<tuple>self.futures[len(self.futures) - 1])[0] > seq:
            self.ordered = False
        self.futures.append((seq, receipt, future))
        if not self.mute:
            imd_bell_expect(&self.completion.awaited, &self.bell, seq)
        elif len(self.futures) == 1:
            self.loop.call_later(MUTE_S, self.heard)

    def heard(self):
        """On the loop: whoever is due goes on."""
        cdef truth lost = False
        cdef uint64_t count
        cdef list futures
        cdef tuple one
        cdef Py_ssize_t due = 0
        if self.mute:
            lost = self.completion.failure is not None
            count = imd_awaited_count(&self.completion.awaited)
        elif self.bell.fd < 0:
            return
        else:
            count = imd_bell_heard(&self.completion.awaited, &self.bell, &lost)
        futures = self.futures
        if not self.ordered:
            futures.sort(key=index)
            self.ordered = True
        for one in futures:
            if <uint64_t>one[0] >= count:
                break
            due += 1
            future = one[2]
            if not future.done():
                future.set_result(one[1])
        if due == len(futures):
            futures.clear()
        elif lost:
            for one in futures[due:]:
                future = one[2]
                if not future.done():
                    try:
                        failure = self.completion.again()
                    except Exception as error:  # no memory: everybody has to hear something
                        failure = error
                    future.set_exception(failure)
            futures.clear()
        else:
            del futures[:due]
            if self.mute:
                self.loop.call_later(MUTE_S, self.heard)
            else:
                imd_bell_expect(&self.completion.awaited, &self.bell, (<tuple>futures[0])[0])
        if not futures and (self.completion.over or self.mute):
            if not self.mute:
                self.loop.remove_reader(self.bell.fd)
            self.take_down()

    cdef take_down(self):
        imd_bell_take_down(&self.completion.awaited, &self.bell)
        self.completion.bells.pop(self.loop, None)
        if self.completion.latest is self:
            self.completion.latest = None


def index(one):
    return one[0]


cdef class Completion:
    """How many entries are durable: a count that only grows, until it fails for good."""

    cdef imd_awaited awaited
    cdef bint begun, over
    cdef readonly object failure
    cdef object again_
    cdef dict bells
    cdef Bell latest

    def __init__(self, count, again):
        if imd_awaited_begin(&self.awaited, count) != 0:
            raise MemoryError
        self.begun, self.bells, self.again_ = True, {}, again

    def __dealloc__(self):
        if self.begun:
            imd_awaited_end(&self.awaited)

    cdef again(self):
        return self.again_(self.failure)

    @property
    def count(self):
        return imd_awaited_count(&self.awaited)

    def reached(self, uint64_t seq):
        if seq < imd_awaited_count(&self.awaited):
            return True
        if self.failure is not None:
            raise self.again()
        return False

    cdef Bell bell(self, loop):
        if self.latest is not None and self.latest.loop is loop:
            return self.latest
        cdef Bell bell = self.bells.get(loop)
        if bell is None:
            for one in list(self.bells.values()):
                if (<Bell>one).loop.is_closed():
                    (<Bell>one).take_down()
            bell = self.bells[loop] = Bell(self, loop)
        self.latest = bell
        return bell

    def until(self, receipt not None):
        cdef uint64_t seq = receipt[0]
        loop = get_running_loop()
        future = Future(loop=loop)
        if seq < imd_awaited_count(&self.awaited):
            future.set_result(receipt)
        elif self.failure is not None:
            future.set_exception(self.again())
        else:
            self.bell(loop).add(seq, receipt, future)
        return future

    def wait(self, uint64_t seq, timeout=None):
        cdef int64_t until = INT64_MAX if timeout is None else deadline(timeout)
        cdef imd_heard heard
        if self.reached(seq):
            return
        if timeout is not None and timeout <= 0:
            raise TimeoutError(f"entry {seq} is not durable yet")
        while True:
            with nogil:
                heard = imd_awaited_wait(&self.awaited, seq, until)
            if heard == IMD_HEARD_DURABLE:
                return
            if heard == IMD_HEARD_LOST:
                raise self.again()
            if heard == IMD_HEARD_LATE:
                raise TimeoutError(f"entry {seq} is not durable yet")
            PyErr_CheckSignals()

    def advance(self, uint64_t count):
        imd_awaited_advance(&self.awaited, count)

    def fail(self, failure not None):
        if self.failure is None:
            self.failure = failure
        imd_awaited_lose(&self.awaited)

    def close(self):
        """Nothing more comes: what event loops keep for this is given up, by each itself."""
        self.over = True
        for one in list(self.bells.values()):
            if (<Bell>one).loop.is_closed():
                (<Bell>one).take_down()
            elif not (<Bell>one).mute:
                imd_bell_ring(&self.awaited, &(<Bell>one).bell)


cdef class Pending:
    """An entry that has its place and is on its way to the disk."""

    cdef readonly object receipt
    cdef Completion completion

    def __init__(self, receipt not None, Completion completion not None):
        self.receipt, self.completion = receipt, completion

    def is_durable(self):
        """Whether it is, now. Raises Refused("ledger_unavailable") where it never will be."""
        return self.completion.reached(self.receipt[0])

    def durable(self):
        """What to await on the running event loop until the entry is durable. Raises Refused("ledger_unavailable")."""
        return self.completion.until(self.receipt)

    def wait(self, timeout=None):
        """Wait in this thread. Raises Refused("ledger_unavailable"), TimeoutError."""
        self.completion.wait(self.receipt[0], timeout)
        return self.receipt


cdef class Queue:
    """Lines on their way to one file."""

    cdef imd_writer writer
    cdef uint64_t base
    cdef Completion completion
    cdef bint begun

    def __init__(self, Completion completion not None, largest):
        if imd_writer_begin(&self.writer, &completion.awaited, largest) != 0:
            raise MemoryError
        self.completion, self.begun = completion, True

    def __dealloc__(self):
        if self.begun:
            imd_writer_end(&self.writer)

    def direct(self, int fd, uint64_t base, uint64_t end, bint synced, uint64_t count):
        self.writer.fd, self.base, self.writer.end, self.writer.synced = fd, base, end - base, synced
        self.writer.count = count

    @property
    def is_empty(self):
        return imd_writer_is_empty(&self.writer)

    @property
    def took_s(self):
        return self.writer.took_ns / 1e9

    def submit(self, bytes line not None, bytes leaf not None, bint rouse):
        if len(leaf) != 32:
            raise ValueError("a leaf hash is 32 bytes")
        if imd_writer_submit(&self.writer, <const uint8_t *>PyBytes_AS_STRING(line), <size_t>PyBytes_GET_SIZE(line),
                             <const uint8_t *>PyBytes_AS_STRING(leaf), rouse) != 0:
            raise MemoryError

    def rouse(self, bint asked=False):
        imd_writer_rouse(&self.writer, asked)

    def take_turn(self):
        if not imd_writer_try_turn(&self.writer):
            with nogil:
                imd_writer_turn(&self.writer)

    def try_turn(self):
        return imd_writer_try_turn(&self.writer)

    def give_turn(self):
        imd_writer_give_turn(&self.writer)

    def commit(self):
        cdef int error
        with nogil:
            error = imd_writer_commit(&self.writer)
        return error

    def take(self):
        cdef imd_batch *batch = imd_writer_take(&self.writer)
        if batch == NULL:
            return None
        taken = (PyBytes_FromStringAndSize(<char *>batch.lines, <Py_ssize_t>batch.used),
                 PyBytes_FromStringAndSize(<char *>batch.leaves, <Py_ssize_t>(32 * batch.count)))
        imd_writer_spare(&self.writer, batch)
        return taken

    def collect(self):
        """What may fail comes first: what was collected and then lost would be missing in the tree for good."""
        cdef size_t length = 0
        cdef size_t count = imd_writer_collectable(&self.writer, &length)
        cdef imd_batch *batch
        cdef imd_batch *after
        if count == 0:
            return None
        leaves = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(32 * count))
        collected = leaves, length
        cdef char *at = PyBytes_AS_STRING(leaves)
        batch = imd_writer_collect(&self.writer, count)
        while batch != NULL:
            after = batch.next
            memcpy(at, batch.leaves, 32 * batch.count)
            at += 32 * batch.count
            imd_writer_spare(&self.writer, batch)
            batch = after
        return collected

    def attend(self):
        cdef int trouble
        with nogil:
            trouble = imd_writer_attend(&self.writer)
        return trouble

    def stop(self, bint now=False):
        imd_writer_stop(&self.writer, now)

    def follow(self, timeout, size_t entries, double seconds, end):
        cdef int64_t until = INT64_MAX if timeout is None else deadline(timeout)
        cdef imd_patience patience
        patience.entries, patience.ns = entries, <int64_t>(seconds * 1e9)
        patience.end = UINT64_MAX if end is None else max(0, end - self.base)
        with nogil:
            imd_writer_follow(&self.writer, until, &patience)
