"""What the process that asks a witness can reach, and what `[audit] witnesses` may say."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.host.syscalls import landlock_abi
from immured.ledger.note_keys import CosignKey
from immured.service.broker_user import User
from immured.service.config import parse_config
from immured.service.ownership import hand_over
from immured.service.state import Paths, init_state
from immured.service.witness_places import read_witnesses
from tests.patience import PATIENCE_S

USER = 64_323

ATTEMPTS = """
import json, os, socket, sys
from pathlib import Path
from immured.service import witnessing
from immured.service.broker_user import User
from immured.service.witness_places import read_witnesses

state, port, other, user = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ledger = os.open(state / "ledger", os.O_RDONLY | os.O_DIRECTORY)
(place,) = read_witnesses([{"name": "w1", "url": f"http://127.0.0.1:{port}", "key": sys.argv[5]}])


def attempt(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "done"


def opened(path, flags, directory=None):
    return lambda: os.close(os.open(path, flags, 0o600, dir_fd=directory))


def listen():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()


witnessing._confine(place, ledger, User(user, user))
write = os.O_WRONLY | os.O_CREAT
print(json.dumps({
    "connect to the witness": attempt(lambda: socket.create_connection(("127.0.0.1", port), 5).close()),
    "ask for a name": attempt(lambda: socket.getaddrinfo("localhost", 80)),
    "read the ledger": attempt(opened("current.jsonl", os.O_RDONLY, ledger)),
    "connect elsewhere": attempt(lambda: socket.create_connection(("127.0.0.1", other), 5).close()),
    "listen": attempt(listen),
    "speak to this host's sockets": attempt(lambda: socket.socket(socket.AF_UNIX).close()),
    "look at packets": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
    "write the ledger": attempt(opened("current.jsonl", write, ledger)),
    "write beside it": attempt(opened("other", write, ledger)),
    "read the keys": attempt(opened(state / "keys/ledger.pem", os.O_RDONLY)),
    "write where everybody may": attempt(opened(state.parent / "everybodys/one", write)),
    "make a process": attempt(os.fork),
}))
"""


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="witnessing-") as made:
        place = Path(made)
        place.chmod(0o755)
        init_state(place / "state")
        hand_over(Paths(place / "state"), User(USER, USER))
        (place / "everybodys").mkdir()
        (place / "everybodys").chmod(0o1777)
        yield place / "state"


@pytest.mark.needs_root
def test_it_connects_to_its_witness_reads_the_ledger_and_that_is_all(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as witness, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(one.getsockname()[1]) for one in (witness, other)]
        words = [sys.executable, "-c", ATTEMPTS, str(state), *ports, str(USER), KEY]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True, cwd="/")
    found = json.loads(done.stdout.splitlines()[-1])
    may = ("connect to the witness", "ask for a name", "read the ledger")
    assert [found.pop(one) for one in may] == ["done"] * 3
    if landlock_abi() < 4:  # ports are told apart from Linux 6.7 on
        found.pop("connect elsewhere")
    if not landlock_abi():  # then it is the user's own files that it reaches, as the broker does
        found = {name: said for name, said in found.items() if not name.startswith(("read ", "write "))}
    assert {name: said for name, said in found.items() if said not in REFUSED} == {}


REFUSED = {"Operation not permitted", "Permission denied"}
KEY = CosignKey("witness.example/w1", bytes(range(32))).encode()
OTHER = CosignKey("witness.example/w2", bytes(range(1, 33))).encode()


# --- config.toml


def config(*witnesses: str) -> str:
    return f"[audit]\nwitnesses = [{', '.join(witnesses)}]\n"


def test_witnesses_are_read() -> None:
    one = f'{{ name = "w1", url = "http://w.example:7380", key = "{KEY}" }}'
    two = f'{{ name = "w2", url = "https://w.example/prefix", key = "{OTHER}" }}'
    found = parse_config(config(one, two)).witnesses
    assert [(place.name, place.address.port, place.key.encode()) for place in found] == [
        ("w1", 7380, KEY),
        ("w2", 443, OTHER),
    ]
    assert parse_config("").witnesses == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('"w1"', "audit.witnesses[0] is not of the form"),
        ("{}", "audit.witnesses[0].name"),
        (f'{{ name = "w1", url = "http://w" , keys = "{KEY}" }}', "did you mean 'key'?"),
        (f'{{ name = "W 1", url = "http://w" , key = "{KEY}" }}', "audit.witnesses[0].name"),
        (f'{{ name = "w1", url = "unix:/run/w" , key = "{KEY}" }}', "audit.witnesses[0].url"),
        (f'{{ name = "w1", url = "http://{"a" * 64}.example" , key = "{KEY}" }}', "audit.witnesses[0].url"),
        ('{ name = "w1", url = "http://w" , key = "w+00000000+AAAA" }', "audit.witnesses[0].key"),
        (f'{{ name = "w1", url = "http://w" , key = "{KEY[:-2]}" }}', "audit.witnesses[0].key"),
    ],
)
def test_what_is_no_witness_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_config(config(text))
    assert raised.value.code == "bad_configuration"
    assert named in raised.value.message


def test_one_key_is_one_witness_whatever_it_is_called() -> None:
    again = CosignKey("another.example/name", bytes(range(32))).encode()
    with pytest.raises(ValueError, match="the same key"):
        read_witnesses([{"name": name, "url": "http://w", "key": key} for name, key in (("a", KEY), ("b", again))])
    with pytest.raises(ValueError, match="the same name"):
        read_witnesses([{"name": "a", "url": "http://w", "key": key} for key in (KEY, OTHER)])
    with pytest.raises(ValueError, match="at most 8"):
        read_witnesses([{}] * 9)
    with pytest.raises(ValueError, match="is not a list"):
        read_witnesses("w1")
