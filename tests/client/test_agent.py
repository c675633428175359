"""Signing by OpenSSH's own ssh-agent."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.agent import Agent, AgentKey, choose
from immured.client.trust import resolve
from immured.errors import ConfigurationError
from immured.wire import openssh
from immured.wire.keys import PrivateKey, PublicKey
from tests.client.ssh_agents import SshAgent, make_key, ssh_agent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[SshAgent]:
    with ssh_agent(tmp_path) as running:
        yield running


def public_of(key: Path) -> PublicKey:
    return PublicKey.from_pem(key.with_name(key.name + ".pub").read_bytes())


def test_it_signs_the_very_bytes_and_any_number_of_them(agent: SshAgent, tmp_path: Path) -> None:
    key = make_key(tmp_path / "alice")
    agent.add(key)
    signer = choose("alice", agent.environment)
    private = PrivateKey.from_pem(key.read_bytes())
    assert signer.id == private.id
    for message in (b"", b"DSSEv1 a command", bytes(100_000)):
        assert signer.sign(message) == private.sign(message)


@pytest.mark.parametrize("by", ["comment", "fingerprint", "key id", "public key", "nothing"])
def test_a_key_is_found_by_what_one_knows_of_it(agent: SshAgent, tmp_path: Path, by: str) -> None:
    key = make_key(tmp_path / "alice", comment="alice@desk")
    agent.add(key)
    if by != "nothing":
        agent.add(make_key(tmp_path / "other"))
    public = public_of(key)
    names: dict[str, str | PublicKey] = {
        "comment": "alice@desk",
        "fingerprint": openssh.fingerprint(openssh.blob_of(public.raw)),
        "key id": public.id,
        "public key": public,
        "nothing": "",
    }
    assert choose(names[by], agent.environment).public == public


def test_one_of_several_must_be_named(agent: SshAgent, tmp_path: Path) -> None:
    for name in ("first", "second"):
        agent.add(make_key(tmp_path / name))
    with pytest.raises(ConfigurationError, match="2 keys") as refused:
        choose("", agent.environment)
    assert refused.value.code == "no_agent_key"
    assert "SHA256:" in refused.value.remedy


def test_a_key_that_is_not_there_is_missed_by_name(agent: SshAgent, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'alice'") as refused:
        choose("alice", agent.environment)
    assert "ssh-add" in refused.value.remedy
    absent = public_of(make_key(tmp_path / "absent"))
    with pytest.raises(ConfigurationError, match=absent.id):
        choose(absent, agent.environment)


def test_a_key_of_another_kind_is_refused_with_the_reason(agent: SshAgent, tmp_path: Path) -> None:
    agent.add(make_key(tmp_path / "curve", kind="ecdsa"))
    with pytest.raises(ConfigurationError, match="ecdsa-sha2-nistp256") as refused:
        choose("curve", agent.environment)
    assert refused.value.code == "bad_key"


def test_a_locked_agent_says_so(agent: SshAgent, tmp_path: Path) -> None:
    key = make_key(tmp_path / "alice")
    agent.add(key)
    signer = choose("alice", agent.environment)
    agent.tell("ssh-add", "-D")
    with pytest.raises(ConfigurationError, match="refused") as refused:
        signer.sign(b"message")
    assert refused.value.code == "agent_refused"


def test_an_agent_that_was_started_anew_is_found_again(agent: SshAgent, tmp_path: Path) -> None:
    key = make_key(tmp_path / "alice")
    agent.add(key)
    signer = choose("alice", agent.environment)
    agent.stop()
    with pytest.raises(ConfigurationError, match="no_agent"):
        signer.sign(b"message")
    agent.start()
    agent.add(key)
    assert signer.public.verify(signer.sign(b"message"), b"message")


def test_threads_share_one_agent(agent: SshAgent, tmp_path: Path) -> None:
    key = make_key(tmp_path / "alice")
    agent.add(key)
    signer = choose("alice", agent.environment)
    failed: list[int] = []

    def sign(number: int) -> None:
        message = b"%d" % number
        if not signer.public.verify(signer.sign(message), message):
            failed.append(number)

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.parametrize("environment", [{}, {"SSH_AUTH_SOCK": ""}, {"SSH_AUTH_SOCK": "/nowhere/agent"}], ids=str)
def test_without_an_agent_there_is_a_remedy(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="no_agent") as refused:
        choose("alice", environment)
    assert "ssh-agent" in refused.value.remedy


@pytest.mark.parametrize("how", ["agent:alice", "a .pub of OpenSSH's", "a public key in PEM"])
def test_a_client_takes_it_as_its_key(agent: SshAgent, tmp_path: Path, how: str) -> None:
    key = make_key(tmp_path / "alice")
    agent.add(key)
    public = public_of(key)
    (tmp_path / "spki.pem").write_bytes(public.to_pem())
    named: dict[str, str | Path] = {
        "agent:alice": how,
        "a .pub of OpenSSH's": str(key) + ".pub",
        "a public key in PEM": tmp_path / "spki.pem",
    }
    trust = resolve(None, named[how], public, environment=agent.environment)
    assert isinstance(trust.key, AgentKey)
    assert trust.key.public == public


def test_the_file_of_an_openssh_key_is_a_key_too(tmp_path: Path) -> None:
    key = make_key(tmp_path / "alice")
    assert resolve(None, key, public_of(key), environment={}).key.id == public_of(key).id


# -- agents that lie


def one_answer(path: Path, answer: bytes) -> threading.Thread:
    """Listens, and gives that answer to whatever the first who comes asks."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        with listening:
            sock, _ = listening.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def signed(kind: bytes, signature: bytes) -> bytes:
    return string(b"\x0e" + string(string(kind) + string(signature)))


PRIVATE = PrivateKey(bytes(range(32)))


@pytest.mark.parametrize(
    "answer",
    [
        signed(b"ssh-ed25519", PRIVATE.sign(b"another message")),
        signed(b"ssh-ed25519", b""),
        signed(b"sk-ssh-ed25519@openssh.com", PRIVATE.sign(b"message")),
        string(b"\x0e" + string(b"")),
        string(b"\x0e\xff\xff\xff\xff"),
        string(b"\x0c" + bytes(4)),
        string(b""),
    ],
    ids=["other bytes", "none", "of hardware", "no fields", "a length", "another answer", "empty"],
)
def test_what_is_no_signature_of_the_command_is_not_sent(tmp_path: Path, answer: bytes) -> None:
    serving = one_answer(tmp_path / "agent", answer)
    signer = AgentKey(PRIVATE.public, Agent(str(tmp_path / "agent")))
    with pytest.raises(ConfigurationError, match="agent_refused"):
        signer.sign(b"message")
    serving.join()


def test_a_length_beyond_all_bounds_is_not_believed(tmp_path: Path) -> None:
    serving = one_answer(tmp_path / "agent", b"\xff\xff\xff\xff")
    with pytest.raises(ConfigurationError, match="no_agent"):
        Agent(str(tmp_path / "agent")).identities()
    serving.join()


def test_a_hardware_key_in_the_agent_is_refused_with_the_reason(tmp_path: Path) -> None:
    """What ssh-add -l shows of a token; the agent's list is ours, as no token is at hand."""
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = string(kind) + string(PRIVATE.public.raw) + string(b"ssh:")
    serving = one_answer(tmp_path / "agent", string(b"\x0c" + struct.pack(">I", 1) + string(blob) + string(b"token")))
    with pytest.raises(ConfigurationError, match="signs other bytes"):
        choose("token", {"SSH_AUTH_SOCK": str(tmp_path / "agent")})
    serving.join()
