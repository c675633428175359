# cython: language_level=3, binding=True
"""The part of immured that is worth C: packing plans and compiling system-call filters."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef extern from "protocol.h":
    enum:
        IMD_PROTOCOL_VERSION
        IMD_MAX_PLAN
        IMD_MAX_STEPS
        IMD_MAX_STRING
        IMD_PLAN_MAGIC
    struct imd_plan:
        uint32_t magic, version, steps, length
    struct imd_step:
        uint32_t op
        uint16_t numbers, strings

cdef enum:
    MAX_COUNT = 0xffff


cdef inline size_t string_space(size_t length) noexcept:
    """Length field, bytes, at least one NUL, up to a multiple of eight."""
    return (sizeof(uint32_t) + length + 1 + 7) & ~<size_t>7


def pack_plan(steps) -> bytes:
    """Pack steps into the binary plan that the launcher interprets (native/launcher/protocol.h).

    Args:
        steps: a sequence of `(op, numbers, strings)`: an int below 2**32, a tuple of ints below 2**64, a tuple of bytes.

    Returns:
        The plan: header, then every step, 8-aligned, in the machine's byte order.

    Raises:
        TypeError: an element is of another type than the above.
        ValueError: too many steps, numbers or strings, a string or the plan too long.
        OverflowError: a number is negative or too large.
    """
    cdef list items = list(steps)
    cdef Py_ssize_t count = len(items)
    cdef size_t total = sizeof(imd_plan)
    cdef size_t at
    cdef tuple entry, numbers, strings
    cdef bytes text
    cdef imd_plan head
    cdef imd_step step
    cdef uint64_t number
    cdef uint32_t length
    cdef char *out

    if count > IMD_MAX_STEPS:
        raise ValueError(f"a plan holds at most {IMD_MAX_STEPS} steps, not {count}")
    for position in range(count):
        item = items[position]
        if not isinstance(item, tuple) or len(item) != 3:
            raise TypeError(f"step {position}: (op, numbers, strings) expected, not {item!r:.80}")
        op, given_numbers, given_strings = item
        if not isinstance(given_numbers, tuple) or not isinstance(given_strings, tuple):
            raise TypeError(f"step {position}: numbers and strings are tuples")
        if len(given_numbers) > MAX_COUNT or len(given_strings) > MAX_COUNT:
            raise ValueError(f"step {position}: at most {MAX_COUNT} numbers and strings")
        total += sizeof(imd_step) + 8 * <size_t>len(given_numbers)
        for given in given_strings:
            if type(given) is not bytes:
                raise TypeError(f"step {position}: strings are bytes, not {type(given).__name__}")
            if PyBytes_GET_SIZE(given) > IMD_MAX_STRING:
                raise ValueError(f"step {position}: a string of {len(given)} bytes is over {IMD_MAX_STRING}")
            total += string_space(<size_t>PyBytes_GET_SIZE(given))
        if total > IMD_MAX_PLAN:
            raise ValueError(f"step {position}: the plan is over {IMD_MAX_PLAN} bytes")

    packed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
    out = PyBytes_AS_STRING(packed)
    memset(out, 0, total)
    head.magic = IMD_PLAN_MAGIC
    head.version = IMD_PROTOCOL_VERSION
    head.steps = <uint32_t>count
    head.length = <uint32_t>total
    memcpy(out, &head, sizeof(head))
    at = sizeof(head)
    for item in items:
        entry = item
        numbers = entry[1]
        strings = entry[2]
        step.op = entry[0]
        step.numbers = <uint16_t>len(numbers)
        step.strings = <uint16_t>len(strings)
        memcpy(out + at, &step, sizeof(step))
        at += sizeof(step)
        for value in numbers:
            number = value
            memcpy(out + at, &number, sizeof(number))
            at += sizeof(number)
        for given in strings:
            text = given
            length = <uint32_t>PyBytes_GET_SIZE(text)
            memcpy(out + at, &length, sizeof(length))
            memcpy(out + at + sizeof(length), PyBytes_AS_STRING(text), length)
            at += string_space(length)
    return packed
