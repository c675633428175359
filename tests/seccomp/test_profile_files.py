"""A profile's file is read strictly, and what it says stands under the walls."""

from __future__ import annotations

import errno
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured import _core
from immured._abi import lib
from immured.errors import Refused
from immured.isolation import syscalls
from immured.isolation.profiles import Profile, Profiles, parse_profile, permits
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile, compile_uncached
from immured.isolation.syscalls import Architecture, Rule
from tests.seccomp import model
from tests.seccomp.model import ALLOW, KILL, KILL_THREAD, LOG, NOTIFY, TRAP, errno_action

EPERM, ENOSYS = errno_action(errno.EPERM), errno_action(errno.ENOSYS)
NEEDED = sorted(syscalls.walls().needed)
HEAD = f"schema = 1\ncalls = {NEEDED}\n"


def installed(text: str) -> Profiles:
    return Profiles(MappingProxyType({"mine": parse_profile("mine", text)}))


def verdict(text: str, call: str, *arguments: int, explain: bool = False) -> int:
    program = compile_profile("mine", arch="x86_64", profiles=installed(text), explain=explain)
    return _core.seccomp_evaluate(program, AUDIT_ARCH["x86_64"], syscalls.numbers("x86_64")[call], arguments)


@pytest.mark.parametrize(
    ("then", "action"),
    [
        ("allow", ALLOW),
        ("log", LOG),
        ("trap", TRAP),
        ("kill", KILL),
        ("kill_thread", KILL_THREAD),
        ("errno:EIO", errno_action(errno.EIO)),
    ],
)
def test_a_rule_gives_every_action(then: str, action: int) -> None:
    text = HEAD + f'[[rules]]\ncalls = ["lseek"]\nwhen = ["arg2 == 1"]\nthen = "{then}"\n'
    assert verdict(text, "lseek", 3, 0, 1) == action
    assert verdict(text, "lseek", 3, 0, 2) == EPERM


def test_the_first_rule_that_holds_decides() -> None:
    text = HEAD + "".join(
        f'[[rules]]\ncalls = ["getpid", "lseek"]\nwhen = ["arg0 {when}"]\nthen = "{then}"\n'
        for when, then in (("< 5", "errno:EIO"), ("in 3..9", "log"), ("!= 20", "allow"))
    )
    answers = [verdict(text, "lseek", value) for value in (4, 5, 9, 10, 20)]
    assert answers == [errno_action(errno.EIO), LOG, LOG, ALLOW, EPERM]


@pytest.mark.parametrize(
    ("default", "known", "unknown"),
    [
        ("errno:ENOSYS", ENOSYS, ENOSYS),
        ("errno:EACCES", errno_action(errno.EACCES), ENOSYS),
        ("allow", ALLOW, ENOSYS),
        ("log", LOG, ENOSYS),
        ("kill", KILL, KILL),
        ("trap", TRAP, TRAP),
    ],
)
def test_the_default_answers_what_is_not_named(default: str, known: int, unknown: int) -> None:
    text = HEAD + f'default = "{default}"\n'
    assert verdict(text, "lseek") == known
    program = compile_profile("mine", arch="x86_64", profiles=installed(text))
    assert _core.seccomp_evaluate(program, AUDIT_ARCH["x86_64"], 4000) == unknown


@pytest.mark.parametrize("call", sorted(syscalls.walls().never))
def test_a_profile_that_allows_by_default_does_not_allow_what_no_profile_gives(call: str) -> None:
    assert verdict(HEAD + 'default = "allow"\n', call) == EPERM


def test_a_guard_stands_over_a_profiles_own_rule() -> None:
    text = HEAD + '[[rules]]\ncalls = ["socket"]\nwhen = ["arg0 in 1..16"]\nthen = "log"\n'
    assert verdict(text, "socket", 1) == LOG
    assert verdict(text, "socket", 16, 3, 9) == errno_action(errno.EPROTONOSUPPORT)  # the guard's word
    assert verdict(text, "socket", 38) == EPERM


