"""The compiler says what its rules mean: checked against a model, call by call."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured import _core
from tests.seccomp import model
from tests.seccomp.model import AARCH64, ALL, ALLOW, KILL, LOW, X86_64, Rule, errno_action

FALLBACK, UNKNOWN = errno_action(1), errno_action(38)


def compiled(rules: list[Rule], architecture: int = X86_64) -> bytes:
    return _core.seccomp_compile(architecture, rules, fallback=FALLBACK, unknown=UNKNOWN, foreign=KILL)


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from([X86_64, AARCH64]))
def test_a_filter_answers_as_the_model_does(data: st.DataObject, architecture: int) -> None:
    rules = data.draw(model.rules())
    program = compiled(rules, architecture)
    named = st.sampled_from(sorted({rule[0] for rule in rules} or {0}))
    for _ in range(8):
        number = data.draw(st.one_of(named, named.map(lambda n: n + 1), st.integers(0, LOW), st.just(LOW)))
        arguments = data.draw(model.arguments_near([rule for rule in rules if rule[0] == number]))
        expected = model.verdict(
            rules, number, arguments, fallback=FALLBACK, unknown=UNKNOWN, foreign=KILL, x86=architecture == X86_64
        )
        assert _core.seccomp_evaluate(program, architecture, number, arguments) == expected


@given(model.conditions(), st.data())
def test_one_condition_means_what_it_says(condition: model.Condition, data: st.DataObject) -> None:
    program = compiled([(7, ALLOW, (condition,))])
    arguments = data.draw(model.arguments_near([(7, ALLOW, (condition,))]))
    allowed = _core.seccomp_evaluate(program, X86_64, 7, arguments) == ALLOW
    assert allowed == model.holds(condition, arguments)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_code_that_is_shared_and_shortened_answers_as_the_model_does(data: st.DataObject) -> None:
    """Few conditions for many calls: the same lists of rules again and again, the same words loaded after another."""
    pool = data.draw(st.lists(model.conditions(), min_size=1, max_size=4))
    some = st.lists(st.sampled_from(pool), max_size=3).map(tuple)
    lists = data.draw(
        st.lists(st.lists(st.tuples(model.ACTIONS, some), min_size=1, max_size=4), min_size=1, max_size=3)
    )
    chosen = data.draw(st.lists(st.sampled_from(lists), min_size=1, max_size=60))
    rules: list[Rule] = [(number, *rule) for number, listed in enumerate(chosen) for rule in listed]
    program = compiled(rules)
    for number in range(len(chosen) + 2):
        arguments = data.draw(model.arguments_near(rules))
        expected = model.verdict(rules, number, arguments, fallback=FALLBACK, unknown=UNKNOWN, foreign=KILL, x86=True)
        assert _core.seccomp_evaluate(program, X86_64, number, arguments) == expected


@pytest.mark.parametrize("architecture", [X86_64, AARCH64])
@given(other=st.integers(0, LOW))
def test_another_architectures_call_kills(architecture: int, other: int) -> None:
    program = compiled([(0, ALLOW, ())], architecture)
    expected = ALLOW if other == architecture else KILL
    assert _core.seccomp_evaluate(program, other, 0) == expected


def test_x32_kills_on_x86_64() -> None:
    program = compiled([(n, ALLOW, ()) for n in range(600)])
    assert {_core.seccomp_evaluate(program, X86_64, 0x4000_0000 | n) for n in range(600)} == {KILL}


def test_a_skipped_call_is_unknown_not_foreign() -> None:
    assert _core.seccomp_evaluate(compiled([]), X86_64, LOW) == UNKNOWN


def test_numbers_beyond_the_rules_are_unknown() -> None:
    program = compiled([(n, ALLOW, ()) for n in range(10)])
    assert {_core.seccomp_evaluate(program, X86_64, n) for n in range(10, 2000)} == {UNKNOWN}


def test_an_int_argument_is_seen_as_the_kernel_takes_it() -> None:
    """Junk above the low 32 bits of an int changes nothing: neither lets through nor refuses."""
    refused = compiled([(16, ALLOW, ((1, _core.COMPARE_NE, 0x5412, LOW),))])
    assert _core.seccomp_evaluate(refused, X86_64, 16, (0, 0x5412 | 1 << 32)) == FALLBACK


def test_a_wide_argument_is_seen_whole() -> None:
    program = compiled([(16, ALLOW, ((1, _core.COMPARE_EQ | _core.COMPARE_WIDE, 5, ALL),))])
    assert _core.seccomp_evaluate(program, X86_64, 16, (0, 5 | 1 << 32)) == FALLBACK


def test_every_jump_reaches_across_a_large_filter() -> None:
    """Far more than 255 instructions lie between the search's top and its ends."""
    rules: list[Rule] = [
        (number, errno_action(number % 100 + 1), ((0, _core.COMPARE_EQ | _core.COMPARE_WIDE, number, ALL),))
        for number in range(500)
    ]
    program = compiled(rules)
    answers = [_core.seccomp_evaluate(program, X86_64, n, (n,)) for n in range(500)]
    assert answers == [errno_action(n % 100 + 1) for n in range(500)]


