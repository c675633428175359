# cython: language_level=3, binding=True, boundscheck=True, wraparound=False
"""How a line of the ledger is written, and the tree that grows with it, at the speed of C.

What an entry is made of is walked here without running any code of Python's: only objects that are exactly of Python's own
types (and text of any). All else is declined, and immured/ledger/entry.py, which says the same in Python, does it.
"""

include "ledger_commit.pxi"
include "ledger_keeping.pxi"

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.exc cimport PyErr_Clear
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(PyObject *, Py_ssize_t *)
    long long PyLong_AsLongLongAndOverflow(PyObject *, int *)
    PyObject *Py_True
    PyObject *Py_False

cdef extern from "ledger_entry.h" nogil:
    enum:
        IMD_ENTRY_MAX_LINE
        IMD_ENTRY_MAX_TEXT
        IMD_ENTRY_MAX_DEPTH
        IMD_ENTRY_FRAME
        IMD_ENTRY_MAX_TYPE
    const int64_t IMD_ENTRY_MAX_INTEGER
    struct imd_text:
        uint8_t *at
        size_t used, room
        bint full
    void imd_text_add(imd_text *, const void *, size_t) noexcept
    void imd_text_string(imd_text *, const uint8_t *, size_t) noexcept
    void imd_text_integer(imd_text *, int64_t) noexcept
    void imd_text_text(imd_text *, const uint8_t *, size_t) noexcept
    void imd_text_octets(imd_text *, const uint8_t *, size_t) noexcept
    void imd_line_begin(imd_text *, uint64_t, int64_t, const uint8_t *, size_t) noexcept
    void imd_line_end(imd_text *, size_t, const uint8_t *, uint8_t *) noexcept

cdef extern from "ledger_tree.h" nogil:
    struct imd_tree:
        uint64_t size
        uint8_t (*roots)[32]
    void imd_tree_extend(imd_tree *, const uint8_t *, size_t) noexcept
    void imd_tree_root(const imd_tree *, uint8_t *) noexcept

# Of whoever has no place of his own to write to, and the interpreter's lock from the first byte to the last.
cdef uint8_t scratch[IMD_ENTRY_MAX_LINE + 1]

cdef enum:
    DECLINED = 0
    DONE = 1


cdef int put_text(imd_text *text, PyObject *value, bint as_key) noexcept:
    cdef Py_ssize_t size
    cdef const char *utf8 = PyUnicode_AsUTF8AndSize(value, &size)
    if utf8 == NULL:  # half of a surrogate pair, or no memory
        PyErr_Clear()
        return DECLINED
    if not as_key:
        imd_text_text(text, <const uint8_t *>utf8, <size_t>size)
    elif size <= IMD_ENTRY_MAX_TEXT:
        imd_text_string(text, <const uint8_t *>utf8, <size_t>size)
    else:
        return DECLINED
    return DONE


cdef int put_map(imd_text *text, PyObject *value, int depth) noexcept:
    cdef Py_ssize_t position = 0
    cdef PyObject *key
    cdef PyObject *item
    cdef bint first = True
    if depth > IMD_ENTRY_MAX_DEPTH:
        return DECLINED
    imd_text_add(text, b"{", 1)
    while PyDict_Next(<object>value, &position, &key, &item):
        if not first:
            imd_text_add(text, b",", 1)
        first = False
        # Exactly text: two keys of which one is something else may be the same once they are text.
        if not PyUnicode_CheckExact(<object>key) or put_text(text, key, True) == DECLINED:
            return DECLINED
        imd_text_add(text, b":", 1)
        if put(text, item, depth + 1) == DECLINED:
            return DECLINED
    imd_text_add(text, b"}", 1)
    return DONE


