"""What the process that keeps a copy can reach, and that the broker cannot reach the copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.host.syscalls import landlock_abi
from immured.ledger.exports.place import Place
from immured.service.broker_user import User
from immured.service.exporting import _ports, _writable
from immured.service.ownership import hand_over
from immured.service.state import Paths, init_state
from tests.ledger.s3 import credentials, s3_server
from tests.patience import PATIENCE_S

USER = 64_322

ATTEMPTS = """
import json, os, socket, sys
from pathlib import Path
from immured.ledger.exports.place import Place
from immured.service import confine, exporting, harden
from immured.service.broker_user import User
from immured.service.state import Paths

role, state, audit, user, everybodys = sys.argv[1], *map(Path, sys.argv[2:4]), int(sys.argv[4]), Path(sys.argv[5])
ledger = os.open(state / "ledger", os.O_RDONLY | os.O_DIRECTORY)


def attempt(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "done"


def attempts():
    def write(path, directory=None):
        return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory))

    def read(path, directory=None):
        return lambda: os.close(os.open(path, os.O_RDONLY, dir_fd=directory))

    return {
        "write the copy": attempt(write(audit / "one")),
        "read the ledger": attempt(read("current.jsonl", ledger)),
        "write the ledger": attempt(write("current.jsonl", ledger)),
        "read the keys": attempt(read(state / "keys/ledger.pem")),
        "write the keyring": attempt(write(state / "keys/keyring.json")),
        "read what everybody may": attempt(read("/etc/passwd")),
        "write where everybody may": attempt(write(everybodys / "one")),
        "make a socket": attempt(lambda: socket.socket(socket.AF_UNIX).close()),
        "make a process": attempt(os.fork) if role == "exporter" else "",
    }


if role == "exporter":
    exporting._confine(Place(str(audit)), ledger, User(user, user))
elif role == "broker":
    with confine.make_domain(Paths(state)) as domain:
        harden.become(user, user)
        domain.enter()
else:
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
print(json.dumps(attempts()))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="exporting-") as made:
        place = Path(made)
        place.chmod(0o755)
        init_state(place / "state")
        hand_over(Paths(place / "state"), User(USER, USER))
        (place / "audit").mkdir()
        (place / "audit/there").touch()
        os.chown(place / "audit", USER, USER)
        (place / "everybodys").mkdir()
        (place / "everybodys").chmod(0o1777)
        yield place