def test_a_program_that_the_kernel_would_not_take_is_refused() -> None:
    wide_range = _core.COMPARE_IN | _core.COMPARE_WIDE
    with pytest.raises(ValueError, match="more instructions than the kernel takes"):
        compiled([(number, ALLOW, ((0, wide_range, number, ALL - 1),) * 8) for number in range(400)])


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ((0, ALLOW, ((6, _core.COMPARE_EQ, 0, LOW),)), "six arguments"),
        ((0, ALLOW, ((0, 0, 0, LOW),)), "unknown comparison"),
        ((0, ALLOW, ((0, 9, 0, LOW),)), "unknown comparison"),
        ((0, ALLOW, ((0, _core.COMPARE_EQ, 1 << 32, ALL),)), "wider than the 32 bits"),
        ((0, ALLOW, ((0, _core.COMPARE_EQ, 3, 1),)), "bits that its mask clears"),
        ((0, ALLOW, ((0, _core.COMPARE_IN, 3, 1),)), "range is empty"),
        ((0x4000_0000, ALLOW, ()), "no system call has such a number"),
        ((0, ALLOW, ((0, _core.COMPARE_EQ, 0, LOW),) * 17), "at most 16 conditions"),
    ],
)
def test_a_malformed_rule_is_named(rule: Rule, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compiled([rule])


def length(rules: list[Rule]) -> int:
    return len(compiled(rules)) // 8


def test_neighbours_with_one_verdict_cost_what_one_costs() -> None:
    chmod = (0, _core.COMPARE_EQ, 0, 0o6000)
    assert length([(n, ALLOW, (chmod,)) for n in range(5, 300)]) == length([(n, ALLOW, (chmod,)) for n in (5, 6)])


def test_rules_met_again_elsewhere_are_not_made_again() -> None:
    """One comparison and at most one jump a call, instead of its seven instructions."""
    guard = tuple((n, _core.COMPARE_NE, n, LOW) for n in range(3))
    once = length([(n, errno_action(n + 2), ()) for n in range(100)])
    every_tenth: list[Rule] = [(n, ALLOW, guard) if n % 10 == 5 else (n, errno_action(n + 2), ()) for n in range(100)]
    assert length(every_tenth) <= once + 7 + 10


def test_a_single_call_among_others_costs_one_comparison() -> None:
    allowed: list[Rule] = [(n, ALLOW, ()) for n in range(300)]
    with_one = [rule if rule[0] != 150 else (150, FALLBACK, ()) for rule in allowed]
    assert length(with_one) == length(allowed) + 2  # and its return


def test_a_word_is_loaded_once_for_comparisons_in_a_row() -> None:
    one: list[Rule] = [(16, ALLOW, ((1, _core.COMPARE_NE, 1, LOW),))]
    four: list[Rule] = [(16, ALLOW, tuple((1, _core.COMPARE_NE, n, LOW) for n in range(1, 5)))]
    assert length(four) == length(one) + 3


def test_a_masked_word_is_loaded_once_for_kinds_in_a_row() -> None:
    kinds: list[Rule] = [(133, ALLOW, ((1, _core.COMPARE_EQ, kind << 12, 0o170000),)) for kind in (8, 1, 12)]
    assert length(kinds) == length(kinds[:1]) + 2


@st.composite
def close_conditions(draw: st.DrawFn) -> model.Condition:
    """About one argument and few values: most of them say something of most others."""
    wide = draw(st.sampled_from([0, _core.COMPARE_WIDE]))
    kind = draw(st.integers(_core.COMPARE_EQ, _core.COMPARE_IN))
    one, two = draw(st.integers(0, 7)), draw(st.integers(0, 7))
    edge = draw(st.sampled_from([0, 0, 0, (ALL if wide else LOW) - 7, 1 << 32 if wide else 0]))
    if kind in (_core.COMPARE_EQ, _core.COMPARE_NE):
        mask = draw(st.sampled_from([ALL if wide else LOW, 7, 6, 3, 1, LOW]))
        return 0, kind | wide, (one + edge) & mask, mask
    return 0, kind | wide, min(one, two) + edge, max(one, two) + edge


@settings(deadline=None, max_examples=1000)
@given(st.lists(st.tuples(model.ACTIONS, st.lists(close_conditions(), max_size=4).map(tuple)), min_size=1, max_size=6))
def test_what_one_condition_says_of_another_changes_no_answer(
    listed: list[tuple[int, tuple[model.Condition, ...]]],
) -> None:
    rules: list[Rule] = [(5, *rule) for rule in listed]
    program = compiled(rules)
    for value in (*range(9), *range(LOW - 8, LOW + 10), *range(ALL - 8, ALL + 1)):
        expected = model.verdict(rules, 5, (value,) * 6, fallback=FALLBACK, unknown=UNKNOWN, foreign=KILL, x86=True)
        assert _core.seccomp_evaluate(program, X86_64, 5, (value,)) == expected, hex(value)


EQUAL, UNEQUAL, BELOW, AMONG = _core.COMPARE_EQ, _core.COMPARE_NE, _core.COMPARE_LT, _core.COMPARE_IN


@pytest.mark.parametrize(
    "extra",
    [
        (ALLOW, ((0, EQUAL, 1, LOW), (0, EQUAL, 2, LOW))),  # both at once is impossible
        (ALLOW, ((0, EQUAL, 6, 6), (0, BELOW, 0, 0))),  # nothing is below 0
        (ALLOW, ((0, EQUAL, 0, 7),)),  # the first rule has had it
        (FALLBACK, ((0, AMONG, 9, 10),)),  # as where no rule holds
    ],
)
def test_a_rule_that_cannot_matter_costs_nothing(extra: tuple[int, tuple[model.Condition, ...]]) -> None:
    first: list[Rule] = [(5, errno_action(7), ((0, EQUAL, 0, 3),))]
    assert length([*first, (5, *extra)]) == length(first)


@pytest.mark.parametrize("implied", [(0, EQUAL, 4, 4), (0, UNEQUAL, 9, LOW), (0, BELOW, 6, 0), (0, AMONG, 5, 6)])
def test_a_condition_that_an_earlier_one_decides_costs_nothing(implied: model.Condition) -> None:
    assert length([(5, ALLOW, ((0, EQUAL, 5, LOW), implied))]) == length([(5, ALLOW, ((0, EQUAL, 5, LOW),))])


def test_rules_that_decide_nothing_cost_nothing() -> None:
    condition = (0, _core.COMPARE_EQ, 1, LOW)
    bare: list[Rule] = [(5, ALLOW, (condition,))]
    assert length([*bare, (5, FALLBACK, (condition,)), (5, FALLBACK, ()), (5, ALLOW, ())]) == length(bare)


def test_too_many_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 2048 rules"):
        compiled([(0, ALLOW, ())] * 2049)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="architecture"):
        compiled([], 0x40000003)


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        compiled([(number, ALLOW, ())])