def test_a_manifest_may_allow_and_deny_beside_an_installed_profile() -> None:
    profiles = installed(HEAD + '[[rules]]\ncalls = ["lseek"]\nwhen = ["arg2 == 1"]\nthen = "allow"\n')
    program = compile_profile("mine", ["lseek"], ["pread64"], "x86_64", profiles=profiles)
    numbers = syscalls.numbers("x86_64")
    assert _core.seccomp_evaluate(program, AUDIT_ARCH["x86_64"], numbers["lseek"], (0, 0, 2)) == ALLOW
    assert _core.seccomp_evaluate(program, AUDIT_ARCH["x86_64"], numbers["pread64"]) == EPERM


def test_an_unknown_profile_names_the_installed_ones() -> None:
    with pytest.raises(Refused) as refusal:
        compile_profile("mien", profiles=installed(HEAD))
    assert refusal.value.remedy == "did you mean mine?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("calls = [", "Invalid|Unclosed"),
        ("schema = 2\n", "schema is 2"),
        (HEAD + "abuot = 'x'\n", "unknown name 'abuot', did you mean about?"),
        (HEAD + "about = 1\n", "about is text"),
        (HEAD + "groups = ['fils']\n", "fils is not a group, did you mean files?"),
        (HEAD + "groups = 'files'\n", "groups is a list"),
        ("schema = 1\ncalls = ['opn']\n", "opn is not a system call, did you mean open?"),
        ("schema = 1\ncalls = ['open', 'open']\n", "twice"),
        ("schema = 1\ncalls = []\n", "no program runs without clock_gettime"),
        ("schema = true\n", "schema is True, not 1"),
        (HEAD + "about = " + "[" * 9000, "nested too deeply"),
        (HEAD + "about = " + "9" * 9000, "4300 digits"),
        (
            HEAD + "[[rules]]\ncalls = ['lseek']\nwhen = ['arg0:64 == 0x1ffffffffffffffff']\nthen = 'log'\n",
            "more than 64 bits",
        ),
        (HEAD.replace("]", ", 'mount']"), "no profile can allow mount"),
        (HEAD.replace("]", ", 'openat2']"), "no profile can allow openat2"),
        (HEAD + "default = 'notify'\n", "nobody listens"),
        (HEAD + "default = 'deny'\n", "'deny' is not an action"),
        (HEAD + "rules = 1\n", "rules is a list of tables"),
        (HEAD + "[[rules]]\ncalls = ['lseek']\nwhen = ['arg0 = 1']\nthen = 'allow'\n", "'arg0 = 1' is not a condition"),
        (HEAD + "[[rules]]\ncalls = ['lseek']\nif = []\nthen = 'allow'\n", "unknown name 'if'"),
        (HEAD + "[[rules]]\ncalls = ['lseek']\n", "then is text"),
        (HEAD + "[[rules]]\nthen = 'allow'\n", "calls is a list"),
        (HEAD + "[[rules]]\ncalls = ['bpf']\nthen = 'log'\n", "no profile can allow bpf"),
        (HEAD + "[[rules]]\ncalls = ['read']\nthen = 'log'\n", "read is in calls as well"),
        ("schema = 1\ngroups = ['files']\n[[rules]]\ncalls = ['read']\nthen = 'allow'\n", "no program runs without"),
        (
            HEAD + f"[[rules]]\ncalls = ['lseek']\nwhen = {[f'arg0 != {n}' for n in range(9)]}\nthen = 'log'\n",
            "at most 8",
        ),
        (HEAD + "[[rules]]\ncalls = ['lseek']\nthen = 'log'\n" * 65, "more than 64 rules"),
    ],
)
def test_a_fault_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_profile("mine", text)


def test_the_documents_example_is_a_profile() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "syscalls.md").read_text()
    example = next(block for block in text.split("```toml\n") if block.startswith("schema = 1"))
    profile = parse_profile("example", example.partition("```")[0])
    assert set(profile.rules) == {"sync", "syncfs", "sched_setaffinity"}


