"""`kill -9` while keys, policies, grants, proposals, sessions, consents and manifests change: what was acknowledged is
so after a start, and the files say the same as the ledger."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from immured.manifest.signature import show_signatures, sign
from immured.service.manifest_files import digest_of
from immured.service.policies import shipped_policy
from immured.wire.keys import PrivateKey
from tests.crash.test_kill import wait_for
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

ROUNDS = 12
HOUR = 3_600_000
ASKING = {"schema": 1, "name": "asking", "consent": {"required": True, "valid": "1h"}}


class Changes:
    """A client that changes who may do what until the daemon is gone, and remembers all that it was told."""

    def __init__(self, daemon: ThrowawayDaemon, round_: int) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.sessions: set[str] = set()
        self.grants: set[str] = set()
        self.proposals: set[str] = set()
        self.policy: str | None = None
        self.consent: str | None = None
        self.manifests: dict[str, str] = {}
        self.daemon: str | None = None
        self._done = 0
        self._served, self._round = daemon, round_
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def wait_for(self, number: int) -> None:
        """Until it has done so much, or can do no more: how long that takes is the machine's business."""
        wait_for(lambda: self._done >= number or not self._thread.is_alive())

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "a client hangs on a daemon that is dead"

    def _work(self) -> None:
        choose = random.Random(self._round)
        steps = [self._add, self._add, self._change, self._rotate, self._open, self._grant, self._propose, self._set]
        steps += [self._answer, self._load, self._load, self._revoke]
        try:
            with self._served.client() as client:
                if self._round % 3 == 0:
                    self.daemon = self._ask(client, "daemon.rotate", {"overlap_ms": HOUR * (self._round % 2)})["daemon"]
                while True:
                    choose.choice(steps)(client, choose)
                    self._done += 1
        except (OSError, ImmuredError, EOFError):
            return  # the daemon is gone, as intended; or its key changed, and this client had not heard

    def _ask(self, client: Client, cmd: str, args: Mapping[str, object]) -> Any:
        return client.call(cmd, args).result

    def _add(self, client: Client, choose: random.Random) -> None:
        name = f"k{self._round}.{len(self.keys)}.{choose.randrange(10**6)}"
        args = {"name": name, "public": PrivateKey.generate().public.raw, "role": "worker"}
        self._keep(self._ask(client, "key.add", args))

    def _change(self, client: Client, choose: random.Random) -> None:
        if serving := [key for key, record in self.keys.items() if record["standing"] == "active"]:
            cmd, more = choose.choice(
                [("suspend", {}), ("revoke", {}), ("bind", {"role": "viewer"}), ("label", {"note": "x"})]
            )
            key = choose.choice(serving)
            # Not acknowledged, it may be one or the other.
            self.keys.pop(key)
            self._keep(self._ask(client, f"key.{cmd}", {"key": key, **more}))

    def _rotate(self, client: Client, choose: random.Random) -> None:
        fit = [key for key, one in self.keys.items() if one["standing"] == "active" and "successor" not in one]
        if fit:
            key = choose.choice(fit)
            self.keys.pop(key)
            after = self._ask(client, "key.rotate", {"key": key, "public": PrivateKey.generate().public.raw})
            self._keep(after.pop("old"))
            self._keep(after)

    def _open(self, client: Client, _: random.Random) -> None:
        self.sessions.add(self._ask(client, "session.open", {})["session"])

    def _grant(self, client: Client, choose: random.Random) -> None:
        if self.keys:
            args = {"key": choose.choice(list(self.keys)), "cmd": "policy.show", "ttl_ms": HOUR, "reason": "x"}
            self.grants.add(self._ask(client, "grant.issue", args)["grant"])

    def _propose(self, client: Client, _: random.Random) -> None:
        args = {"cmd": "run", "args": {"argv": ["/bin/true"]}, "reason": "x"}
        if len(self.proposals) < 20:
            self.proposals.add(self._ask(client, "proposal.create", args)["proposal"])

    def _set(self, client: Client, choose: random.Random) -> None:
        self.policy = None
        text = shipped_policy().text + f"\n# {self._round} {choose.random()}\n".encode()
        self.policy = self._ask(client, "policy.set", {"policy": text})["digest"]

    def _answer(self, client: Client, choose: random.Random) -> None:
        cmd, standing = choose.choice([("accept", "given"), ("decline", "declined")])
        shown = self._ask(client, "consent.show", {"manifest": ASKING})
        # Not acknowledged, it may be one or the other.
        self.consent = None
        self._ask(client, f"consent.{cmd}", {name: shown[name] for name in ("manifest", "language", "text")})
        self.consent = standing

    def _load(self, client: Client, choose: random.Random) -> None:
        """A new one, or one that is there with other signatures."""
        number = choose.randrange(4)
        raw = f'schema = 1\nname = "m{self._round}-{number}"\n'.encode()
        if self.manifests.get(digest_of(raw)) == "revoked":
            return
        key = PrivateKey.from_pem((self._served.state / "keys" / "admin.pem").read_bytes())
        now = time.time_ns() // 1_000_000
        signatures = show_signatures([sign(key, raw, now, now + HOUR + choose.randrange(HOUR))])
        loaded = client.manifests.load(raw, signatures.encode())
        self.manifests[loaded.digest] = "in_force"

    def _revoke(self, client: Client, choose: random.Random) -> None:
        if fit := [digest for digest, standing in self.manifests.items() if standing == "in_force"]:
            digest = choose.choice(fit)
            # Not acknowledged, it may be one or the other.
            self.manifests.pop(digest)
            self._revoked(client, digest)

    def _revoked(self, client: Client, digest: str) -> None:
        client.manifests.revoke(digest, "x")
        self.manifests[digest] = "revoked"

    def _keep(self, record: dict[str, Any]) -> None:
        self.keys[record["id"]] = record