def attempts(place: Path, role: str) -> dict[str, str]:
    words = [sys.executable, "-c", ATTEMPTS, role, str(place / "state"), str(place / "audit"), str(USER)]
    words.append(str(place / "everybodys"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True, cwd="/")
    (place / "audit/one").unlink(missing_ok=True)
    (place / "everybodys/one").unlink(missing_ok=True)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.needs_root
def test_it_reads_the_ledger_and_writes_the_copy_and_that_is_all(place: Path) -> None:
    found = attempts(place, "exporter")
    assert found.pop("write the copy") == found.pop("read the ledger") == "done"
    refused = {"Operation not permitted"} if not landlock_abi() else {"Operation not permitted", "Permission denied"}
    if not landlock_abi():  # then it is the user's own files that it reaches, as the broker does
        found = {name: found[name] for name in ("make a socket", "make a process")}
    assert set(found.values()) <= refused


@pytest.mark.needs_root
def test_the_broker_does_not_reach_the_copy(place: Path) -> None:
    if not landlock_abi():
        assert attempts(place, "broker")["write the copy"] == "done"
        return
    found = attempts(place, "broker")
    assert (found["write the copy"], found["write the ledger"]) == ("Permission denied", "done")


@pytest.mark.needs_root
def test_without_its_walls_the_user_reaches_it_all(place: Path) -> None:
    found = attempts(place, "user")
    assert set(found.values()) == {"done", ""}


# --- what of the file system it is given


def test_a_directory_of_its_own_is_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/one").touch()
    assert _writable(tmp_path / "audit") == [tmp_path / "audit"]


@pytest.mark.parametrize("there", [True, False])
def test_where_something_may_be_mounted_it_is_what_is_above(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "audit").mkdir()
    assert _writable(tmp_path / "audit") == [tmp_path / "audit", tmp_path]
    assert _writable(tmp_path / "not/there/yet") == [tmp_path / "not/there/yet", tmp_path]


def test_it_is_never_everything() -> None:
    assert _writable(Path("/nowhere-at-all")) == [Path("/nowhere-at-all")]


# --- one that copies to a server

OUTWARD = """
import json, os, socket, sys, threading
from pathlib import Path
from immured.ledger.exports.place import Place
from immured.service import exporting
from immured.service.broker_user import User

state, user, credentials, everybodys = Path(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:])
server, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
ports = [one.getsockname()[1] for one in (server, other)]
place = Place("s3://bucket/logs", endpoint=f"http://127.0.0.1:{ports[0]}", credentials=credentials)
ledger = os.open(state / "ledger", os.O_RDONLY | os.O_DIRECTORY)
s3, refused = exporting._prepared(place)
assert refused is None
exporting._confine(place, ledger, User(user, user))


def attempt(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "done"


OBJECT = {"Bucket": "bucket", "Key": "key"}


def bound():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


print(json.dumps({
    "connect to its server": attempt(lambda: socket.create_connection(("127.0.0.1", ports[0]), 5).close()),
    "read the ledger": attempt(lambda: os.close(os.open("current.jsonl", os.O_RDONLY, dir_fd=ledger))),
    "read names of hosts": attempt(lambda: os.close(os.open("/etc/hosts", os.O_RDONLY))),
    "sign with what it read": attempt(lambda: s3._client.generate_presigned_url("get_object", OBJECT)),
    "connect elsewhere": attempt(lambda: socket.create_connection(("127.0.0.1", ports[1]), 5).close()),
    "listen": attempt(bound),
    "speak to a neighbour": attempt(lambda: socket.socket(socket.AF_UNIX).close()),
    "write the ledger": attempt(lambda: os.close(os.open("current.jsonl", os.O_WRONLY, dir_fd=ledger))),
    "read the credentials": attempt(lambda: os.close(os.open(credentials, os.O_RDONLY))),
    "read the keys": attempt(lambda: os.close(os.open(state / "keys/ledger.pem", os.O_RDONLY))),
    "read what everybody may": attempt(lambda: os.close(os.open("/etc/passwd", os.O_RDONLY))),
    "write where everybody may": attempt(lambda: os.close(os.open(everybodys / "one", os.O_CREAT))),
    "make a process": attempt(os.fork),
}))
"""


@pytest.mark.needs_root
def test_one_that_copies_to_a_server_connects_to_it_and_that_is_all(place: Path) -> None:
    words = [sys.executable, "-c", OUTWARD, str(place / "state"), str(USER), str(credentials(place))]
    words.append(str(place / "everybodys"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    allowed = ("connect to its server", "read the ledger", "read names of hosts", "sign with what it read")
    assert {found.pop(one) for one in allowed} == {"done"}
    if not landlock_abi():
        found = {name: found[name] for name in ("listen", "speak to a neighbour", "make a process")}
    elif landlock_abi() < 4:
        del found["connect elsewhere"]
    assert set(found.values()) <= {"Operation not permitted", "Permission denied"}


OVER_TLS = """
import os, sys
from pathlib import Path
from immured.errors import ImmuredError
from immured.ledger.exports.place import Place
from immured.service import exporting
from immured.service.broker_user import User

state, user, credentials, endpoint = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
place = Place("s3://nobody-made-this", endpoint=endpoint, credentials=credentials)
s3, _ = exporting._prepared(place)
exporting._confine(place, os.open(state / "ledger", os.O_RDONLY | os.O_DIRECTORY), User(user, user))
try:
    s3.get("one")
except ImmuredError as error:
    print(error.message)
"""


@pytest.mark.needs_root
def test_a_server_proves_who_it_is_to_one_behind_its_walls(place: Path) -> None:
    key, certificate = place / "key", place / "certificate"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    names = ["-days", "2", "-subj", "/CN=s3", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words, *names], check=True, capture_output=True, timeout=PATIENCE_S)
    with s3_server(certificate, key) as server:

        def said(**environment: str) -> str:
            words = [sys.executable, "-c", OVER_TLS, str(place / "state"), str(USER), str(credentials(place))]
            return subprocess.run(
                [*words, server.endpoint], capture_output=True, text=True, timeout=PATIENCE_S, check=True, cwd="/",
                env={**os.environ, **environment},
            ).stdout  # fmt: skip

        certificate.chmod(0o644)
        assert "certificate verify failed" in said()
        assert "NoSuchBucket" in said(AWS_CA_BUNDLE=str(certificate))


def test_where_credentials_are_asked_for_that_port_is_open_too() -> None:
    assert _ports(Place("s3://bucket")) == {443, 80}
    assert _ports(Place("s3://bucket", endpoint="https://s3.example:9000", credentials=Path("/etc/x"))) == {9000}


WEIGHT = """
import sys
import immured.service.daemon
print(sorted(one for one in sys.modules if one.partition(".")[0] in {"boto3", "botocore", "urllib3", "s3transfer"}
    or one.startswith("immured.ledger.exports.") and one.rpartition(".")[2] in {"s3", "pieces", "tiles", "copier"}))
"""


def test_the_daemon_itself_imports_nothing_of_what_copies() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WEIGHT], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.strip() == "[]"
