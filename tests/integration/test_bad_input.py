"""Wrong files, environments and moments: the right exit code and a cause, and nothing started or overwritten."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from dynctl.cli import app
from tests.fakes.environment import VERSIONS, build_fake_environment
from tests.integration.run_harness import Home, Result, T

Write = Callable[[Path, bytes], object]
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b",".join([b"*%c" % (letter - 1)] * 9)) for letter in range(98, 107)
)


@pytest.fixture
def inside(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """The home, entered by the test process itself: commands that start nothing are called, not executed."""
    for name in set(os.environ) - set(home.env):
        monkeypatch.delenv(name)
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home.dir / "work")
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    yield home
    home.nothing_left()


def call(*arguments: str | Path) -> Result:
    """`dynctl ...` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.run([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def refused(home: Home, done: Result, code: int, *words: str) -> dict[str, list[str]]:
    """Its error: one cause, a place and a fix, these words among them; the run does not exist and nothing is alive."""
    assert done.code == code, done.err
    assert done.out == ""
    error = done.error()
    assert len(error["error"]) == 1, done.err
    assert error["at"], done.err
    assert error["fix"], done.err
    for word in words:
        assert word in done.err, done.err
    assert not list((home.dir / "state").glob(f"dynctl/*/{home.name}"))
    assert call("status", home.name).code == 5
    return error


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\x7fELF\x02\x01\x01\x00\x00\x93\xff\xfe" * 50, "", id="binary"),
        pytest.param(BOMB, "", id="bomb"),
        pytest.param(b"x: " + b"y" * 10_000_000, "", id="10 MB"),
        pytest.param(b"schema: 1\nroles:\n\tprefill: {}\n", "tab", id="tabs"),
        pytest.param(b"schema: 1\nname: a\nname: b\n", "name", id="duplicate"),
        pytest.param(b"[" * 5000, "", id="depth"),
        pytest.param(b"- a\n- b\n", "", id="list"),
        pytest.param("schema: 1\nname: \u202eevil\n".encode(), "", id="bidi"),
    ],
)
def test_a_file_that_is_no_topology(inside: Home, content: bytes, word: str) -> None:
    file = inside.dir / "work" / f"{inside.name}.yaml"
    file.write_bytes(content)
    error = refused(inside, call("up", "-d", file), 2, word)
    assert str(file) in error["at"][0]
    assert file.read_bytes() == content


def test_a_file_that_is_not_there(inside: Home) -> None:
    refused(inside, call("up", "-d", "no-such.yaml"), 2, "no such file")
    refused(inside, call("up", "-d", "../../no/such.yaml"), 2, "no such file")
    refused(inside, call("up", "-d", inside.dir / "work"), 2, "directory")
    inside.topology()
    assert "topology.yaml" in call("up", "-d", "topolgy.yaml").err


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"roles": {"prefill": {"workers": 0}}}, "roles.prefill.workers"),
        ({"roles": {"prefill": {"workers": 1_000_000}}}, "roles.prefill.workers"),
        ({"roles": {"prefill": {"workers": "two"}}}, "roles.prefill.workers"),
        ({"roles": {"prefill": {"workers": True}}}, "roles.prefill.workers"),
        ({"roles": {"decode": None}}, "roles"),
        ({"roles": {"prefil": {}}}, "prefil"),
        ({"roles": ["prefill"]}, "roles"),
        ({"name": "../x"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "n" * 41}, "name"),
        ({"frontend": {"port": 70_000}}, "frontend.port"),
        ({"frontend": {"host": "0.0.0.0"}}, "frontend.host"),
        ({"ready": {"timeout": 30}}, "ready.timeout"),
        ({"roles": {"decode": {"args": {"port": 9}}}}, "roles.decode.args.port"),
        ({"roles": {"decode": {"args": {"kv_transfer_config": {}}}}}, "roles.decode.args"),
        ({"roles": {"decode": {"args": {"block-size": 64}}}}, "roles.decode.args"),
        ({"engine": "sglang"}, "engine"),
        ({"engine": "vlm"}, "engine"),
        ({"model": "builtin:huge"}, "model"),
        ({"roles": {"decode": {"pin": [{"nics": ["mlx5_9"]}]}}}, "roles.decode.pin"),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(inside: Home, changes: T, place: str) -> None:
    file = inside.topology(changes)
    error = refused(inside, call("up", "-d", file), 2, place)
    path, _, rest = error["at"][0].partition(":")
    assert path == str(file)
    assert rest.split(" ")[0].isdigit(), error["at"]


def test_more_gpus_than_there_are(inside: Home) -> None:
    from dynctl.hardware.discover import discover

    gpus = len(discover().gpus)
    refused(inside, call("up", "-d", inside.topology({"roles": {"decode": {"gpus": gpus + 1}}})), 3, "GPU")


def test_overrides_are_checked_too(inside: Home) -> None:
    file = inside.topology()
    refused(inside, call("up", "-d", file, "--set", "roles.decode.workers=0"), 2, "roles.decode.workers")
    refused(inside, call("up", "-d", file, "--set", "roles.decode.wrokers=1"), 2, "workers")
    assert call("up", "-d", file, "--set", "nonsense").code == 2


def test_a_model_that_is_not_there(inside: Home) -> None:
    refused(inside, call("up", "-d", inside.topology({"model": "/no/such/model"})), 2, "no model at /no/such/model")
    (inside.dir / "work" / "empty").mkdir()
    refused(inside, call("up", "-d", inside.topology({"model": "./empty"})), 2, "config.json")


