"""`dynctl up FILE --ssh`: several nodes started, watched and ended from one place, over a private OpenSSH server."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dynctl.ssh.code import own_command
from tests.integration.nodes_harness import SECRET, Nodes, nodes
from tests.integration.run_harness import PATIENCE_S, Command, Home, T, until
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

    def up(self, *flags: str, env: T | None = None, terminal: T | None = None) -> Command:
        """`terminal`: the streams of one, which becomes that of the command."""
        options = {**terminal, "start_new_session": True, "preexec_fn": take_terminal} if terminal else {}
        return self.first.start("up", self.two.file, "--ssh", *flags, env={**self.env, **(env or {})}, **options)

    def nothing_left(self) -> None:
        for home in self.two.homes.values():
            home.nothing_left()


def take_terminal() -> None:
    """Makes stdin the terminal that ends this process when it goes away."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


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


def test_the_end_of_the_terminal_is_the_end_everywhere(make_home: MakeHome) -> None:
    with fleet(make_home) as both:
        master, slave = pty.openpty()
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        command = both.up(env={"TERM": "xterm", "COLUMNS": "120"}, terminal=streams)
        os.close(slave)
        for home in both.two.homes.values():
            until(lambda home=home: home.run("status", home.name).code == 0, "it runs")
            home.await_status(lambda s: s["state"] == "ready", "ready")
        os.close(master)
        command.process.wait(PATIENCE_S)
        both.nothing_left()


def test_a_node_whose_dynctl_is_killed_ends_the_run_and_is_cleared(make_home: MakeHome) -> None:
    with fleet(make_home) as both:
        command = both.up()
        command.says("a  run          " + f"{both.first.name} is ready")
        both.two.await_status("b", lambda s: s["state"] == "ready", "ready")
        (there,) = [p for p in both.two.homes["b"].processes() if p.cmdline()[-1] == "_node"]
        there.kill()
        ended = command.wait()
        assert ended.code == 1
        assert "error: the ssh connection to node b (node-b) was lost" in ended.err
        both.nothing_left()


def test_a_lost_connection_while_starting_ends_the_run(make_home: MakeHome) -> None:
    with fleet(make_home) as both:
        both.two.homes["b"].control(decode={"hang_at_phase": "weights"})
        command = both.up("-d")
        command.says("b  decode-0     loading weights")
        both.ssh.cut("node-b")
        ended = command.wait()
        assert ended.code == 1
        assert "error: the ssh connection to node b (node-b) was lost" in ended.err
        both.nothing_left()


def test_a_failure_on_one_node_ends_all_and_is_told_once(make_home: MakeHome) -> None:
    with fleet(make_home) as both:
        both.two.homes["b"].control(decode={"die_at_phase": "weights"})
        ended = both.up("-d").wait()
        assert ended.code == 1
        assert ended.error()["error"] == ["node b: decode-0 died while loading weights (exit code 1)"], ended.err
        assert ended.error()["fix"] == ["on node b: `dynctl logs decode-0` shows its whole log"]
        both.nothing_left()


def test_a_node_that_can_not_take_part_is_named_before_anything_starts(make_home: MakeHome) -> None:
    with fleet(make_home) as both:
        plan = both.first.run("plan", both.two.file, "--node", "a", "--json").json()
        port = next(p["ports"]["http"] for p in plan["processes"] if p["id"] == "decode-0")
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.3", port))
            holder.listen()
            ended = both.up().wait()
        assert ended.code == 3
        assert ended.error()["error"] == [f"port {port} of node b is in use"]
        assert "starting" not in ended.err
        both.nothing_left()


def test_every_node_that_can_not_be_asked_is_named_with_its_cause(make_home: MakeHome) -> None:
    changes = {"nodes": {"a": {"ssh": "node-a"}, "b": {"ssh": "node-b"}}}
    with fleet(make_home, changes, known=False) as both:
        with socket.socket() as closed:
            closed.bind(("127.0.0.2", 0))
            both.ssh.alias("node-a", "127.0.0.2", closed.getsockname()[1])
            ended = both.up().wait()
        assert ended.code == 3
        said = ended.error()
        assert said["error"] == ["node a (node-a) refuses the connection: no ssh server listens there"]
        assert said["why"][-1] == "and node b (node-b) has a host key that is not known here"
        both.nothing_left()


@pytest.mark.parametrize(
    ("script", "code", "cause"),
    [
        ("exit 127", 3, "there is no dynctl on node b (node-b)"),
        ("cat /dev/urandom", 3, "what answers on node b (node-b) is no dynctl"),
        (
            """echo Hi; echo '{"op":"here","version":"9.9","code":"","command":"/opt/dynctl","host":"far"}'; cat""",
            2,
            "node b (node-b) has dynctl 9.9, this host 0",
        ),
    ],
)
def test_a_node_with_another_dynctl_or_none_is_refused(make_home: MakeHome, script: str, code: int, cause: str) -> None:
    with fleet(make_home) as both:
        ended = both.up("--ssh-dynctl", str(both.ssh.program("there", script))).wait()
        assert ended.code == code, ended.err
        assert ended.error()["error"][0].startswith(cause)
        both.nothing_left()


def test_a_login_shell_that_prints_does_not_disturb(make_home: MakeHome) -> None:
    with fleet(make_home) as both:
        noisy = both.ssh.program("noisy", f'echo Welcome; exec {own_command()} "$@"')
        done = both.up("-d", "--ssh-dynctl", str(noisy)).wait()
        assert done.code == 0, done.err


@pytest.mark.parametrize("when", ["while the nodes are asked", "while they check", "while they start"])
def test_ctrl_c_at_any_time_leaves_nothing(make_home: MakeHome, when: str) -> None:
    with fleet(make_home) as both:
        far = both.two.homes["b"]
        far.control(decode={"hang_at_phase": "weights"})
        path = None
        if when == "while the nodes are asked":
            path = both.ssh.program(
                "slow-dynctl", "echo here >&2; exec cat >/dev/null"
            )  # silent, and ends with its stdin
        elif when == "while they check":
            far.hook("_node", "from dynctl.cli import up\nimport time\nup.check = lambda *_: time.sleep(1000)")
        command = both.up(*(["--ssh-dynctl", str(path)] if path else []))
        if when == "while they start":
            command.says("b  decode-0     loading weights")
        else:
            until(lambda: both.ssh.sessions("node-b"), "a session on b")
            until(lambda: len(far.processes()) > 0, "something runs on b")
        command.signal(signal.SIGINT)
        assert command.wait().code == 130
        both.nothing_left()
