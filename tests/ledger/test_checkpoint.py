"""Checkpoints and verifier keys, byte for byte as C2SP has them."""

from __future__ import annotations

import base64

import pytest

from immured.ledger.checkpoint import Checkpoint, NoteError, VerifierKey, open_checkpoint, open_note, parse_vkeys
from tests.ledger.sample import signer

# From the documentation of golang.org/x/mod/sumdb/note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()

HEAD = Checkpoint("immured/0123", 42, bytes(range(32)))
SIGNER = signer("immured/0123")
NOTE = SIGNER.sign(HEAD)
KEYS = (SIGNER.verifier,)


def test_a_note_signed_by_somebody_elses_program_opens() -> None:
    assert open_note(GO_NOTE, [VerifierKey.parse(GO_VKEY)]).startswith(b"If you think")


def test_a_checkpoint_opens_as_it_was_signed() -> None:
    assert open_checkpoint(NOTE, KEYS) == HEAD


def test_a_checkpoint_is_three_lines_a_blank_one_and_a_signature() -> None:
    lines = NOTE.decode().split("\n")
    assert lines[:4] == ["immured/0123", "42", base64.b64encode(bytes(range(32))).decode(), ""]
    assert lines[4].startswith("\u2014 immured/0123 ")
    assert lines[5:] == [""]


def test_a_verifier_key_reads_back() -> None:
    assert VerifierKey.parse(SIGNER.verifier.encode()) == SIGNER.verifier


def test_a_verifier_key_of_another_program_reads_back() -> None:
    assert VerifierKey.parse(GO_VKEY).encode() == GO_VKEY


def test_a_key_file_may_hold_several_and_remarks() -> None:
    assert parse_vkeys(f"# since 2026\n{SIGNER.verifier.encode()}\n\n{GO_VKEY}\n") == (
        SIGNER.verifier,
        VerifierKey.parse(GO_VKEY),
    )


def test_any_flipped_bit_is_noticed() -> None:
    for position in range(len(NOTE)):
        for bit in range(8):
            flipped = bytearray(NOTE)
            flipped[position] ^= 1 << bit
            with pytest.raises(NoteError):
                open_checkpoint(bytes(flipped), KEYS)


def test_any_truncation_is_noticed() -> None:
    for length in range(len(NOTE)):
        with pytest.raises(NoteError):
            open_checkpoint(NOTE[:length], KEYS)


def test_a_signature_of_an_unknown_key_is_ignored() -> None:
    cosigned = NOTE + signer("witness.example").sign(HEAD).split(b"\n\n")[1]
    assert open_checkpoint(cosigned, KEYS) == HEAD


def test_an_unknown_key_alone_is_not_enough() -> None:
    with pytest.raises(NoteError, match="no known key"):
        open_checkpoint(signer("immured/other").sign(HEAD), KEYS)


def test_a_known_keys_bad_signature_refuses_the_whole() -> None:
    bad = bytearray(base64.b64decode(NOTE.split(b" ")[-1]))
    bad[-1] ^= 1
    line = "\u2014 immured/0123 ".encode() + base64.b64encode(bad) + b"\n"
    with pytest.raises(NoteError, match="does not verify"):
        open_checkpoint(NOTE + line, KEYS)


@pytest.mark.parametrize(
    "text",
    [
        "immured/0123\n042\n" + "A" * 43 + "=\n",
        "immured/0123\n-1\n" + "A" * 43 + "=\n",
        "immured/0123\n42\nAAAA\n",
        "immured/0123\n42\n",
        "\n42\n" + "A" * 43 + "=\n",
        "immured/0123\n42\n" + "A" * 43 + "=\nmore\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    class Text(Checkpoint):
        def text(self) -> bytes:
            return text.encode()

    note = SIGNER.sign(Text("", 0, b""))
    with pytest.raises(NoteError, match="checkpoint"):
        open_checkpoint(note, KEYS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+AhpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)
