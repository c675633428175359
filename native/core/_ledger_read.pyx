# cython: language_level=3, binding=True, boundscheck=True, wraparound=False
"""The ledger's lines, read at the disk's speed: a line is taken here when immured/ledger/entry.py takes it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef extern from "ledger_scan.h":
    enum:
        IMD_TIME_SIZE
        IMD_PIECE_SHORTEST
    struct imd_text:
        const uint8_t *at
        size_t size
    struct imd_entry:
        uint64_t seq
        imd_text ts, type, actor, data
        uint8_t prev[32]
    struct imd_reader:
        pass
    struct imd_piece:
        const uint8_t *data
        size_t size
        const imd_text *wanted
        size_t wants
        uint8_t *leaves
        uint32_t *ends
        uint32_t *hits
        imd_text left
        size_t lines, hit, end
        uint64_t seq
        uint8_t prev[32]
        char last_ts[1]
    bint imd_line_read(imd_reader *, const uint8_t *, size_t, imd_entry *) nogil
    void imd_piece_read(imd_reader *, imd_piece *) nogil

cdef extern from "ledger_tree.h":
    void imd_tree_leaf(uint8_t *, const uint8_t *, size_t) nogil
    void imd_tree_node(uint8_t *, const uint8_t *, const uint8_t *) nogil

cdef enum:
    MAX_WANTED = 256
    MAX_PIECE = 1 << 30


cdef bytes _text(const imd_text *text):
    return PyBytes_FromStringAndSize(<const char *>text.at, text.size)


def read_line(bytes line not None):
    """(seq, ts, type, actor, data, prev, leaf) of a line without its newline, or None where it is no entry."""
    cdef imd_entry entry
    cdef uint8_t leaf[32]
    cdef imd_reader *reader = <imd_reader *>malloc(sizeof(imd_reader))
    if reader == NULL:
        raise MemoryError
    try:
        if not imd_line_read(reader, <const uint8_t *>PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line), &entry):
            return None
        imd_tree_leaf(leaf, <const uint8_t *>PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
        return (entry.seq, _text(&entry.ts).decode(), _text(&entry.type).decode(), _text(&entry.actor),
                _text(&entry.data), (<const uint8_t *>entry.prev)[:32], (<const uint8_t *>leaf)[:32])
    finally:
        free(reader)


cdef class Piece:
    """What `read_piece` found."""

    cdef readonly size_t lines
    cdef readonly size_t end
    cdef readonly uint64_t seq
    cdef readonly bytes prev
    cdef readonly bytes leaves
    cdef readonly str last_ts
    cdef readonly list hits
    cdef uint32_t *ends

    def __dealloc__(self):
        free(self.ends)

    def end_of(self, size_t count):
        """Where the first `count` lines end. Raises IndexError."""
        if count > self.lines:
            raise IndexError(f"there are {self.lines} good lines")
        return self.ends[count - 1] if count else 0


def read_piece(bytes data not None, wanted=(), bytes left=None):
    """Read whole lines, the GIL given up meanwhile, up to the first of the type `left`.

    `wanted` are types whose lines are listed, None: all. Raises ValueError for over 1 GiB, or over 256 types.
    """
    cdef imd_text names[MAX_WANTED]
    cdef imd_piece piece
    cdef imd_reader *reader = NULL
    cdef Piece found = Piece()
    cdef size_t i, room = PyBytes_GET_SIZE(data) // IMD_PIECE_SHORTEST + 1
    cdef Py_ssize_t at
    cdef tuple types = () if wanted is None else tuple(wanted)
    cdef bint lists = wanted is None or bool(types)
    cdef bytes name
    if len(types) > MAX_WANTED or PyBytes_GET_SIZE(data) > MAX_PIECE:
        raise ValueError("a piece has at most 1 GiB, and at most 256 types can be asked for")
    for at in range(len(types)):
        name = types[at]
        names[at].at, names[at].size = <const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)
    piece.data, piece.size = <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    piece.wanted, piece.wants = names, len(types)
    piece.left.at, piece.left.size = NULL, 0
    if left is not None:
        piece.left.at, piece.left.size = <const uint8_t *>PyBytes_AS_STRING(left), PyBytes_GET_SIZE(left)
    piece.leaves = <uint8_t *>malloc(32 * room)
    piece.hits = <uint32_t *>malloc(sizeof(uint32_t) * room) if lists else NULL
    piece.ends = found.ends = <uint32_t *>malloc(sizeof(uint32_t) * room)
    reader = <imd_reader *>malloc(sizeof(imd_reader))
    try:
        if piece.leaves == NULL or piece.ends == NULL or reader == NULL or (lists and piece.hits == NULL):
            raise MemoryError
        with nogil:
            imd_piece_read(reader, &piece)
        found.lines, found.end, found.prev, found.last_ts = piece.lines, piece.end, b"", ""
        found.leaves = PyBytes_FromStringAndSize(<const char *>piece.leaves, 32 * piece.lines)
        found.hits = [piece.hits[i] for i in range(piece.hit)]
        if piece.lines:
            found.seq, found.prev = piece.seq, (<const uint8_t *>piece.prev)[:32]
            found.last_ts = (<const char *>piece.last_ts)[:IMD_TIME_SIZE].decode("ascii")
        return found
    finally:
        free(piece.leaves)
        free(piece.hits)
        free(reader)


def parents(bytes hashes not None):
    """The nodes above these, two by two, 32 bytes each; the last one is left over where their number is odd. The GIL is
    given up meanwhile. Raises ValueError for what is not of 32 bytes each."""
    cdef size_t i, count = PyBytes_GET_SIZE(hashes) // 64
    cdef const uint8_t *pairs = <const uint8_t *>PyBytes_AS_STRING(hashes)
    cdef bytes found = PyBytes_FromStringAndSize(NULL, 32 * count)
    cdef uint8_t *nodes = <uint8_t *>PyBytes_AS_STRING(found)
    if PyBytes_GET_SIZE(hashes) % 32:
        raise ValueError("hashes are of 32 bytes each")
    with nogil:
        for i in range(count):
            imd_tree_node(nodes + 32 * i, pairs + 64 * i, pairs + 64 * i + 32)
    return found
