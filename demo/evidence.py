"""The acts about the ledger as evidence for others. Each returns what happened, or raises Unexpected."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING

from demo.cli import immure
from demo.expect import expect
from immured.ledger.checkpoint import Checkpoint, CosignKey, Signer
from immured.ledger.entry import leaf_hash
from immured.ledger.keys import load_private, load_vkeys
from immured.ledger.tree_store import TreeInMemory, TreeStore
from immured.ledger.witness_client import WitnessError, ask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from demo.ground import Ground

__all__ = ["compared", "cosigned", "proven"]

PATIENCE = 20.0


def proven(ground: Ground) -> str:
    """A caller has the receipt of his own run proven, to a file; whoever has the ledger's public key checks that."""
    result = ground.client.run(["/bin/true"], manifest=ground.manifest())
    expect(result.cause == "exited", result)
    key, proof = ground.workspace / "ledger.vkey", ground.workspace / "receipt.proof"
    shutil.copy(ground.daemon.state / "keys" / "ledger.vkey", key)
    proof.write_bytes(ground.client.prove(result.receipt, keys=load_vkeys(key)).proof.encode())
    done = immure("ledger", "check-proof", str(proof), "--key", str(key), "--json")
    expect(done.returncode == 0, done.stdout + done.stderr)
    entry = json.loads(done.stdout)["entry"]
    expect(entry["type"] == "run.finished" and entry["seq"] == result.receipt.seq, f"it proves {entry}")
    first, rest = proof.read_text().split("index ")
    proof.write_text(f"{first}index 1{rest}")
    done = immure("ledger", "check-proof", str(proof), "--key", str(key))
    expect(done.returncode == 1 and "bad_proof" in done.stderr, f"changed, it was met with {done.stdout}{done.stderr}")
    return (
        f"entry {entry['seq']} shown by a file and the ledger's key alone, no daemon asked; the file changed: bad_proof"
    )


def cosigned(ground: Ground) -> str:
    """A witness saw every head. Root, with the ledger's own key, writes it anew from one run on and signs that: it
    verifies by itself, and the witness refuses it."""
    state, witness = ground.daemon.state, ground.witness
    entries = ground.entries()
    _until_cosigned(ground, entries)
    named = ("--witness", witness.key, "--require", "1")
    done = immure("ledger", "verify", "--state", str(state), *named)
    expect(done.returncode == 0, done.stdout + done.stderr)

    forged = _written_anew(ground)
    done = immure("ledger", "verify", "--state", str(forged))
    expect(done.returncode == 0, f"written anew, and signed, it does not verify: {done.stdout}{done.stderr}")
    done = immure("ledger", "verify", "--state", str(forged), *named)
    expect(done.returncode == 1 and "NOT WITNESSED" in done.stdout, f"with the witness's key: {done.stdout}")

    lines = (forged / "ledger" / "current.jsonl").read_bytes().splitlines()
    note = (forged / "ledger" / "checkpoints" / f"{len(lines):020d}").read_bytes()
    tree = _tree(lines)
    met = ""
    try:
        ask(CosignKey.parse(witness.key), note, load_vkeys(forged / "keys" / "ledger.vkey"), tree, 0, witness.send)
    except WitnessError as refusal:
        met = refusal.code
    expect(met == "witness_forked", f"the witness met it with {met or 'a cosignature'}")
    return (
        f"{entries} entries cosigned; written anew with the ledger's own key it verifies alone, and is refused: {met}"
    )


def compared(ground: Ground) -> str:
    """A copy is made, and is the ledger entry for entry; a line of it is altered, and that line is named."""
    place = ground.workspace / "export"
    place.mkdir()
    done = immure("ledger", "export", "--state", str(ground.daemon.state), "--to", str(place), "--json")
    expect(done.returncode == 0, done.stdout + done.stderr)
    entries = json.loads(done.stdout)["entries"]
    found = _compare(ground, place)
    expect(found["verdict"] in ("same", "older"), f"the copy is {found}")
    copy = next(place.glob("*/current.jsonl"))
    lines = copy.read_bytes().split(b"\n")
    at = next(number for number, line in enumerate(lines) if b"honest.py" in line)
    lines[at] = lines[at].replace(b"honest.py", b"nobody.py")
    copy.write_bytes(b"\n".join(lines))
    found = _compare(ground, place)
    expect((found["verdict"], found["seq"]) == ("altered", at), f"altered, the copy is {found}")
    return (
        f"{entries} entries copied, the same in each; one line altered there: {found['verdict']}, entry {found['seq']}"
    )


def _compare(ground: Ground, kept: Path) -> Mapping[str, Any]:
    done = immure("ledger", "compare", "--state", str(ground.daemon.state), "--against", str(kept), "--json")
    expect(done.returncode in (0, 1) and bool(done.stdout), done.stderr)
    said: Mapping[str, Any] = json.loads(done.stdout)
    return said


def _until_cosigned(ground: Ground, entries: int) -> None:
    """Until the witness has cosigned so many; the daemon signs a head a second after an entry."""
    folder, deadline = ground.daemon.state / "ledger" / "witnessed", time.monotonic() + PATIENCE
    while (
        not folder.is_dir()
        or max((int(one.name) for one in folder.iterdir() if one.name.isdigit()), default=0) < entries
    ):
        expect(time.monotonic() < deadline, f"the witness did not cosign {entries} entries within {PATIENCE:g} s")
        time.sleep(0.05)


def _tree(lines: list[bytes]) -> TreeStore:
    tree = TreeStore(TreeInMemory())
    tree.extend(b"".join(map(leaf_hash, lines)), sum(len(line) + 1 for line in lines))
    tree.flush()
    return tree


def _written_anew(ground: Ground) -> Path:
    """A copy of the state's ledger in which another program did the honest work: chained and signed as if it had."""
    state, forged = ground.daemon.state, ground.workspace / "anew"
    (forged / "keys").mkdir(parents=True)
    for name in ("ledger.vkey", "ledger.pem"):
        shutil.copy(state / "keys" / name, forged / "keys")
    heads = forged / "ledger" / "checkpoints"
    heads.mkdir(parents=True)
    before, lines = b"", list[bytes]()
    for line in (state / "ledger" / "current.jsonl").read_bytes().splitlines():
        made = line.replace(b"honest.py", b"nobody.py")
        if lines:
            made = made.replace(leaf_hash(before).hex().encode(), leaf_hash(lines[-1]).hex().encode())
        before = line
        lines.append(made)
    (forged / "ledger" / "current.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    tree = _tree(lines)
    name = load_vkeys(forged / "keys" / "ledger.vkey")[-1].name
    signer = Signer(load_private(forged / "keys" / "ledger.pem"), name)
    head = Checkpoint(name, len(lines), tree.root(len(lines)))
    (heads / f"{len(lines):020d}").write_bytes(signer.sign(head))
    return forged
