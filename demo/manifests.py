"""The acts about signed manifests. As those of `acts`: each returns what happened, or raises Unexpected."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from typing import TYPE_CHECKING

from demo.expect import expect
from immured import RemoteError
from immured.client.consents import Consents
from immured.client.elevation import Proposals
from immured.client.policies import Policies
from immured.manifest.signature import show_signatures, sign

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demo.ground import Ground
    from immured.client.manifests import Loading

__all__ = ["asked", "foreseen", "grown", "loaded", "pinned"]

HOUR = 3_600_000
COUNT, TOUCH, TRUE, OTHER = "/usr/bin/wc", "/usr/bin/touch", "/usr/bin/true", "/usr/bin/false"
CONTROL = b"""
[[controls]]
name = "growth"
permissions = ["manifest.load"]
added = "high"
approvers = ["secops"]
"""


def loaded(ground: Ground) -> str:
    """An engineer signs a manifest; it is loaded as it was signed, and somebody else runs by its digest, no more."""
    text = _job(ground)
    signatures = _signed(ground, text)
    with ground.acting(ground.engineer) as engineer:
        met = _refused(lambda: engineer.manifests.load(text.replace(b"README", b"readme"), signatures))
        expect(met == "signature_invalid", f"a file that was changed was met with {met or 'nothing'}")
    job = _load(ground, text)
    document = str(ground.input / "README.md")
    counted = ground.client.run([COUNT, "-w", document], manifest=job.digest)
    expect(counted.ok and int(counted.stdout.split()[0]) > 100, counted)
    other = _refused(lambda: ground.client.run([COUNT, "-c", document], manifest=job.digest))
    expect(other == "denied", f"other arguments were met with {other or 'nothing'}")
    return f"changed by a byte: {met}; as it was signed: loaded, and run by its digest; other arguments: {other}"


def grown(ground: Ground) -> str:
    """It is to write now. Policy wants another's approval of so much; what is added is told, approved, then loaded."""
    text = _job(
        ground, f', {{ program = "{TOUCH}", arguments = [["{ground.out}/grown"]] }}', f'write = ["{ground.out}"]'
    )
    arguments = {"manifest": text, "signatures": _signed(ground, text)}
    with ground.daemon.client() as admin:
        Policies(admin).set(Policies(admin).show().policy + CONTROL)
    with ground.acting(ground.engineer) as engineer:
        try:
            engineer.call("manifest.load", arguments)
            expect(False, "it was loaded without anybody's approval")
        except RemoteError as refusal:
            expect(refusal.code == "approval_required", refusal.code)
            rows = json.dumps(refusal.details["added"])
            expect(f"writes to {ground.out}, which it could not" in rows, f"what is added is told as {rows}")
        proposed = Proposals(engineer).create("manifest.load", arguments, reason="the report is kept")
        with ground.acting(ground.approver) as approver:
            Proposals(approver).approve(proposed.id, proposed.digest)
        stored = engineer.call("manifest.load", arguments).result
    made = ground.client.run([TOUCH, str(ground.out / "grown")], manifest=str(stored["digest"]))
    expect(made.ok and (ground.out / "grown").exists(), made)
    return "what it adds was named, and refused: approval_required; proposed, approved by another key, loaded, run"


def foreseen(ground: Ground) -> str:
    """Preflight says what a run would be refused for, and runs nothing."""
    manifest = _load(ground, _asking(ground)).digest
    touch = [TOUCH, str(ground.out / "foreseen")]
    seen = ground.client.preflight(manifest=manifest, argv=touch)
    failed = {row.check: row.code for row in seen.rows if row.verdict == "fail"}
    expect(failed == {"consent": "consent_required", "command": "denied"}, f"what fails is {failed}")
    expect(_refused(lambda: ground.client.run(touch, manifest=manifest)) in failed.values(), "a run says otherwise")
    expect(not (ground.out / "foreseen").exists(), "it ran")
    passed = sorted({row.check for row in seen.rows} - failed.keys())
    return f"would be refused: {', '.join(sorted(failed.values()))}; nothing against {', '.join(passed)}; nothing ran"


