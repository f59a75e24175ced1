"""A node of `up --ssh` reads the file as if it had been started there by hand, whatever its directory is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dynctl.cli.ssh_node import own_secret, own_topology
from dynctl.errors import UsageError
from dynctl.ssh.words import Check
from dynctl.topology.load import load_text

TEXT = """schema: 1
name: pair
model: ./weights
secret_file: ./secret
nodes:
  a: {address: 10.0.0.1, hardware: ./a.json}
  b: {address: 10.0.0.2, ssh: admin@node-b}
roles: {prefill: {on: [a]}, decode: {on: [b]}}
"""


def question(base: Path, *sets: str) -> Check:
    file = str(base / "pair.yaml")
    return Check(node="b", text=TEXT, source=file, base=str(base), cwd="/elsewhere", sets=sets)


def test_paths_are_those_of_the_host_where_it_was_typed(tmp_path: Path) -> None:
    topology = own_topology(question(tmp_path, "secret_file=./other"))
    assert topology.model == str(tmp_path / "weights")
    assert topology.secret_file == "/elsewhere/other"
    assert topology.where("nodes", "b", "address") == f"{tmp_path}/pair.yaml:7 nodes.b.address"


def test_it_is_the_topology_of_the_file_less_the_snapshots(tmp_path: Path) -> None:
    written = load_text(TEXT, tmp_path / "pair.yaml")
    topology = own_topology(question(tmp_path))
    assert [node.hardware for node in topology.nodes.values()] == [None, None]
    back = {"a": topology.nodes["a"].model_copy(update={"hardware": str(tmp_path / "a.json")})}
    assert topology.model_copy(update={"nodes": {**topology.nodes, **back}}) == written


def test_the_nodes_own_secret_file_comes_first(tmp_path: Path) -> None:
    topology = own_topology(question(tmp_path))
    assert own_secret(topology, "what the starter handed over") == "what the starter handed over"
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("what lies on the node itself\n")
    assert own_secret(topology, "what the starter handed over") == "what lies on the node itself"


def test_a_secret_that_nobody_has_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not on this node, and the starter has none"):
        own_secret(own_topology(question(tmp_path)), None)


def test_a_secret_is_in_no_representation_but_the_message(tmp_path: Path) -> None:
    asked = msgspec.structs.replace(question(tmp_path), secret="very secret indeed")
    assert "very secret indeed" not in repr(asked)