cdef int put_sequence(imd_text *text, PyObject *value, bint is_list, int depth) noexcept:
    cdef Py_ssize_t size = PyList_GET_SIZE(<object>value) if is_list else PyTuple_GET_SIZE(<object>value)
    cdef Py_ssize_t at
    if depth > IMD_ENTRY_MAX_DEPTH:
        return DECLINED
    imd_text_add(text, b"[", 1)
    for at in range(size):
        if at > 0:
            imd_text_add(text, b",", 1)
        if put(text, PyList_GET_ITEM(<object>value, at) if is_list else PyTuple_GET_ITEM(<object>value, at),
               depth + 1) == DECLINED:
            return DECLINED
    imd_text_add(text, b"]", 1)
    return DONE


cdef int put(imd_text *text, PyObject *value, int depth) noexcept:
    cdef long long number
    cdef int overflow = 0
    if text.full:
        return DECLINED
    if PyUnicode_Check(<object>value):
        return put_text(text, value, False)
    if PyDict_CheckExact(<object>value):
        return put_map(text, value, depth)
    if value == Py_True:
        imd_text_add(text, b"true", 4)
        return DONE
    if value == Py_False:
        imd_text_add(text, b"false", 5)
        return DONE
    if PyLong_CheckExact(<object>value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow != 0:
            return DECLINED
        imd_text_integer(text, number)
        return DONE
    if PyList_CheckExact(<object>value):
        return put_sequence(text, value, True, depth)
    if PyTuple_CheckExact(<object>value):
        return put_sequence(text, value, False, depth)
    if PyBytes_CheckExact(<object>value):
        imd_text_octets(text, <const uint8_t *>PyBytes_AS_STRING(<object>value), <size_t>PyBytes_GET_SIZE(<object>value))
        return DONE
    return DECLINED


cdef int put_members(imd_text *text, object actor, object data) noexcept:
    """Both, as far as they go; `text.full` where they did not."""
    if not PyDict_CheckExact(actor) or not PyDict_CheckExact(data):
        return DECLINED
    imd_text_add(text, b'"actor":', 8)
    if put_map(text, <PyObject *>actor, 2) == DECLINED:
        return DECLINED
    imd_text_add(text, b',"data":', 8)
    return put_map(text, <PyObject *>data, 2)


def encode_members(actor, data, Py_ssize_t budget):
    """The two members of a line as JSON, without braces: `"actor":{...},"data":{...}`, at most `budget` bytes.

    Args:
        actor, data: dicts, as the caller says them.
        budget: how long it may be; at most 65,535.

    Returns:
        What entry.encode_body makes of them, byte for byte; None for what is left to that: values that are not exactly
        of Python's own types, what has no place in an entry (it says why), and what does not fit.
    """
    cdef imd_text text
    if not 0 <= budget <= IMD_ENTRY_MAX_LINE:
        return None
    text.at = scratch
    text.used = 0
    text.room = <size_t>budget
    text.full = False
    if put_members(&text, actor, data) == DECLINED or text.full:
        return None
    return PyBytes_FromStringAndSize(<char *>text.at, <Py_ssize_t>text.used)


def seal_line(seq, ns, str type_ not None, bytes members not None, bytes prev not None):
    """The line at `seq` with its newline, and its leaf hash, 32 bytes.

    Args:
        seq: its index.
        ns: what the clock says, nanoseconds since the epoch.
        type_, members: of the entry; `members` as `encode_members` gives them.
        prev: the leaf hash of the line before, 32 bytes.

    Returns:
        `(line, leaf)`, what entry.build_line makes of it; None for a time before 1970 or after 2262, and for what is no
        type's name or does not fit a line.
    """
    cdef imd_text text
    cdef Py_ssize_t size
    cdef int overflow = 0
    cdef uint8_t leaf[32]
    cdef long long now = PyLong_AsLongLongAndOverflow(<PyObject *>ns, &overflow)
    cdef long long index = PyLong_AsLongLongAndOverflow(<PyObject *>seq, &overflow) if overflow == 0 else -1
    cdef const char *name = PyUnicode_AsUTF8AndSize(<PyObject *>type_, &size)
    if name == NULL:
        raise ValueError("the name of a type is ASCII")
    if len(prev) != 32:
        raise ValueError("a leaf hash is 32 bytes")
    if overflow != 0 or now < 0 or not 0 <= index <= IMD_ENTRY_MAX_INTEGER or size > IMD_ENTRY_MAX_TYPE:
        return None
    text.at = scratch
    text.used = 0
    text.room = sizeof(scratch)
    text.full = False
    imd_line_begin(&text, <uint64_t>index, now, <const uint8_t *>name, <size_t>size)
    imd_text_add(&text, PyBytes_AS_STRING(members), <size_t>PyBytes_GET_SIZE(members))
    imd_line_end(&text, 0, <const uint8_t *>PyBytes_AS_STRING(prev), leaf)
    if text.full:
        return None
    return PyBytes_FromStringAndSize(<char *>text.at, <Py_ssize_t>text.used), leaf[:32]


cdef struct Wish:
    long long now, want, part, kept, length


cdef class Places:
    """Where the next line goes, and what is kept beside it for outcomes. Its owner sees to it that one calls at a time.

    Attributes:
        seq: the next line's index.
        end: where in the ledger's stream of bytes it begins.
        last_ns: the time of the line before, nanoseconds since the epoch.
        prev: its leaf hash, 32 bytes.
        kept: bytes that are kept, all together.
        outstanding: an intent's index, and the bytes that are kept for its outcome.
        room: as far as the stream can grow, what is kept included, without anybody being asked.
    """

    cdef readonly long long seq, end
    cdef public long long last_ns, kept, room
    cdef readonly dict outstanding
    cdef uint8_t leaf[32]
    cdef uint8_t line[IMD_ENTRY_MAX_LINE + 1]
    cdef dict budgets
    cdef type receipt
    cdef long long outcome_bytes, closing_bytes

    def __init__(self, seq, bytes prev not None, last_ns, end, *, dict budgets not None, type receipt not None,
                 outcome_bytes, closing_bytes):
        if len(prev) != 32:
            raise ValueError("a leaf hash is 32 bytes")
        memcpy(self.leaf, PyBytes_AS_STRING(prev), 32)
        self.seq, self.last_ns, self.end = seq, last_ns, end
        self.budgets, self.receipt = budgets, receipt
        self.outcome_bytes, self.closing_bytes = outcome_bytes, closing_bytes
        self.kept = closing_bytes
        self.room = 0
        self.outstanding = {}

    @property
    def prev(self):
        return self.leaf[:32]

    def enter(self, bytes line not None, bytes leaf not None, ns, Queue queue=None, bint rouse=False):
        """This is the next line, with its newline; it is queued, where it is to be, or it is not the next."""
        cdef long long now = ns
        if len(leaf) != 32:
            raise ValueError("a leaf hash is 32 bytes")
        if queue is not None:
            queue.submit(line, leaf, rouse)
        self.last_ns = now
        memcpy(self.leaf, PyBytes_AS_STRING(leaf), 32)
        self.seq += 1
        self.end += len(line)

    cdef int prepare(self, imd_text *text, uint8_t *leaf, Wish *wish, type_, actor, data, ns, wanted, outcome_of, part_of,
                     bint closing) except -1:
        """The line as it would stand, in `self.line` until this is called again, and what it would keep: DONE; or DECLINED.
        Nothing is changed."""
        cdef Py_ssize_t size
        cdef const char *name
        cdef long long used = 0, part = 0
        budget = self.budgets.get(type_)
        if budget is None:
            return DECLINED
        wish.now = ns
        if wish.now < self.last_ns or wish.now < 0:
            return DECLINED
        wish.want = self.outcome_bytes if wanted is True else 0 if wanted is False else <long long>wanted
        if outcome_of is not None:
            used = self.outstanding.get(outcome_of, 0)
        if part_of is not None:
            part = self.outstanding.get(part_of, 0)
        name = PyUnicode_AsUTF8AndSize(<PyObject *>type_, &size)
        if name == NULL:
            raise ValueError("the name of a type is ASCII")
        text.at = self.line
        text.used = 0
        text.room = sizeof(self.line)
        text.full = False
        imd_line_begin(text, <uint64_t>self.seq, wish.now, <const uint8_t *>name, <size_t>size)
        text.room = text.used + <size_t>budget
        if put_members(text, actor, data) == DECLINED or text.full:
            return DECLINED
        text.room = sizeof(self.line)
        imd_line_end(text, 0, self.leaf, leaf)
        if text.full:
            return DECLINED
        wish.length = <long long>text.used
        wish.part = min(wish.length, part)
        wish.kept = self.kept + wish.want - used - wish.part
        if self.end + wish.length + wish.kept - (self.closing_bytes if closing else 0) > self.room:
            return DECLINED
        return DONE

    cdef tuple wanting(self, const Wish *wish, const uint8_t *leaf, part_of):
        """Whatever of giving it its place may fail: its index and leaf hash, and what is kept of the whole beside its part
        (None where it is none)."""
        cdef object left = None
        cdef object receipt = tuple.__new__(self.receipt, (self.seq, leaf[:32]))
        if wish.part != 0:
            left = self.outstanding[part_of] - wish.part
        if wish.want != 0:
            self.outstanding[(<tuple>receipt)[0]] = wish.want
        return receipt, left

    cdef unwanted(self, const Wish *wish):
        """It does not get its place after all."""
        if wish.want != 0:
            self.outstanding.pop(self.seq, None)

    cdef take(self, const Wish *wish, const uint8_t *leaf, outcome_of, part_of, left):
        """It has its place. Nothing here takes memory."""
        self.kept = wish.kept
        self.last_ns = wish.now
        memcpy(self.leaf, leaf, 32)
        self.seq += 1
        self.end += wish.length
        if outcome_of is not None:
            self.outstanding.pop(outcome_of, None)
        if wish.part != 0:
            self.outstanding[part_of] = left

    def place(self, type_, actor, data, ns, wanted, outcome_of, part_of, closing):
        """Encode an entry, give it its place, and keep what it wants.

        Args:
            type_, actor, data: what it says; the type's name is among `budgets`, with how long the members may be.
            ns: what the clock says.
            wanted: what is to be kept for its outcome: a number of bytes; True for one line's.
            outcome_of, part_of: the index of the intent whose outcome it is, or a part of that; None.
            closing: it may use what is kept for last words.

        Returns:
            `(line, receipt)`: the line with its newline, its index and leaf hash. None, and nothing is changed, where that
            takes somebody who knows more: values and times that are not plain, a clock that went back, a line that does
            not fit, room that must be asked for.
        """
        cdef imd_text text
        cdef uint8_t leaf[32]
        cdef Wish wish
        if self.prepare(&text, leaf, &wish, type_, actor, data, ns, wanted, outcome_of, part_of, closing) == DECLINED:
            return None
        line = PyBytes_FromStringAndSize(<char *>text.at, wish.length)
        receipt, left = self.wanting(&wish, leaf, part_of)
        self.take(&wish, leaf, outcome_of, part_of, left)
        return line, receipt


cdef class Entrance:
    """Where entries come in: each is given its place, and queued, in one step.

    Attributes:
        keeping: who is told of what is kept for a later start (immured/ledger/keeping.py), or None.
        shut: nothing comes in any more.
    """

    cdef public KeptLines keeping
    cdef public bint shut
    cdef object check, otherwise
    cdef Places places
    cdef Queue queue
    cdef object lock, clock

    def __init__(self, Places places not None, Queue queue not None, lock, clock, check, otherwise):
        """`check` refuses where `shut`, or where nothing is durable any more; `otherwise` does what `Places.place` declines."""
        self.places, self.queue, self.lock, self.clock = places, queue, lock, clock
        self.check, self.otherwise = check, otherwise

    def enter(self, type_, actor, data, keep, wanted, outcome_of, part_of, bint closing, bint rouse):
        """As `Places.place`, and queued: its `Pending`. `keep`: what a later start needs it for, None for nothing."""
        cdef imd_text text
        cdef uint8_t leaf[32]
        cdef Wish wish
        cdef Places places = self.places
        cdef Completion completion = self.queue.completion
        cdef Pending pending = Pending.__new__(Pending)
        pending.completion = completion
        with self.lock:
            if self.shut or completion.failure is not None:
                self.check()
            now = self.clock()
            if places.prepare(&text, leaf, &wish, type_, actor, data, now, wanted, outcome_of, part_of, closing) == DECLINED:
                pending.receipt = self.otherwise(type_, actor, data, keep, now, wanted, outcome_of, part_of, closing, rouse)
                return pending
            # Once it is queued it may be durable before this thread goes on, and a later start relies on what is kept then:
            # so it is queued when all else is done, and when nothing can fail any more.
            try:
                receipt, left = places.wanting(&wish, leaf, part_of)
                pending.receipt = receipt
                if keep is not None and self.keeping is not None:
                    self.keeping.placed(receipt[0], places.end, receipt[1], now, keep)
                if imd_writer_submit(&self.queue.writer, text.at, text.used, leaf, rouse) != 0:
                    raise MemoryError
            except BaseException:
                places.unwanted(&wish)
                if self.keeping is not None:
                    self.keeping.withdrawn(places.seq)
                raise
            places.take(&wish, leaf, outcome_of, part_of, left)
        return pending


cdef class Frontier:
    """The Merkle tree of RFC 6962 over leaf hashes, as the roots of the perfect subtrees that its size splits into."""

    cdef imd_tree tree

    def __cinit__(self):
        self.tree.size = 0

    def __init__(self, leaves=()):
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self):
        """How many leaves it has."""
        return self.tree.size

    def append(self, bytes leaf not None):
        """Add the next leaf hash, 32 bytes."""
        if len(leaf) != 32:
            raise ValueError("a leaf hash is 32 bytes")
        imd_tree_extend(&self.tree, <const uint8_t *>PyBytes_AS_STRING(leaf), 1)

    def extend(self, bytes leaves not None):
        """Add the next leaf hashes, 32 bytes each, one after the other. The GIL is given up meanwhile; who looks then
        sees the tree as it was."""
        cdef imd_tree grown = self.tree
        cdef const uint8_t *each = <const uint8_t *>PyBytes_AS_STRING(leaves)
        cdef size_t count = <size_t>(len(leaves) // 32)
        if len(leaves) % 32 != 0:
            raise ValueError("leaf hashes are 32 bytes each")
        with nogil:
            imd_tree_extend(&grown, each, count)
        self.tree = grown

    def root(self):
        """The tree's head at the present size, 32 bytes."""
        cdef uint8_t root[32]
        if self.tree.size == 0:
            return EMPTY_ROOT
        imd_tree_root(&self.tree, root)
        return root[:32]

    def roots(self):
        """The perfect subtrees' roots, 32 bytes each, of the largest first: one for each bit set in `size`."""
        return tuple([self.tree.roots[at][:32] for at in range(self.tree.size.bit_count())])

    @staticmethod
    def resumed(size, roots):
        """The tree of `size` leaves whose `roots()` these are. Raises ValueError where they cannot be."""
        cdef Frontier made = Frontier()
        cdef list held = list(roots)
        cdef bytes root
        cdef size_t at = 0
        if not 0 <= size < 1 << 63 or size.bit_count() != len(held):
            raise ValueError(f"a tree of {size} leaves does not have {len(held)} roots")
        for root in held:
            if root is None or len(root) != 32:
                raise ValueError("a root is 32 bytes")
            memcpy(made.tree.roots[at], PyBytes_AS_STRING(root), 32)
            at += 1
        made.tree.size = size
        return made

    def copy(self):
        """An independent one of the same tree."""
        cdef Frontier other = Frontier()
        other.tree = self.tree
        return other


from hashlib import sha256 as _sha256

EMPTY_ROOT = _sha256(b"").digest()
