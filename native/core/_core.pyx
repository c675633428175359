# cython: language_level=3, binding=True, boundscheck=True, wraparound=False
"""The part of immured that is worth C: packing plans and compiling system-call filters."""

from operator import itemgetter

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
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

cdef extern from "seccomp.h":
    enum:
        IMD_SECCOMP_ARGUMENTS
        IMD_SECCOMP_MAX_CONDITIONS
        IMD_SECCOMP_MAX_RULES
        IMD_SECCOMP_MAX_TABLE
        IMD_SECCOMP_MAX_INSTRUCTIONS
        IMD_SECCOMP_RULES
        IMD_COMPARE_EQ
        IMD_COMPARE_NE
        IMD_COMPARE_LT
        IMD_COMPARE_LE
        IMD_COMPARE_GT
        IMD_COMPARE_GE
        IMD_COMPARE_IN
        IMD_COMPARE_WIDE
    struct sock_filter:
        pass
    struct seccomp_data:
        int nr
        uint32_t arch
        uint64_t instruction_pointer
        uint64_t args[6]
    struct imd_condition:
        uint32_t argument, compare
        uint64_t value, mask
    struct imd_rule:
        uint32_t number, action, first, conditions
    struct imd_filter:
        uint32_t architecture, fallback, unknown, foreign
        const imd_rule *rule
        size_t rules
        const imd_condition *condition
        size_t conditions
    struct imd_seccomp_error:
        int stage
        size_t index
        const char *text
    int imd_seccomp_compile(const imd_filter *, sock_filter *, size_t, size_t *, imd_seccomp_error *) nogil
    int imd_seccomp_check(const sock_filter *, size_t, imd_seccomp_error *) nogil
    uint32_t imd_seccomp_run(const sock_filter *, size_t, const seccomp_data *, size_t *) nogil

COMPARE_EQ = IMD_COMPARE_EQ
COMPARE_NE = IMD_COMPARE_NE
COMPARE_LT = IMD_COMPARE_LT
COMPARE_LE = IMD_COMPARE_LE
COMPARE_GT = IMD_COMPARE_GT
COMPARE_GE = IMD_COMPARE_GE
COMPARE_IN = IMD_COMPARE_IN
COMPARE_WIDE = IMD_COMPARE_WIDE

NUMBER = itemgetter(0)

cdef enum:
    MAX_COUNT = 0xffff


cdef inline size_t string_space(size_t length) noexcept:
    """Length field, bytes, at least one NUL, up to a multiple of eight."""
    return (sizeof(uint32_t) + length + 1 + 7) & ~<size_t>7