def test_more_rules_than_a_filter_holds_are_refused() -> None:
    calls = sorted(syscalls.groups()["files"] - set(NEEDED))
    rules = "".join(
        f"[[rules]]\ncalls = {calls}\nwhen = ['arg{n % 6}:64 in {n}..{1 << 40 | n}']\nthen = 'errno:EIO'\n"
        for n in range(60)
    )
    with pytest.raises(Refused, match="does not compile"):
        compile_profile("mine", profiles=installed(HEAD + rules))


CALLS = sorted(syscalls.names() - syscalls.walls().needed)
ACTIONS = st.sampled_from([ALLOW, LOG, TRAP, KILL, KILL_THREAD, EPERM, ENOSYS, errno_action(errno.EIO)])
RULES = st.lists(st.builds(Rule, st.lists(model.conditions(), max_size=3).map(tuple), ACTIONS), min_size=1, max_size=3)


def asked(profile: Profile, call: str, arguments: tuple[int, ...]) -> int:
    """What the profile's file says, by itself."""
    if call not in profile.rules:
        return ALLOW if call in profile.calls else profile.default
    for rule in profile.rules[call]:
        if all(model.holds(condition, arguments) for condition in rule.conditions):
            return rule.action
    return profile.default


def under_the_walls(action: int, call: str, arguments: tuple[int, ...]) -> int:
    """The same after walls.toml: nothing that it holds is permitted, and nothing becomes less strict."""
    walls = syscalls.walls()
    if call in walls.absent:
        is_errno = action & lib.SECCOMP_RET_ACTION_FULL == lib.SECCOMP_RET_ERRNO
        return ENOSYS if permits(action) or is_errno else action
    if not permits(action):
        return action
    if call in walls.never:
        return EPERM
    for rule in walls.guards.get(call, (Rule((), ALLOW),)):
        if all(model.holds(condition, arguments) for condition in rule.conditions):
            return action if rule.action == ALLOW else rule.action
    return EPERM


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(st.sampled_from(CALLS), RULES.map(tuple), max_size=12),
    st.frozensets(st.sampled_from(CALLS), max_size=60),
    ACTIONS,
    st.sampled_from(["x86_64", "aarch64"]),
    st.data(),
)
def test_any_profile_under_the_walls_is_as_the_documents_say(
    rules: dict[str, tuple[Rule, ...]],
    calls: frozenset[str],
    default: int,
    architecture: Architecture,
    data: st.DataObject,
) -> None:
    profile = Profile("mine", "", calls | syscalls.walls().needed, MappingProxyType(rules), default)
    profiles = Profiles(MappingProxyType({"mine": profile}))
    base, explained = (compile_uncached(profiles, "mine", (), (), architecture, explain) for explain in (False, True))
    numbers = syscalls.numbers(architecture)
    drawn = data.draw(st.lists(st.sampled_from(CALLS), min_size=5, max_size=20))
    for call in {*rules, *drawn} & numbers.keys():
        listed = [(0, rule.action, rule.conditions) for rule in rules.get(call, ())]
        listed += [(0, rule.action, rule.conditions) for rule in syscalls.walls().guards.get(call, ())]
        arguments = data.draw(model.arguments_near(listed))
        expected = under_the_walls(asked(profile, call, arguments), call, arguments)
        answer = _core.seccomp_evaluate(base, AUDIT_ARCH[architecture], numbers[call], arguments)
        assert answer == expected, call
        told = _core.seccomp_evaluate(explained, AUDIT_ARCH[architecture], numbers[call], arguments)
        watched = syscalls.explained().watched.get(call)
        turns = (answer == EPERM and call not in syscalls.explained().unexplained) or (
            answer == ALLOW and watched is not None and all(model.holds(one, arguments) for one in watched)
        )
        assert told == (NOTIFY if turns else answer), call
