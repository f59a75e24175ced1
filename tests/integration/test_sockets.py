"""Everything that a run listens on is loopback."""

from __future__ import annotations

import contextlib
import ipaddress

import psutil

from tests.integration.run_harness import Home


def test_a_run_listens_on_loopback_only(home: Home) -> None:
    home.up({"roles": {"prefill": {"workers": 2}}})
    planned = {port for p in home.status()["processes"] for port in p["ports"].values()}
    listening = set()
    for process in home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN or not connection.raddr:
                    listening.add((connection.laddr.ip, connection.laddr.port))
    assert {port for _, port in listening} >= planned
    others = {address for address, _ in listening if not ipaddress.ip_address(address).is_loopback}
    assert not others, listening