def check(daemon: ThrowawayDaemon, changes: Changes) -> None:
    with daemon.client() as client:

        def every(cmd: str, rows: str, name: str) -> dict[str, dict[str, Any]]:
            found: dict[str, dict[str, Any]] = {}
            args: dict[str, object] = {}
            while True:
                said: Any = client.call(cmd, args).result
                found |= {row[name]: row for row in said[rows]}
                if "next" not in said:
                    return found
                args = {"after": said["next"]}

        keys = every("key.list", "keys", "id")
        assert {key: keys.get(key) for key in changes.keys} == changes.keys
        assert changes.sessions <= every("session.list", "sessions", "session").keys()
        assert changes.grants <= every("grant.list", "grants", "grant").keys()
        open_ = every("proposal.list", "proposals", "proposal")
        assert changes.proposals <= open_.keys()
        for proposal in changes.proposals:
            shown: Any = client.call("proposal.show", {"proposal": proposal}).result
            assert shown["args"] == {"argv": ["/bin/true"]}
        policy: Any = client.call("policy.show", {}).result
        if changes.policy is not None:
            assert policy["digest"] == changes.policy
        if changes.consent is not None:
            answer: Any = client.call("consent.status", {"manifest": ASKING}).result
            assert answer["standing"] == changes.consent
        if changes.daemon is not None:
            status: Any = client.call("status", {}).result
            assert status["daemon"] == changes.daemon
        for proposal in open_:
            client.call("proposal.withdraw", {"proposal": proposal})
        manifests = {one.digest: one.standing for one in client.manifests.list()}
        assert {digest: manifests.get(digest) for digest in changes.manifests} == changes.manifests
        assert set(manifests.values()) <= {"in_force", "revoked"}  # no file is damaged, whatever was half done
    said = [key["id"] for key in json.loads((daemon.state / "keys/keyring.json").read_bytes())["keys"]]
    assert set(said) == set(keys)
    assert list((daemon.state / "proposals").iterdir()) == []


def test_what_was_acknowledged_is_so_after_a_kill() -> None:
    moments = random.Random(20261122)
    with ThrowawayDaemon() as daemon:
        told = 0
        for round_ in range(ROUNDS):
            changes = Changes(daemon, round_)
            changes.wait_for(moments.randint(2, 20))
            time.sleep(moments.uniform(0.0, 0.1))  # into the middle of the next
            daemon.kill()
            changes.join()
            daemon.start()
            check(daemon, changes)
            told += len(changes.keys) + len(changes.sessions) + len(changes.grants) + len(changes.manifests)
        assert told > 2 * ROUNDS, "nothing was going on"
        verified = daemon.immure("ledger", "verify", "--state", str(daemon.state))
        assert verified.returncode == 0
