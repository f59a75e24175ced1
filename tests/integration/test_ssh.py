"""`dynctl up FILE --ssh`: several nodes started, watched and ended from one place, over a private OpenSSH server."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.integration.nodes_harness import SECRET, Nodes, nodes
from tests.integration.run_harness import Command, Home, T
from tests.integration.sshd_harness import Ssh, needs_sshd

MakeHome = Callable[[], Home]
TWO = {"prefill-0": "a", "decode-0": "b"}
OWN = ("DYNCTL_TEST_HOME", "DYNCTL_ENGINE_PYTHON", "TMPDIR", "XDG_", "FAKE_ENGINE_")


class Fleet:
    """Two nodes: `a` is where the command is typed, `b` is reached by ssh."""

    def __init__(self, two: Nodes, ssh: Ssh) -> None:
        self.two, self.ssh = two, ssh
        self.first = two.first
        self.env = {"DYNCTL_SECRET": SECRET, "PATH": f"{ssh.bin}:{self.first.env['PATH']}"}

    def up(self, *flags: str, env: T | None = None) -> Command:
        return self.first.start("up", self.two.file, "--ssh", *flags, env={**self.env, **(env or {})})

    def nothing_left(self) -> None:
        for home in self.two.homes.values():
            home.nothing_left()


def session_env(home: Home) -> dict[str, str]:
    """What a login at that home's node has of its own."""
    return {name: value for name, value in home.env.items() if name.startswith(OWN)}


@contextmanager
def fleet(make_home: MakeHome, changes: T | None = None, **server: object) -> Iterator[Fleet]:
    """Two nodes and b's ssh server."""
    needs_sshd()
    with nodes(make_home, TWO, {"nodes": {"b": {"ssh": "node-b"}}, **(changes or {})}) as two:
        ssh = Ssh(two.first.dir)
        try:
            ssh.serve("node-b", "127.0.0.3", session_env(two.homes["b"]), **server)
            yield Fleet(two, ssh)
        finally:
            ssh.close()


def test_one_command_starts_all_nodes_and_leaves_them(make_home: MakeHome) -> None:
    with fleet(make_home) as both:
        done = both.up("-d").wait()
        assert done.code == 0, done.err
        assert " a  prefill-0    loading weights" in done.err
        assert " b  decode-0     loading weights" in done.err
        assert f"{both.first.name} is ready at {both.first.url}/v1 on node a" in done.err
        assert both.first.ask().status_code == 200
        for node in "ab":
            status = both.two.await_status(node, lambda s: s["state"] == "ready", "ready")
            assert [n["state"] for n in status["nodes"]] == ["ready", "ready"]
        ended = both.first.run("down", both.first.name, "--all")
        assert ended.code == 0, ended.err
        both.nothing_left()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_the_end_of_the_command_is_the_end_everywhere(make_home: MakeHome, number: signal.Signals, code: int) -> None:
    with fleet(make_home) as both:
        command = both.up("--json")
        command.says('"node":"b","seq":1,')
        both.two.await_status("b", lambda s: s["state"] == "ready", "ready")
        command.signal(number)
        ended = command.wait()
        assert ended.code == code, ended.err
        both.nothing_left()
        if number != signal.SIGKILL:
            last = {event["node"]: event for event in map(json.loads, ended.out.splitlines())}
            assert {node: event["state"] for node, event in last.items()} == {"a": "stopped", "b": "stopped"}
