"""Why a node can't be used, from what OpenSSH says."""

from __future__ import annotations

import pytest

from dynctl.errors import HostError, UsageError
from dynctl.nodes.failed import Failed
from dynctl.ssh import trouble
from dynctl.ssh.route import Route
from dynctl.ssh.words import FIRST, Alive, Check, Clear, End, Go, Here, Leave, encode, to_node

B = Route("b", "node-b")
OWN = Here(version="1.0", code="c0de", command="/opt/dynctl", host="far")


@pytest.mark.parametrize(
    ("line", "cause", "fix"),
    [
        ("ssh: connect to host 10.0.0.2 port 22: Connection refused", "refuses the connection", "start sshd"),
        ("ssh: connect to host 10.0.0.2 port 22: Connection timed out", "does not answer ssh", "firewall"),
        ("ssh: connect to host 10.0.0.2 port 22: No route to host", "can't be reached", "is it up"),
        ("ssh: Could not resolve hostname node-b: Name or service not known", "can't be resolved", "nodes.b.ssh"),
        ("me@10.0.0.2: Permission denied (publickey,password).", "asks for a password", "ssh-copy-id node-b"),
        ("Host key verification failed.", "host key that is not known", "`ssh node-b` once by hand"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "another host key", "ssh-keygen -R"),
        ("kex_exchange_identification: Connection closed by remote host", "hung up", "ssh server"),
        ("/home/me/.ssh/config: line 3: Bad configuration option: foo", "does not take its configuration", "config"),
        ("something quite new", "can't be reached by ssh", "ssh -v node-b"),
    ],
)
def test_each_way_in_which_ssh_fails_has_a_cause_and_a_fix(line: str, cause: str, fix: str) -> None:
    error = trouble.unreached(B, 255, ["noise", line])
    assert isinstance(error, HostError)
    assert error.cause.startswith("node b (node-b) ")
    assert cause in error.cause
    assert fix in (error.fix or "")
    assert line.strip(" @")[:20] in " ".join(error.why)


def test_a_changed_key_is_not_taken_for_an_unknown_one() -> None:
    lines = ["@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."]
    assert "another host key" in trouble.unreached(B, 255, lines).cause


@pytest.mark.parametrize(
    ("version", "code", "cause"),
    [("1.1", "c0de", "has dynctl 1.1, this host 1.0"), ("1.0", "0ther", "has dynctl 1.0 too, but with other code")],
)
def test_another_dynctl_is_refused(version: str, code: str, cause: str) -> None:
    error = trouble.other_dynctl(B, Here(version=version, code=code, command="/usr/bin/dynctl", host="far"), OWN)
    assert isinstance(error, UsageError)
    assert cause in error.cause
    assert "/usr/bin/dynctl on far" in error.why[0]


def test_the_same_dynctl_is_accepted() -> None:
    assert trouble.other_dynctl(B, OWN, OWN) is None


def test_the_node_at_fault_is_found_behind_those_that_fell_over_it() -> None:
    first = Failed(exit_code=1, cause="node b failed: decode-0 died")
    cause = Failed(exit_code=3, cause="decode-0 died", fix="see its log")
    assert trouble.culprit({"a": first, "b": cause}) == ("b", cause)
    assert trouble.culprit({"a": first}) == ("a", first)
    error = trouble.refused("b", cause)
    assert (error.cause, error.exit_code, error.fix) == ("node b: decode-0 died", 3, "on node b: see its log")


def test_a_node_that_is_named_already_is_not_named_twice() -> None:
    assert trouble.refused("b", Failed(exit_code=3, cause="port 1 of node b is in use")).cause.count("node b") == 1
    assert trouble.refused("b", Failed(exit_code=3, cause="node bb is odd")).cause == "node b: node bb is odd"


def test_further_nodes_in_trouble_are_told_in_one_line_each() -> None:
    error = trouble.first_of([HostError(f"node n{number} is away") for number in range(9)])
    assert error.why == (*(f"and node n{number} is away" for number in range(1, 7)), "and 2 more nodes")


def test_what_is_said_arrives_as_it_was() -> None:
    check = Check(node="b", text="x: '\n'", source="f", base="/", cwd="/", secret="s" * 16)
    for message in (check, Go(), Alive(), End(grace_s=1.5, now=True), Leave(), Clear(name="pair")):
        line = encode(message)
        assert line.count(b"\n") == 1
        assert to_node(line) == message
    assert encode(OWN).startswith(FIRST)
