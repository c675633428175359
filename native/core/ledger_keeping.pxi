# A part of _ledger_write.pyx: what a later start needs of the lines, as far as every line has to do with it.
# immured/ledger/keeping.py says what for, and does what few lines ask for.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t htobe64(uint64_t)

cdef enum:
    RECORD = 48  # index, offset, leaf hash
    BUCKET_MS = 60_000
    # As `Tie` has them.
    TIE_NONE = 0
    TIE_FACT = 2
    TIE_OUTCOME = 3


cdef bytes record(uint64_t seq, uint64_t offset, bytes leaf):
    cdef bytes packed = PyBytes_FromStringAndSize(NULL, RECORD)
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(packed)
    cdef uint64_t number = htobe64(seq)
    if PyBytes_GET_SIZE(leaf) != 32:
        raise ValueError("a leaf hash is 32 bytes")
    memcpy(at, &number, 8)
    number = htobe64(offset)
    memcpy(at + 8, &number, 8)
    memcpy(at + 16, PyBytes_AS_STRING(leaf), 32)
    return packed


cdef into(dict buckets, long long until, bytes packed):
    minute = until // BUCKET_MS + (until % BUCKET_MS != 0)
    cdef bytearray bucket = buckets.get(minute)
    if bucket is None:
        bucket = buckets[minute] = bytearray()
    bucket += packed


cdef class KeptLines:
    """What is kept of lines by their own kind, and those that have their place and are not durable yet.

    Attributes:
        open: by an intent's index: until when it is needed, what stays with it, what is needed until its outcome.
        acts, counts: by the minute until when they are needed, packed records.
        forever: packed records.
    """

    cdef readonly dict open, acts, counts
    cdef readonly bytearray forever
    cdef list waiting
    """(index, record, milliseconds, keep) of what is not durable yet, in their order."""

    def __cinit__(self):
        self.open, self.acts, self.counts, self.forever, self.waiting = {}, {}, {}, bytearray(), []

    cpdef placed(self, long long seq, long long offset, bytes leaf, long long at_ns, keep):
        self.waiting.append((seq, record(seq, offset, leaf), at_ns // 1_000_000, keep))

    cpdef withdrawn(self, long long seq):
        cdef list waiting = self.waiting
        while waiting and <long long>(<tuple>waiting[len(waiting) - 1])[0] >= seq:
            waiting.pop()

    def advance(self, long long size):
        cdef list waiting = self.waiting
        cdef tuple one
        cdef Py_ssize_t due = 0
        # Others may add to its end meanwhile, and take from there what is not durable.
        while due < len(waiting):
            one = <tuple>waiting[due]
            if <long long>one[0] >= size:
                break
            self.add(<bytes>one[1], one[0], one[2], one[3])
            due += 1
        del waiting[:due]

    cpdef add(self, bytes packed, seq, at_ms, keep):
        cdef long long until, counts
        cdef tuple keyed
        until_, opens, tie, intent, forever, keyed, counts_ = keep
        until, counts = until_, counts_
        if opens:
            self.open[seq] = until_, packed, b""
        else:
            if until != 0:
                into(self.acts, until, packed)
            if <int>tie != TIE_NONE:
                self.tied(<int>tie, intent, packed)
        if forever:
            self.forever += packed
        if counts != 0:
            into(self.counts, counts, packed)
        if keyed:
            self.under_keys(keyed, packed, at_ms)

    cdef tied(self, int tie, intent, bytes packed):
        begun = self.open.get(intent)
        if begun is None:
            return
        until, whole, part = <tuple>begun
        if tie == TIE_OUTCOME:
            del self.open[intent]
            if until != 0:
                into(self.acts, until, <bytes>whole + packed)
        elif tie == TIE_FACT:
            self.open[intent] = until, <bytes>whole + packed, part
        else:
            self.open[intent] = until, whole, <bytes>part + packed

    def under_keys(self, keyed, packed, at_ms):
        """For who knows of keys."""
        raise NotImplementedError
