"""Under which names commands are given, by which chain, and what is proposed instead of done."""

from __future__ import annotations

import asyncio
import hashlib
import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from immured import AsyncClient, Client
from immured.client import Refusal
from immured.client.elevation import Proposals, digest_of
from immured.client.errors import Proposed
from immured.client.trust import resolve
from immured.errors import ConfigurationError, Refused
from immured.wire.certificate import CERTIFICATE, chain_to_pem, issue
from immured.wire.envelope import decode_envelope
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, Command
from immured.wire.sockets import EndOfStream
from tests.client.conftest import Serving
from tests.client.peer import USER, Served
from tests.client.ssh_agents import make_key, ssh_agent
from tests.patience import PATIENCE_S

ORCHESTRATOR = PrivateKey(b"\x0c" * 32)
NAMES = {"persona": "sre", "tenant": "acme", "project": "web", "sub": "user:7", "session": "n1"}
CHAIN = [
    issue(ORCHESTRATOR, PrivateKey(b"\x0d" * 32).public, "team", now_ms=1, life_ms=1, permissions=["run"], depth=1),
    issue(PrivateKey(b"\x0d" * 32), USER.public, "agent", now_ms=1, life_ms=1, permissions=["run"]),
]
PROPOSAL = {
    "proposal": "p1", "cmd": "kill", "tenant": "default", "project": "default", "digest": "sha256:" + "ab" * 32,
    "proposer": USER.id, "reason": "it hangs", "created_ms": 1, "expires_ms": 2,
    "approvals": [{"key": ORCHESTRATOR.id, "role": "sre", "at_ms": 1}],
}  # fmt: skip


class Heard:
    """What a scripted daemon was sent: the types of what came before the first command, and the commands."""

    def __init__(self, answer: dict[str, object] | None = None) -> None:
        self.before: list[bytes] = []
        self.commands: queue.Queue[Command] = queue.Queue()
        self._answer = {"said": True} if answer is None else answer

    def script(self, served: Served) -> None:
        served.hello()
        self.before = []
        try:
            while True:
                frame = served.frame()
                kind = decode_envelope(frame.body).type
                if kind == CERTIFICATE:
                    self.before.append(frame.body)
                    continue
                assert kind == COMMAND
                command, digest = read(frame.body)
                self.commands.put(command)
                served.reply(command, digest, self._answer)
        except (EndOfStream, ConnectionError):
            return


def read(body: bytes) -> tuple[Command, bytes]:
    from immured.wire.messages import parse_command

    payload = decode_envelope(body).payload
    return parse_command(payload), hashlib.sha256(payload).digest()


Doing = Callable[[Path], None]


def blocking(socket: Path, **options: str | bytes) -> None:
    with Client(socket, USER, timeout=PATIENCE_S, **options) as client:  # type: ignore[arg-type]
        client.status()


def awaiting(socket: Path, **options: str | bytes) -> None:
    async def ask() -> None:
        async with AsyncClient(socket, USER, timeout=PATIENCE_S, **options) as client:  # type: ignore[arg-type]
            await client.status()

    asyncio.run(ask())


both = pytest.mark.parametrize("ask", [blocking, awaiting])


@both
def test_every_command_carries_the_names(serving: Serving, ask: Callable[..., None]) -> None:
    heard = Heard()
    ask(serving(heard.script).socket, **NAMES)
    command = heard.commands.get(timeout=PATIENCE_S)
    assert {name: getattr(command, name) for name in NAMES} == NAMES


@both
def test_without_names_a_command_has_none(serving: Serving, ask: Callable[..., None]) -> None:
    heard = Heard()
    ask(serving(heard.script).socket)
    command = heard.commands.get(timeout=PATIENCE_S)
    assert {name: getattr(command, name) for name in NAMES} == dict.fromkeys(NAMES)


