"""Host paths beyond the peer's own rights: by name, to the tenant that policy gives the name, read or write."""

from __future__ import annotations

import os
from typing import Any

import pytest

from immured import Client, RunResult
from tests.policies import declare
from tests.tenants.conftest import OWNER, Ground

pytestmark = pytest.mark.needs_root


def shell(client: Client, script: str, **filesystem: Any) -> RunResult:
    return client.run(["/bin/sh", "-c", script], manifest={"schema": 1, "filesystem": filesystem})


def code(client: Client, **filesystem: Any) -> str:
    failure = shell(client, "true", **filesystem).failure
    assert failure is not None
    return str(failure["code"])


def test_what_policy_names_to_a_tenant_it_reads(acme: Client, ground: Ground) -> None:
    result = shell(acme, f"cat {ground.datasets}/note", read=[str(ground.datasets)])
    assert (result.exit_code, result.stdout) == (0, b"datasets\n")


def test_to_another_tenant_it_is_a_directory_that_it_may_not_open(rival: Client, ground: Ground) -> None:
    # As of any other that the peer may not open: of what the operator named, its words tell nothing.
    other = ground.datasets.parent / "results"
    assert code(rival, read=[str(ground.datasets)]) == code(rival, read=[str(other)]) == "path_denied"


def test_what_is_named_to_be_read_is_not_written(acme: Client, ground: Ground) -> None:
    assert code(acme, write=[str(ground.datasets)]) == "path_denied"


def test_what_is_named_to_be_written_is(acme: Client, ground: Ground) -> None:
    result = shell(acme, f"echo new > {ground.results}/made && cat {ground.results}/note", write=[str(ground.results)])
    assert (result.exit_code, result.stdout) == (0, b"results\n")
    made = ground.results / "made"
    assert made.read_text() == "new\n"
    assert made.stat().st_uid == OWNER


def test_a_link_leads_out_of_it_for_nobody(acme: Client, ground: Ground) -> None:
    link = ground.datasets / "way"
    os.symlink("/root", link)
    try:
        assert code(acme, read=[str(link)]) == "path_denied"
    finally:
        link.unlink()


def test_a_name_that_is_taken_back_grants_nothing_more(acme: Client, admin: Client, ground: Ground) -> None:
    before = admin.call("policy.show", {}).result["policy"]
    assert isinstance(before, bytes)
    admin.call("policy.set", {"policy": before.replace(b'"datasets", ', b"")})
    try:
        assert code(acme, read=[str(ground.datasets)]) == "path_denied"
    finally:
        admin.call("policy.set", {"policy": before})
    declare(admin, "")
    assert shell(acme, "true", read=[str(ground.datasets)]).exit_code == 0
