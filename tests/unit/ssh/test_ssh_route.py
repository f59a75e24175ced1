"""How nodes are reached: who is this host, and what ssh is told."""

from __future__ import annotations

import shlex

from dynctl.ssh.route import Route, remote_command, routes, ssh_argv
from dynctl.topology.load import parse

TEXT = """schema: 1
name: pair
model: builtin:tiny
secret_file: ./secret
nodes:
  a: {address: 10.0.0.1}
  b: {address: 10.0.0.2, ssh: admin@node-b}
  c: {address: 10.0.0.3}
roles: {prefill: {on: [a]}, decode: {workers: 2, on: [b, c]}}
"""


def test_a_node_is_this_host_only_where_no_ssh_is_written() -> None:
    topology = parse(TEXT, source="pair.yaml")
    assert routes(topology, {"10.0.0.1", "10.0.0.2"}) == {
        "a": Route("a", None),
        "b": Route("b", "admin@node-b"),
        "c": Route("c", "10.0.0.3"),
    }


def test_ssh_may_ask_nothing_and_the_destination_is_no_option() -> None:
    argv = ssh_argv("/usr/bin/ssh", "-oProxyCommand=x", "true")
    assert argv[-3:] == ["--", "-oProxyCommand=x", "true"]
    assert "BatchMode=yes" in argv


def test_no_part_of_the_remote_command_is_read_as_more_than_a_path() -> None:
    """The script is one quoted word, and so is the path in it."""
    line = remote_command("/opt/a b/dyn$ctl", None)
    first, shell, flag, script = shlex.split(line)
    assert (first, shell, flag) == ("exec", "sh", "-c")
    assert shlex.split(script)[3:6] == ["/opt/a b/dyn$ctl", "dynctl", "$HOME/.local/bin/dynctl;"]
    assert "!" not in line
    assert "\n" not in line