def test_an_interpreter_that_is_not_there(inside: Home) -> None:
    refused(inside, call("up", "-d", inside.topology({"python": "/no/such/python"})), 3, "/no/such/python")
    refused(inside, call("up", "-d", inside.topology({"python": str(inside.dir)})), 3, str(inside.dir))


def test_an_interpreter_that_is_none(inside: Home) -> None:
    refused(inside, call("up", "-d", inside.topology({"python": "/bin/true"})), 3, "does not work")
    refused(inside, call("up", "-d", inside.topology({"python": "/bin/false"})), 3, "does not work")


def test_no_engine_environment_at_all(inside: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNCTL_ENGINE_PYTHON")
    refused(inside, call("up", "-d", inside.topology()), 3, "make engine")


@pytest.mark.parametrize("lacks", ["vllm", "nixl"])
def test_an_interpreter_without_the_engine(inside: Home, lacks: str) -> None:
    versions = {name: version for name, version in VERSIONS.items() if name != lacks}
    python = build_fake_environment(inside.dir / "bare", versions)
    refused(inside, call("up", "-d", inside.topology({"python": str(python)})), 3, f"has no {lacks}", str(python))


def test_a_port_in_use_names_its_holder(inside: Home) -> None:
    with socket.create_server(("127.0.0.1", inside.port)):
        error = refused(inside, call("up", "-d", inside.topology()), 2, f"port {inside.port} is in use")
    assert f"held by pid {os.getpid()}" in error["why"][0]


def test_a_state_directory_that_cannot_be_written(inside: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    file = inside.dir / "a-file"
    file.write_text("mine")
    monkeypatch.setenv("XDG_STATE_HOME", str(file))
    done = call("up", "-d", inside.topology())
    assert done.code == 3, done.err
    error = done.error()
    assert "state directory" in error["error"][0]
    assert str(file) in error["at"][0]
    assert "XDG_STATE_HOME" in error["fix"][0]
    assert file.read_text() == "mine"
    for command in (("status",), ("down",), ("logs",), ("events",)):
        assert call(*command).code == 5


def test_a_temporary_directory_that_is_not_ours(inside: Home) -> None:
    theirs = inside.dir / "tmp" / f"dynctl-{os.getuid()}"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    done = call("up", "-d", inside.topology())
    assert done.code == 3, done.err
    assert "not a private directory" in done.error()["error"][0]
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o777


def test_a_temporary_directory_with_too_long_a_name(inside: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    deep = inside.dir / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", None)
    done = call("up", "-d", inside.topology())
    assert done.code == 3, done.err
    assert "too long" in done.error()["error"][0]


def test_a_run_of_that_name_that_is_alive_is_left_alone(home: Home) -> None:
    home.up()
    before = {p.pid for p in home.processes()}
    files = {p: p.read_bytes() for p in home.run_dir.glob("*") if p.is_file() and p.name != "events.jsonl"}
    again = home.run("up", "-d", home.topology({"frontend": {"port": home.free_port()}}))
    assert again.code == 5
    error = again.error()
    assert f"`{home.name}` is already running" in error["error"][0]
    assert home.name in error["fix"][0]
    assert {p.pid for p in home.processes()} == before
    assert {path: path.read_bytes() for path in files} == files
    assert home.ask().status_code == 200


def stale(home: Home, **changes: object) -> None:
    """A run directory as an ended run leaves it, with other facts in its record."""
    home.up()
    assert home.run("down", home.name, "--kill").code == 0
    record = home.run_dir / "run.json"
    record.write_bytes(msgspec.json.encode({**json.loads(record.read_text()), **changes}))


def test_a_run_of_an_earlier_boot_makes_way(home: Home) -> None:
    stale(home, boot_id="another-boot", run_id="another-run")
    (home.run_dir / "status.json").unlink()
    status = home.run("status", home.name, "--json")
    assert (status.code, status.json()["state"]) == (5, "stopped")
    home.up()
    assert home.ask().status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"schema":1}'])
def test_a_run_directory_that_cannot_be_read_makes_way(inside: Home, content: bytes) -> None:
    from dynctl.store.paths import run_dir

    directory = run_dir(inside.name)
    directory.mkdir(parents=True)
    for name in ("run.json", "plan.json", "status.json", "topology.json", "events.jsonl"):
        (directory / name).write_bytes(content)
    for command in ("status", "down"):
        done = call(command, inside.name)
        assert done.code == 5, done.err
        assert done.error()["error"], done.err
        assert str(directory) in done.err
    assert call("logs", inside.name).code in (0, 5)
    assert call("events", inside.name).code in (0, 5)
    inside.up()
    assert inside.ask().status_code == 200
    inside.run("down", inside.name, "--kill")


def test_commands_on_runs_that_are_not_there(inside: Home) -> None:
    for command in ("status", "logs", "events", "down"):
        for name in ("no-such-run", "../../etc", "-"):
            done = call(command, name)
            assert done.code == 5, (command, name, done.err)
            assert done.error()["error"]
        nothing = call(command)
        assert nothing.code == 5
        assert "nothing is running" in nothing.err


def test_unknown_options_are_usage_errors(inside: Home) -> None:
    assert call("up", "--no-such-option").code == 2
    assert call("no-such-command").code == 2
    assert call("down", "x", "--timeout", "soon").code == 2
    assert call("logs", "-n", "-1").code == 2
