"""The launcher's SHA-256, by the processor's own instructions and without, against the library's."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.launcher.conftest import FLAGS, SOURCES

# Reads a length in decimal, a newline, and so many bytes, again and again; in pieces of `argv[1]`.
PROGRAM = r"""
#include "sha256.h"
#include <stdio.h>
#include <stdlib.h>
bool no_processor_can(void);
bool no_processor_can(void)
{
  return false;
}
int main(int argc, char **argv)
{
  const size_t piece = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
  for (size_t left; scanf("%zu", &left) == 1 && getchar() == '\n';) {
    struct sha256 sum;
    unsigned char digest[SHA256_SIZE], *buffer = malloc(piece);
    sha256_begin(&sum);
    for (size_t got; left > 0; left -= got) {
      got = fread(buffer, 1, left < piece ? left : piece, stdin);
      if (got == 0)
        return 1;
      sha256_add(&sum, buffer, got);
    }
    sha256_end(&sum, digest);
    for (size_t i = 0; i < sizeof digest; i++)
      printf("%02x", digest[i]);
    puts("");
    free(buffer);
  }
}
"""


@pytest.fixture(scope="module", params=["by the processor", "without"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second is what a processor without the instructions, or another machine, gets."""
    folder = tmp_path_factory.mktemp("sha256")
    source = folder / "digest.c"
    source.write_text(PROGRAM)
    flags = [*FLAGS, f"-I{SOURCES}", *(["-Dsha256_x86_can=no_processor_can"] if request.param == "without" else [])]
    objects = []
    for path in (source, SOURCES / "sha256.c", SOURCES / "sha256_x86.c"):
        objects.append(folder / f"{path.stem}.o")
        own = flags if path.stem == "sha256" else [*FLAGS, f"-I{SOURCES}"]
        subprocess.run(["gcc", *own, "-c", path, "-o", objects[-1]], check=True)
    subprocess.run(["gcc", *FLAGS, *objects, "-o", folder / "digest"], check=True)
    return folder / "digest"


def digests(program: Path, contents: list[bytes], piece: int) -> list[str]:
    data = b"".join(b"%d\n" % len(one) + one for one in contents)
    done = subprocess.run([program, str(piece)], input=data, capture_output=True, check=True)
    return done.stdout.decode().split()


@pytest.mark.parametrize("piece", [1, 63, 64, 65, 4096])
def test_every_length_about_a_block(program: Path, piece: int) -> None:
    contents = [bytes(range(256))[:length] for length in (*range(131), 255, 256)]
    assert digests(program, contents, piece) == [hashlib.sha256(one).hexdigest() for one in contents]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(contents=st.lists(st.binary(max_size=3000), min_size=1, max_size=8), piece=st.integers(1, 700))
def test_any_bytes_in_any_pieces(program: Path, contents: list[bytes], piece: int) -> None:
    assert digests(program, contents, piece) == [hashlib.sha256(one).hexdigest() for one in contents]