def asked(ground: Ground) -> str:
    """Nothing runs before the text was agreed to; it is shown in the language that is asked for; then it runs."""
    manifest = _load(ground, _asking(ground)).digest
    count = [COUNT, "-w", str(ground.input / "README.md")]
    met = _refused(lambda: ground.client.run(count, manifest=manifest))
    expect(met == "consent_required", f"before anybody agreed it was met with {met or 'nothing'}")
    consents = Consents(ground.client)
    shown = consents.show(manifest, language="de")
    expect(shown.language == "de" and "Sandbox" in shown.words["text"], f"what was shown is in {shown.language}")
    given = consents.accept(shown)
    counted = ground.client.run(count, manifest=manifest)
    expect(counted.ok, counted)
    consents.decline(shown)
    expect(_refused(lambda: ground.client.run(count, manifest=manifest)) == met, "it runs though it was taken back")
    return f"{met}; shown in German, agreed to (entry {given.seq} of the ledger): runs; taken back: {met}"


def pinned(ground: Ground) -> str:
    """A program is allowed by its digest: another one in its place does not run, and the ledger has which one did."""
    tool = ground.workspace / "tool"
    _put(TRUE, tool, ground.uid)
    digest = hashlib.sha256(tool.read_bytes()).hexdigest()
    manifest = {
        "schema": 1,
        "name": "demo-pinned",
        "command": {"allow": [{"program": str(tool), "sha256": digest}]},
        "filesystem": {"read": [str(tool)]},
    }
    ran = ground.client.run([str(tool)], manifest=manifest)
    expect(ran.ok, ran)
    entry = ground.entry(ran.intent.seq)
    expect(digest in entry, f"the intent is {entry}")
    _put(OTHER, tool, ground.uid)
    met = _refused(lambda: ground.client.run([str(tool)], manifest=manifest))
    expect(met == "denied", f"the other one was met with {met or 'nothing'}")
    return f"sha256:{digest[:12]}… ran, and is in the ledger; another file by that name: {met}"


def _job(ground: Ground, programs: str = "", more: str = "", name: str = "demo-job", after: str = "") -> bytes:
    """A manifest's file: `wc -w` of one text, and what is given."""
    count = f'{{ program = "{COUNT}", arguments = [["-w", "{ground.input}/README.md"]] }}'
    return f"""schema = 1
name = "{name}"
class = "build"
tenants = ["default"]

[command]
allow = [{count}{programs}]

[filesystem]
read = ["{ground.input}"]
{more}
{after}""".encode()


def _asking(ground: Ground) -> bytes:
    return _job(ground, name="demo-asked", after='[consent]\nrequired = true\ntext = "workspace"\nvalid = "5m"\n')


def _signed(ground: Ground, text: bytes) -> bytes:
    now = time.time_ns() // 1_000_000
    return show_signatures([sign(ground.engineer, text, now, now + HOUR)]).encode()


def _load(ground: Ground, text: bytes) -> Loading:
    """Have it in force, signed by the engineer; once is enough."""
    with ground.acting(ground.engineer) as engineer:
        done = engineer.manifests.load(text, _signed(ground, text))
    expect(done.passes, f"it is not in force: {done.stages}")
    return done


def _refused(order: Callable[[], object]) -> str:
    """The code of its refusal; empty where it is none."""
    try:
        order()
    except RemoteError as refusal:
        return refusal.code
    return ""


def _put(program: str, place: Path, uid: int) -> None:
    """That program's file in the place of whatever is there, in one step, as the workspace's owner's."""
    beside = place.with_name(f".{place.name}")
    shutil.copy(program, beside)
    shutil.chown(beside, uid, uid)
    beside.replace(place)