cdef size_t plan_space(list steps) except 0:
    """The packed plan's length; every bound is checked here."""
    cdef size_t total = sizeof(imd_plan)
    if len(steps) > IMD_MAX_STEPS:
        raise ValueError(f"a plan holds at most {IMD_MAX_STEPS} steps, not {len(steps)}")
    for position, item in enumerate(steps):
        if not isinstance(item, tuple) or len(item) != 3:
            raise TypeError(f"step {position}: (op, numbers, strings) expected, not {item!r:.80}")
        op, numbers, strings = item
        if not isinstance(numbers, tuple) or not isinstance(strings, tuple):
            raise TypeError(f"step {position}: numbers and strings are tuples")
        if len(numbers) > MAX_COUNT or len(strings) > MAX_COUNT:
            raise ValueError(f"step {position}: at most {MAX_COUNT} numbers and strings")
        total += sizeof(imd_step) + sizeof(uint64_t) * <size_t>len(numbers)
        for text in strings:
            if type(text) is not bytes:
                raise TypeError(f"step {position}: strings are bytes, not {type(text).__name__}")
            if PyBytes_GET_SIZE(text) > IMD_MAX_STRING:
                raise ValueError(f"step {position}: a string of {len(text)} bytes is over {IMD_MAX_STRING}")
            total += string_space(<size_t>PyBytes_GET_SIZE(text))
        if total > IMD_MAX_PLAN:
            raise ValueError(f"step {position}: the plan is over {IMD_MAX_PLAN} bytes")
    return total


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
    cdef size_t total = plan_space(items)
    cdef size_t at = sizeof(imd_plan)
    cdef imd_plan head
    cdef imd_step step
    cdef uint64_t number
    cdef uint32_t length
    cdef bytes packed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
    cdef char *out = PyBytes_AS_STRING(packed)

    memset(out, 0, total)
    head.magic = IMD_PLAN_MAGIC
    head.version = IMD_PROTOCOL_VERSION
    head.steps = <uint32_t>len(items)
    head.length = <uint32_t>total
    memcpy(out, &head, sizeof(head))
    for op, numbers, strings in items:
        step.op = op
        step.numbers = <uint16_t>len(numbers)
        step.strings = <uint16_t>len(strings)
        memcpy(out + at, &step, sizeof(step))
        at += sizeof(step)
        for value in numbers:
            number = value
            memcpy(out + at, &number, sizeof(number))
            at += sizeof(number)
        for text in strings:
            length = <uint32_t>PyBytes_GET_SIZE(text)
            memcpy(out + at, &length, sizeof(length))
            memcpy(out + at + sizeof(length), PyBytes_AS_STRING(text), length)
            at += string_space(length)
    return packed


cdef size_t count_conditions(list rules) except? 0:
    """How many conditions the rules have together; the bounds are checked here."""
    cdef size_t total = 0
    if len(rules) > IMD_SECCOMP_MAX_RULES:
        raise ValueError(f"at most {IMD_SECCOMP_MAX_RULES} rules, not {len(rules)}")
    for number, _, conditions in rules:
        if len(conditions) > IMD_SECCOMP_MAX_CONDITIONS:
            raise ValueError(f"system call {number}: at most {IMD_SECCOMP_MAX_CONDITIONS} conditions a rule")
        total += <size_t>len(conditions)
    if total > IMD_SECCOMP_MAX_TABLE:
        raise ValueError(f"at most {IMD_SECCOMP_MAX_TABLE} conditions, not {total}")
    return total


cdef int fill_rules(list rules, imd_rule *rule, imd_condition *table) except -1:
    cdef size_t used = 0
    for number, action, conditions in rules:
        rule.number = number
        rule.action = action
        rule.first = <uint32_t>used
        for argument, compare, value, mask in conditions:
            table[used].argument = argument
            table[used].compare = compare
            table[used].value = value
            table[used].mask = mask
            used += 1
        rule.conditions = <uint32_t>used - rule.first
        rule += 1
    return 0


