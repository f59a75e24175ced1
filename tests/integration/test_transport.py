"""The verdict on the KV path is what UCX says it uses, and a path slower than required is an error."""

from __future__ import annotations

import pytest

from tests.integration.run_harness import Home
from tests.integration.test_up_failures import failed


def test_shared_memory_is_named_with_its_evidence(home: Home) -> None:
    home.up({"transport": {"require": "shm"}})
    transport = home.status()["transport"]
    assert (transport["required"], transport["verdict"]) == ("shm", "shm")
    assert any("ucp_get" in item["line"] and "cma/memory" in item["line"] for item in transport["evidence"])


def test_a_path_that_is_slower_than_required_fails(home: Home) -> None:
    home.control(ucx_class="tcp")
    error = failed(home, home.run("up", "-d", home.topology({"transport": {"require": "shm"}})), 4)
    assert "prefill-0 -> decode-0: UCX refused to emulate the transfer; shm is required" in error["error"][0]
    assert "transport.require: shm" in error["at"][0]
    assert "CMA" in " ".join(error["why"])
    assert any("No zero-copy protocol" in line for line in error["why"])
    assert any("tcp/lo" in line for line in error["why"])
    assert error["fix"]


def test_forced_tcp_is_tcp(home: Home) -> None:
    home.up({"transport": {"env": {"UCX_TLS": "tcp"}}})
    transport = home.status()["transport"]
    assert (transport["required"], transport["verdict"]) == ("auto", "tcp")
    assert any("tcp/lo" in item["line"] for item in transport["evidence"])
    assert home.ask().status_code == 200


def test_forced_tcp_is_not_shared_memory(home: Home) -> None:
    changes = {"transport": {"require": "shm", "env": {"UCX_TLS": "tcp"}}}
    error = failed(home, home.run("up", "-d", home.topology(changes)), 4)
    assert "shm is required" in error["error"][0]
    assert "UCX_TLS=tcp allows nothing faster than tcp" in " ".join(error["why"])
    assert "transport.env" in error["fix"][0]


def test_an_inherited_setting_does_not_steer_the_path(home: Home) -> None:
    done = home.run("up", "-d", home.topology(), env={"UCX_TLS": "tcp"})
    assert done.code == 0, done.err
    status = home.status()
    assert status["transport"]["verdict"] == "shm"
    assert any("UCX_TLS" in warning for warning in status["warnings"])


@pytest.mark.parametrize("require", ["rdma", "nvlink"])
def test_what_the_machine_lacks_starts_nothing(home: Home, require: str) -> None:
    done = home.run("up", "-d", home.topology({"transport": {"require": require}}))
    assert done.code == 4
    error = done.error()
    assert f"require: {require}" in error["error"][0]
    assert "transport.require" in error["at"][0]
    assert error["why"]
    assert error["fix"]
    assert not home.processes()
    assert home.run("status", home.name).code == 5


def hurry(home: Home) -> None:
    """Proofs wait one second, not fifteen, for what will not come."""
    home.hook("_supervise", "from dynctl.proof import pair\npair.SETTLE_S = 1.0")


def test_kv_that_does_not_move_is_not_ready(home: Home) -> None:
    hurry(home)
    home.control(decode={"no_transfer": True})
    error = failed(home, home.run("up", "-d", home.topology()), 1)
    assert "a pair could not be proven" in error["error"][0]
    assert "0 KV bytes moved" in error["error"][0]
    assert "prefill-0 -> decode-0" in error["at"][0]


def test_a_path_that_ucx_does_not_name_is_not_ready(home: Home) -> None:
    hurry(home)
    changes = {"transport": {"require": "shm", "env": {"UCX_PROTO_INFO": "n"}}}
    error = failed(home, home.run("up", "-d", home.topology(changes)), 4)
    assert "goes over unknown; shm is required" in error["error"][0]
    assert "named no protocol" in " ".join(error["why"])
    assert "UCX_PROTO_INFO" in error["fix"][0]


def test_without_a_gpu_auto_takes_a_path_that_ucx_does_not_name(home: Home) -> None:
    hurry(home)
    home.up({"transport": {"env": {"UCX_PROTO_INFO": "n"}}})
    transport = home.status()["transport"]
    assert (transport["verdict"], transport["evidence"]) == ("unknown", [])


def test_a_transfer_that_ucx_refuses_is_a_transport_error(home: Home) -> None:
    changes = {"transport": {"env": {"UCX_TLS": "tcp", "UCX_PROTO_EMULATION_ENABLE": "n"}}}
    error = failed(home, home.run("up", "-d", home.topology(changes)), 4)
    assert "a pair could not be proven" in error["error"][0]
    assert any("No zero-copy protocol" in line for line in error["why"])
    assert "UCX_PROTO_EMULATION_ENABLE" in error["fix"][0]


def test_a_transport_that_the_host_lacks_is_explained(home: Home) -> None:
    error = failed(home, home.run("up", "-d", home.topology({"transport": {"env": {"UCX_TLS": "rc"}}})), 1)
    assert "UCX has no usable transport" in " ".join(error["why"])
