"""What a client's program pays for the import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S

DAEMONS_OWN = ("asyncio", "click", "cffi", "psutil", "pyroute2", "msgspec", "prctl", "immured._abi", "immured._core")


def loaded_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(chr(10).join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=PATIENCE_S
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", DAEMONS_OWN)
def test_the_blocking_client_needs_none_of_the_daemon_s_modules(name: str) -> None:
    assert name not in loaded_by("from immured import Client")


def test_immured_alone_loads_neither_msgpack_nor_cryptography() -> None:
    assert not {"msgpack", "cryptography"} & loaded_by("import immured")


def test_every_public_name_is_there() -> None:
    import immured

    assert all(getattr(immured, name) is not None for name in immured.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import immured

    with pytest.raises(AttributeError):
        immured.Clinet  # noqa: B018