def seccomp_compile(architecture, rules, *, fallback, unknown, foreign) -> bytes:
    """Compile rules into a filter: `struct sock_filter[]` for seccomp(2).

    Args:
        architecture: AUDIT_ARCH_X86_64 or AUDIT_ARCH_AARCH64.
        rules: `(number, action, conditions)` in any order of numbers; of one number's rules the first whose conditions
            all hold decides. A condition is `(argument, compare, value, mask)`: argument 0 to 5; compare one of COMPARE_*,
            unsigned over the low 32 bits, or over all 64 when or-ed with COMPARE_WIDE; `mask` is and-ed first for EQ
            and NE, the upper end for IN, unused elsewhere.
        fallback: the action where no rule of a number holds.
        unknown: the action for numbers without rules.
        foreign: the action for another architecture's calls and for x32.

    Returns:
        The program, at most 4096 instructions of 8 bytes.

    Raises:
        ValueError: a rule is malformed (it is named) or the program too long.
        OverflowError: a number does not fit.
    """
    cdef list ordered = sorted(rules, key=NUMBER)
    cdef size_t count = <size_t>len(ordered)
    cdef size_t total = count_conditions(ordered)
    cdef imd_filter filter
    cdef imd_seccomp_error error
    cdef size_t length = 0
    cdef imd_rule *rule = NULL
    cdef imd_condition *condition = NULL
    cdef sock_filter *code = NULL

    try:
        rule = <imd_rule *>calloc(count + 1, sizeof(imd_rule))
        condition = <imd_condition *>calloc(total + 1, sizeof(imd_condition))
        code = <sock_filter *>calloc(IMD_SECCOMP_MAX_INSTRUCTIONS, sizeof(sock_filter))
        if rule == NULL or condition == NULL or code == NULL:
            raise MemoryError
        fill_rules(ordered, rule, condition)
        filter.architecture = architecture
        filter.fallback = fallback
        filter.unknown = unknown
        filter.foreign = foreign
        filter.rule = rule
        filter.rules = count
        filter.condition = condition
        filter.conditions = total
        if imd_seccomp_compile(&filter, code, IMD_SECCOMP_MAX_INSTRUCTIONS, &length, &error) != 0:
            text = (<bytes>error.text).decode()
            if error.stage == IMD_SECCOMP_RULES and error.index < count:
                raise ValueError(f"system call {rule[error.index].number}: {text}")
            raise ValueError(text)
        return PyBytes_FromStringAndSize(<char *>code, <Py_ssize_t>(length * sizeof(sock_filter)))
    finally:
        free(rule)
        free(condition)
        free(code)


cdef size_t instructions_of(bytes code) except 0:
    """How many instructions a program has that the kernel would take."""
    cdef imd_seccomp_error error
    cdef size_t count = <size_t>PyBytes_GET_SIZE(code) // sizeof(sock_filter)
    if count == 0 or <size_t>PyBytes_GET_SIZE(code) % sizeof(sock_filter) != 0:
        raise ValueError("a program is a whole number of instructions, at least one")
    if imd_seccomp_check(<const sock_filter *>PyBytes_AS_STRING(code), count, &error) != 0:
        raise ValueError(f"instruction {error.index}: {(<bytes>error.text).decode()}")
    return count


def seccomp_trace(program, architecture, number, arguments=(), *, instruction_pointer=0) -> tuple:
    """What a filter returns for one system call, without asking the kernel, and after how many instructions.

    Args:
        program: `struct sock_filter[]` as bytes.
        architecture: AUDIT_ARCH_* of the call.
        number: the system call's number, 0 to 2**32 - 1.
        arguments: up to six ints, 0 to 2**64 - 1; missing ones are 0.
        instruction_pointer: where the call is made from.

    Returns:
        `(action, steps)`: SECCOMP_RET_* with its data, and the instructions that were executed, the return included.

    Raises:
        ValueError: the kernel would not take this program (the instruction is named), or there are too many arguments.
        OverflowError: a number does not fit.
    """
    cdef bytes code = bytes(program)  # whose bytes are aligned
    cdef seccomp_data data
    cdef uint32_t unsigned_number = number
    cdef size_t index = 0
    cdef size_t steps = 0
    cdef size_t count = instructions_of(code)

    if len(arguments) > IMD_SECCOMP_ARGUMENTS:
        raise ValueError(f"a system call has {IMD_SECCOMP_ARGUMENTS} arguments")
    memset(&data, 0, sizeof(data))
    data.nr = <int>unsigned_number
    data.arch = architecture
    data.instruction_pointer = instruction_pointer
    for argument in arguments:
        data.args[index] = argument
        index += 1
    action = imd_seccomp_run(<const sock_filter *>PyBytes_AS_STRING(code), count, &data, &steps)
    return action, steps


def seccomp_evaluate(program, architecture, number, arguments=(), *, instruction_pointer=0) -> int:
    """What a filter returns for one system call: `seccomp_trace` without the count."""
    return seccomp_trace(program, architecture, number, arguments, instruction_pointer=instruction_pointer)[0]
