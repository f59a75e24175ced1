"""`dynctl up FILE --ssh` from one host of namespaces to another, whose OpenSSH server is inside."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.e2e.hosts import Host, ip, reason_to_skip, two_hosts
from tests.integration.command import Command
from tests.integration.nodes_harness import SECRET, Nodes, nodes
from tests.integration.run_harness import Home
from tests.integration.sshd_harness import Ssh, needs_sshd
from tests.integration.test_ssh import TWO, session_env

MakeHome = Callable[[], Home]
REASON = reason_to_skip()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")
PORT = 2222


class Site:
    """Node a, where commands are typed, and node b with a server."""

    def __init__(self, hosts: tuple[Host, Host], two: Nodes, ssh: Ssh) -> None:
        self.hosts, self.two, self.ssh = hosts, two, ssh
        self.env = {**two.first.env, "DYNCTL_SECRET": SECRET, "PATH": f"{ssh.bin}:{two.first.env['PATH']}"}

    def up(self, *flags: str) -> Command:
        """Starts both from a."""
        work = self.two.first.dir / "work"
        return self.hosts[0].dynctl("up", str(self.two.file), "--ssh", *flags, env=self.env, cwd=work)

    def nothing_left(self) -> None:
        """Waits until nothing of the run is alive on either."""
        for home in self.two.homes.values():
            home.nothing_left()


@contextmanager
def site(make_home: MakeHome) -> Iterator[Site]:
    needs_sshd()
    with two_hosts(own_pids=True) as hosts:
        listed = {
            "a": {"address": hosts[0].address},
            "b": {"address": hosts[1].address, "ssh": f"ssh://{hosts[1].address}:{PORT}"},
        }
        with nodes(make_home, TWO, {"nodes": listed}) as two:
            ssh = Ssh(two.first.dir)
            ssh.serve(
                hosts[1].address,
                hosts[1].address,
                session_env(two.homes["b"]),
                port=PORT,
                launch=lambda argv: hosts[1].command(*argv, env=os.environ, cwd=ssh.dir).process,
            )
            try:
                yield Site(hosts, two, ssh)
            finally:
                ssh.close()


def test_two_hosts_are_started_and_ended_from_one(make_home: MakeHome) -> None:
    with site(make_home) as pair:
        command = pair.up()
        name = pair.two.first.name
        command.says(f" a  run          {name} is ready")
        command.says(f" b  run          {name} is ready")
        with pair.hosts[0].threads() as inside:
            assert inside.submit(pair.two.first.ask).result().status_code == 200
        (inner,) = psutil.Process(command.process.pid).children()
        inner.send_signal(signal.SIGINT)
        assert command.wait().code == 130
        pair.nothing_left()


def test_a_host_that_drops_everything_is_named_in_time(make_home: MakeHome) -> None:
    with site(make_home) as pair:
        here = pair.hosts[0]
        # what is sent to b goes to an interface that nobody has
        lost = ("lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", here.device)
        ip("-n", here.name, "neigh", "replace", pair.hosts[1].address, *lost)
        ended = pair.up().wait()
        assert ended.code == 3
        (said,) = ended.error()["error"]
        assert said == f"node b (ssh://10.99.0.2:{PORT}) does not answer ssh within 10 s"
        pair.nothing_left()
