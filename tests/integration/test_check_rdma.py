"""`dynctl check-rdma` with wrong flags, hosts that can't try, and strangers at the door."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import jsonschema
import msgspec
import pytest

from dynctl.fabric.report import Report
from tests.fakes.environment import VERSIONS, build_fake_environment
from tests.integration.run_harness import Command, Home

TOKEN = "a-token-that-both-ends-know"


@pytest.mark.parametrize(("arguments", "cause"), [
    (["--size", "lots"], "must be a number of bytes"),
    (["--size", "1K"], "between 4 KiB and 4 GiB"),
    (["--watch", "10"], "must be a duration"),
    (["--require", "warp"], "warp"),
    (["--root", "nowhere"], "there is no directory nowhere"),
    (["--report", "no/such/page.html"], "can't write no/such/page.html"),
    (["--report", "."], "can't write ."),
    (["--peer", "a:b:c:"], "there is no host"),
    (["--peer", "host:0"], "is not HOST[:PORT]"),
    (["--listen", "host:x"], "is not HOST[:PORT]"),
    (["--listen", "--peer", "host"], "are for different nodes"),
    (["--listen", "--root", "/"], "can't talk to a peer"),
    (["--token-file", "x"], "is for --listen and --peer"),
    (["--peer", "host", "--token-file", "none"], "can't read the token"),
    (["no-such-file.yaml"], "there is no such file"),
])  # fmt: skip
def test_a_wrong_command_line(home: Home, arguments: list[str], cause: str) -> None:
    env = {"DYNCTL_TOKEN": TOKEN} if "a:b:c:" in arguments else {}
    done = home.run("check-rdma", *arguments, env=env)
    assert done.code == 2, done.err
    assert cause in done.error()["error"][0] + " ".join(done.error()["why"])
    assert done.out == ""


def test_a_peer_needs_a_token(home: Home) -> None:
    done = home.run("check-rdma", "--peer", "127.0.0.1:9")
    assert done.code == 2
    assert "DYNCTL_TOKEN" in done.error()["fix"][0]


def test_no_interpreter(home: Home) -> None:
    done = home.run("check-rdma", home.topology(), env={"DYNCTL_ENGINE_PYTHON": "/nonexistent/python"})
    assert done.code == 3
    assert done.error()["fix"]


def test_an_interpreter_without_nixl(home: Home, tmp_path: Path) -> None:
    versions = {name: version for name, version in VERSIONS.items() if name != "nixl"}
    python = build_fake_environment(tmp_path / "env", versions)
    done = home.run("check-rdma", home.topology(), env={"DYNCTL_ENGINE_PYTHON": str(python)})
    assert done.code == 3
    assert "nixl" in done.error()["error"][0]


def test_a_nixl_that_is_none_is_a_row_with_its_fix(home: Home) -> None:
    done = home.run("check-rdma", home.topology(), "--json", "--size", "64K")
    assert done.code == 4, done.err
    document = done.json()
    jsonschema.validate(document, msgspec.json.schema(Report), cls=jsonschema.Draft202012Validator)
    assert (document["ok"], document["verdict"]) == (False, "unknown")
    assert any(row["id"] == "ucx" and row["status"] == "fail" and row["fix"] for row in document["checks"])
    assert document["pairs"][0]["error"]


def test_a_recorded_node(home: Home) -> None:
    (home.dir / "work/tree").mkdir()
    done = home.run("check-rdma", home.topology(), "--root", "tree", "--report", "page.html")
    assert done.code == 0, done.out + done.err
    assert done.out.startswith("ok: no transfer was made")
    assert (home.dir / "work/page.html").read_text().startswith("<!doctype html>")
    required = home.run("check-rdma", home.topology(), "--root", "tree", "--require", "rdma", "--json")
    assert required.code == 4
    assert any(row["id"] == "dev" and row["status"] == "fail" for row in json.loads(required.out)["checks"])


def listening(home: Home, *arguments: str, token: str | None = TOKEN) -> tuple[Command, int]:
    """A listener, and its port."""
    port = home.free_port()
    env = {"DYNCTL_TOKEN": token} if token else {}
    command = home.start("check-rdma", "--listen", f"127.0.0.1:{port}", *arguments, env=env)
    command.says("listening on")
    return command, port


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"", b"\x00\x00\x00\x02{}"])
def test_a_stranger_ends_the_listener(home: Home, said: bytes) -> None:
    command, port = listening(home)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        done = command.wait(30)
    assert done.code == 4
    assert done.error()["error"]
    assert done.error()["fix"]


def test_the_token_is_printed_unless_it_was_given(home: Home) -> None:
    command, _ = listening(home)
    assert "token:" not in command.err
    other, port = listening(home, token=None)
    assert "token: " in other.err
    token = other.err.split("token: ")[1].split()[0]
    assert f"dynctl check-rdma --peer 127.0.0.1:{port}" in other.err
    assert token not in " ".join(other.process.args)  # type: ignore[arg-type]


def test_two_ends_tell_the_same_when_neither_has_nixl(home: Home) -> None:
    """The handshake and the report work without a transfer: each end says what is wrong with which node."""
    command, port = listening(home, "--json")
    peer = home.run("check-rdma", "--peer", f"127.0.0.1:{port}", "--json", env={"DYNCTL_TOKEN": TOKEN})
    done = command.wait(60)
    assert (peer.code, done.code) == (4, 4), peer.err + done.err
    documents = [peer.json(), done.json()]
    assert documents[0]["checks"] == documents[1]["checks"]
    assert all("NIXL does not start on" in pair["error"] for pair in documents[0]["pairs"])
    assert {(pair["from"], pair["to"]) for pair in documents[0]["pairs"]} == {
        ("listener", "connector"),
        ("connector", "listener"),
    }


def test_the_wrong_token(home: Home) -> None:
    command, port = listening(home)
    peer = home.run("check-rdma", "--peer", f"127.0.0.1:{port}", env={"DYNCTL_TOKEN": TOKEN + "x"})
    assert peer.code == 2
    assert "refuses this token" in peer.error()["error"][0]
    assert command.wait(30).code == 4