def instruction(code: int, jt: int = 0, jf: int = 0, k: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jt, jf, k)


RETURN = instruction(0x06, k=ALLOW)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        RETURN[:-1],
        instruction(0x20, k=0),  # falls off the end
        instruction(0x20, k=64) + RETURN,  # a load past seccomp_data
        instruction(0x20, k=2) + RETURN,  # a load across a word
        instruction(0x28, k=0) + RETURN,  # half-word loads are for sockets
        instruction(0x05, k=1) + RETURN,  # a jump past the end
        instruction(0x05, k=LOW) + RETURN,  # a jump backwards
        instruction(0x15, jt=0, jf=1) + RETURN,
        instruction(0x34, k=0) + RETURN,  # division by zero
        instruction(0x64, k=32) + RETURN,  # a shift by the whole word
        instruction(0x02, k=16) + RETURN,  # a seventeenth memory cell
        instruction(0x60, k=0) + RETURN,  # a memory cell that nothing wrote
        instruction(0x15, jt=1) + instruction(0x02) + instruction(0x60) + RETURN,  # one way past the write
        instruction(0x94, k=1) + RETURN,  # modulo is not for seccomp
        RETURN * 4097,
    ],
)
def test_the_interpreter_refuses_what_the_kernel_refuses(program: bytes) -> None:
    with pytest.raises(ValueError, match=r"instruction|program"):
        _core.seccomp_evaluate(program, X86_64, 0)


@given(st.binary(max_size=400))
def test_the_interpreter_survives_any_bytes(program: bytes) -> None:
    try:
        answer = _core.seccomp_evaluate(program, X86_64, 0)
    except ValueError:
        return
    assert 0 <= answer <= LOW