@both
@pytest.mark.parametrize("given", ["bytes", "a file", "the environment"])
def test_the_chain_goes_out_before_the_first_command(
    serving: Serving, ask: Callable[..., None], given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, pem = Heard(), chain_to_pem(CHAIN)
    path = tmp_path / "chain.pem"
    path.write_bytes(pem)
    socket = serving(heard.script).socket
    if given == "the environment":
        monkeypatch.setenv("IMMURE_CERTIFICATE", str(path))
        ask(socket)
    else:
        ask(socket, certificate=pem if given == "bytes" else str(path))
    heard.commands.get(timeout=PATIENCE_S)
    assert heard.before == CHAIN


def refusing(served: Served) -> None:
    """Takes one link of a chain, and refuses the next."""
    served.hello()
    served.frame()
    payload = decode_envelope(served.frame().body).payload
    served.refuse("certificate_expired", req=hashlib.sha256(payload).digest())
    try:
        while True:
            served.frame()
    except (EndOfStream, ConnectionError):
        return


@both
def test_whose_certificate_is_refused_is_told_why(serving: Serving, ask: Callable[..., None]) -> None:
    with pytest.raises(Refusal, match="certificate_expired"):
        ask(serving(refusing).socket, certificate=chain_to_pem(CHAIN))


@pytest.mark.parametrize(("source", "code"), [("/no/such/file", "no_certificate"), (b"words", "bad_certificate")])
def test_a_chain_that_cannot_be_read_is_found_before_connecting(source: str | bytes, code: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=code):
        Client(tmp_path / "nobody", USER, USER.public, certificate=source)


@both
def test_what_is_proposed_is_not_sent_as_itself(serving: Serving, ask: Callable[..., None]) -> None:
    heard = Heard(PROPOSAL)
    with pytest.raises(Proposed) as proposed:
        ask(serving(heard.script).socket, propose="it hangs", tenant="acme")
    command = heard.commands.get(timeout=PATIENCE_S)
    assert (command.cmd, command.tenant) == ("proposal.create", "acme")
    assert command.args == {"cmd": "status", "args": {}, "reason": "it hangs"}
    assert heard.commands.empty()
    found = proposed.value.proposal
    assert (found.id, found.digest, found.approvals[0].role) == ("p1", PROPOSAL["digest"], "sre")
    assert "immure proposal approve p1" in proposed.value.remedy


@pytest.mark.parametrize("do", ["run", "start", "batch", "sandbox", "call"])
def test_every_way_of_asking_proposes(serving: Serving, do: str) -> None:
    heard = Heard(PROPOSAL)
    with Client(serving(heard.script).socket, USER, timeout=PATIENCE_S, propose="it hangs") as client:
        ways: dict[str, Callable[[], object]] = {
            "run": lambda: client.run(["true"]),
            "start": lambda: client.start(["true"]),
            "batch": lambda: client.batch([["true"]]).results,
            "sandbox": client.sandbox,
            "call": lambda: client.call("kill", {"sandbox": "s1"}),
        }
        with pytest.raises(Proposed):
            ways[do]()
    named = {"run": "run", "start": "run", "batch": "run.batch", "sandbox": "sandbox.create", "call": "kill"}
    command = heard.commands.get(timeout=PATIENCE_S)
    assert (command.cmd, command.args["cmd"]) == ("proposal.create", named[do])
    assert heard.commands.empty()


def test_a_client_that_proposes_can_look_at_proposals(serving: Serving) -> None:
    heard = Heard(PROPOSAL)
    with Client(serving(heard.script).socket, USER, timeout=PATIENCE_S, propose="it hangs") as client:
        assert Proposals(client).show("p1").reason == "it hangs"
    assert heard.commands.get(timeout=PATIENCE_S).cmd == "proposal.show"


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:zz", "ab" * 31, "md5:" + "ab" * 32])
def test_what_is_no_digest_is_not_sent(text: str) -> None:
    with pytest.raises(Refused, match="bad_argument"):
        digest_of(text)


@both
def test_an_agent_signs_for_both_clients(
    serving: Serving, ask: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    socket = serving(heard.script).socket
    with ssh_agent(tmp_path) as agent:
        key = make_key(tmp_path / "alice")
        agent.add(key)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
        signer = resolve(socket, "agent:alice", None).key
        monkeypatch.setattr("tests.client.test_names.USER", signer)
        ask(socket)
    assert heard.commands.get(timeout=PATIENCE_S).cmd == "status"
    assert signer.id == PrivateKey.from_pem(key.read_bytes()).id
