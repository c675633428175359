"""A daemon that dies and comes back: what lived is adopted, with its limits, logs and open execs, or ended."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from immured.host.cgroup import cgroup2_mount
from tests.entries import entries_in
from tests.patience import PATIENCE_S, UNHURRIED
from tests.sandboxes.waiting import code, until

pytestmark = pytest.mark.needs_root

COUNTING = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"]


def entries(daemon: ThrowawayDaemon, kind: str) -> list[dict[str, Any]]:
    return [one["data"] for one in entries_in(daemon.state) if one["type"] == kind]


def die_and_come_back(daemon: ThrowawayDaemon) -> None:
    os.kill(daemon.pid, signal.SIGKILL)
    assert daemon.process is not None
    daemon.process.wait(PATIENCE_S)
    daemon.start()


def test_adopted_it_is_as_it_was(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        options: dict[str, Any] = {"labels": {"a": "b"}, "env": {"GREETING": "hello"}, "limits": {"wall": "8m"}}
        made = client.sandbox(name="work", ttl="10m", manifest=UNHURRIED, **options)
        made.exec(["/bin/sh", "-c", "echo kept > /tmp/note"])
        counting = made.start(COUNTING)
        until(lambda: counting.logs().next > 20)
        seen = counting.logs().output
    die_and_come_back(mortal)
    with mortal.client() as client:
        again = client.open("work")
        facts = again.refresh()
        assert (again.id, facts.labels, facts.state) == (made.id, {"a": "b"}, "ready")
        assert facts.raw["adopted"] is True
        assert abs(facts.expires_ms - made.facts.expires_ms) < 5_000
        assert again.exec(["/bin/sh", "-c", "cat /tmp/note; echo $GREETING"]).stdout == b"kept\nhello\n"
        with pytest.raises(ImmuredError) as refused:
            again.exec(["/bin/true"], limits={"wall": "9m"})  # the limits that it was made with
        assert code(refused) == "bad_argument"
        still = again.find(counting.id)
        assert still.logs().output.startswith(seen)  # it went on, and its log with it
        more = still.logs().next
        until(lambda: still.logs().next > more)
        still.signal(15)
        assert still.wait().signal == 15
        again.kill()
    [adopted] = entries(mortal, "sandbox.adopted")
    assert adopted["sandbox"] == made.id
    [exec_adopted] = entries(mortal, "exec.adopted")
    assert exec_adopted["exec"] == counting.id
    assert [one["cause"] for one in entries(mortal, "sandbox.ended")] == ["killed"]
    assert entries(mortal, "sandbox.lost") == []


def test_its_input_goes_on_after_the_restart(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        made = client.sandbox(name="work", manifest=UNHURRIED)
        reader = made.start(["/bin/sh", "-c", "while read line; do echo got $line; done; exit 9"])
        until(lambda: any(one.state == "running" for one in made.execs()))
    die_and_come_back(mortal)
    with mortal.client() as client:
        run = client.open("work").find(reader.id).attach(stdin=b"one\ntwo\n")
        assert b"".join(data for name, data in run if name == "stdout") == b"got one\ngot two\n"
        assert run.result.exit_code == 9


def test_what_was_let_go_and_did_not_get_to_run_yet_runs(tmp_path: Path) -> None:
    """Its start was acknowledged: that the host was busy, or the sandbox paused, is no reason to end it."""
    state = tmp_path / "state"
    tmp_path.chmod(0o755)
    ThrowawayDaemon.immure("init", "--state", str(state))
    (state / "config.toml").write_text("[launcher]\nopen_timeout_ms = 600000\n")  # by which it has to wait for GO
    with ThrowawayDaemon(state=state) as mortal:
        with mortal.client() as client:
            made = client.sandbox(name="work")
            [frozen] = below(made.id, "execs/cgroup.freeze")
            frozen.write_text("1")  # behind everybody's back: an exec is begun all the same
            begun = made.start(["/bin/sh", "-c", "echo it ran; exit 7"])
        die_and_come_back(mortal)
        frozen.write_text("0")
        with mortal.client() as client:
            found = client.open("work").find(begun.id)
            assert found.wait().exit_code == 7
            assert found.logs().output == b"it ran\n"
            client.prune(alive=True)


def test_paused_it_is_found_paused(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        client.sandbox(name="work").pause()
    die_and_come_back(mortal)
    with mortal.client() as client:
        again = client.open("work")
        assert again.refresh().state == "paused"
        again.resume()
        assert again.exec(["/bin/true"]).exit_code == 0


def test_one_that_stood_still_to_be_saved_goes_on(mortal: ThrowawayDaemon) -> None:
    """Nobody paused it: it is not for its owner to find out that somebody has to resume it."""
    with mortal.client() as client:
        made = client.sandbox(name="work", manifest=UNHURRIED)
        assert made.exec(["/bin/dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=200"]).exit_code == 0
        counting = made.start(COUNTING)

    def save() -> None:
        with mortal.client() as other, contextlib.suppress(ImmuredError):
            other.open("work").snapshot("never")

    def begin() -> threading.Thread:
        """One that is at it; a save that was over before it was looked at is tried again."""
        for _ in range(10):
            saving = threading.Thread(target=save)
            saving.start()
            until(lambda: stands_still(made.id) or not saving.is_alive())  # noqa: B023 - it is called here
            if stands_still(made.id):
                return saving
            with mortal.client() as client:
                Snapshots(client).remove("never")
        pytest.fail("no save was seen")

    saving = begin()
    die_and_come_back(mortal)
    saving.join(PATIENCE_S)
    with mortal.client() as client:
        again = client.open("work")
        assert again.exec(["/bin/true"]).exit_code == 0  # at once: nobody is refused for what the daemon does by itself
        assert not stands_still(made.id)
        assert again.refresh().state == "ready"
        assert counting.id in [one.id for one in again.execs() if one.state == "running"]


def stands_still(sandbox: str) -> bool:
    for one in frozen_states(sandbox):
        with contextlib.suppress(OSError):
            if "frozen 1" in one.read_text():
                return True
    return False


def frozen_states(sandbox: str) -> list[Path]:
    return below(sandbox, "execs/cgroup.events")


def below(sandbox: str, pattern: str) -> list[Path]:
    """Of its cgroup. What goes while it is looked for is not there."""
    return [Path(one) for one in glob.glob(f"{cgroup2_mount()}/*immured-*/tenants/*/{sandbox}/{pattern}")]


def test_ended_where_its_policy_says_so(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        made = client.sandbox(restart="end")
        made.start(COUNTING)
    die_and_come_back(mortal)
    until(lambda: [one["sandbox"] for one in entries(mortal, "sandbox.ended")] == [made.id])
    with mortal.client() as client:
        assert client.open(made.id).refresh().state == "ended"
        assert entries(mortal, "sandbox.ended")[0]["reason"].endswith("`end`")


def test_what_ended_meanwhile_is_told(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        other = client.sandbox(manifest=UNHURRIED)
        short = other.start(["/bin/sh", "-c", "trap 'exit 4' TERM; echo set; while :; do sleep 0.05; done"])
        until(lambda: short.logs().output)  # let go is not begun: TERM would end a shell that has set nothing yet
        made = client.sandbox(ttl=3)
    os.kill(mortal.pid, signal.SIGKILL)
    assert mortal.process is not None
    mortal.process.wait(PATIENCE_S)
    shells: list[int] = []

    def is_alone() -> bool:
        shells[:] = [pid for pid in processes(other.id) if b"trap" in words(pid)]
        return len(shells) == 1

    until(is_alone)  # what it forks has its words until it becomes `sleep`
    os.kill(shells[0], signal.SIGTERM)
    until(lambda: not processes(other.id))
    until(lambda: not frozen_states(made.id))  # its time was over, and its cgroup went with it
    mortal.start()
    assert [(one["sandbox"], one["cause"]) for one in entries(mortal, "sandbox.ended")] == [(made.id, "expired")]
    finished = [one for one in entries(mortal, "exec.finished") if one["exec"] == short.id]
    assert [one["exit_code"] for one in finished] == [4]


def words(pid: int) -> bytes:
    """Of its command line; none of one that ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def processes(sandbox: str) -> list[int]:
    """Of its execs."""
    found: list[int] = []
    for one in below(sandbox, "execs/*/cgroup.procs"):
        with contextlib.suppress(OSError):  # it went while we looked
            found += map(int, one.read_text().split())
    return found


def test_an_attached_exec_and_a_command_that_were_open_are_lost(mortal: ThrowawayDaemon) -> None:
    client = mortal.client()
    made = client.sandbox(manifest=UNHURRIED)

    def wait_for_it() -> None:
        with contextlib.suppress(Exception):
            made.exec(["/bin/sleep", "1000"])

    def follow() -> None:
        with contextlib.suppress(Exception), mortal.client() as other:
            for _ in other.open(made.id).find(counting.id).attach():
                pass

    counting = made.start(COUNTING)
    threads = [threading.Thread(target=wait_for_it), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    until(lambda: len(entries(mortal, "exec.accepted")) == 2)
    until(lambda: any(one["cmd"] == "sandbox.attach" for one in entries(mortal, "command.accepted")))
    die_and_come_back(mortal)
    client.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    [lost] = entries(mortal, "exec.lost")
    attached = next(one for one in entries(mortal, "exec.accepted") if one["argv"][0] == "/bin/sleep")
    assert lost["exec"] == attached["exec"]
    assert [one["cmd"] for one in entries(mortal, "command.lost")] == ["sandbox.attach"]
    with mortal.client() as again:
        assert [one.id for one in again.open(made.id).execs() if one.live] == [counting.id]


def test_asked_again_after_the_restart_the_command_has_its_receipt(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        client.sandbox(name="work")
    [created] = entries(mortal, "sandbox.created")
    die_and_come_back(mortal)
    die_and_come_back(mortal)  # twice is no difference
    with mortal.client() as client:
        assert client.open("work").id == created["sandbox"]
    assert len(entries(mortal, "sandbox.adopted")) == 2


def test_a_daemon_that_stops_ends_them(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        made = client.sandbox()
        made.start(COUNTING)
    mortal.stop()
    assert [one["cause"] for one in entries(mortal, "sandbox.ended")] == ["killed"]
    assert entries(mortal, "sandbox.ended")[0]["reason"] == "the daemon is stopping"
    mortal.start()
    assert entries(mortal, "sandbox.lost") == []
    assert entries(mortal, "exec.lost") == []
