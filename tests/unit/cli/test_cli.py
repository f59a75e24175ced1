"""The command line from outside: help, errors, exit codes, and what must not be imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import dynctl
from dynctl.cli import app as module
from dynctl.cli.app import app, listen_alone, run
from dynctl.errors import (
    DynctlError,
    HostError,
    ReadyTimeout,
    RunStateError,
    RuntimeFailure,
    TransportError,
    UsageError,
)
from tests.unit.plan.machines import CPU_1P1D

COMMANDS = ("init", "up", "validate", "plan", "hardware", "schema", "status", "logs", "events", "down", "frontend")
VERSIONS = '{"vllm":"0.32.0","nixl":"1.5.1","torch":"2.13.0"}'


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything a command may look at is the test's own; the engine's interpreter only knows versions."""
    python = tmp_path / "engine-python"
    python.write_text(f"#!/bin/sh\necho '{VERSIONS}'\n")
    python.chmod(0o755)
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")  # noqa: S108 - a socket's path must be short
    monkeypatch.setenv("DYNCTL_ENGINE_PYTHON", str(python))
    monkeypatch.chdir(tmp_path)


def topology_file(tmp_path: Path, port: int = 8000) -> Path:
    file = tmp_path / "t.yaml"
    file.write_text(f"{CPU_1P1D}frontend: {{port: {port}}}\n")
    return file


# help


@pytest.mark.parametrize("arguments", [[], *([command] for command in (*COMMANDS, "engine", "_supervise"))])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_help_exits_0(arguments: list[str], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, flag]) == 0
    out, err = capsys.readouterr()
    assert "Usage:" in out
    assert err == ""
    assert "\x1b" not in out


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert "_supervise" not in out


def test_every_command_says_what_it_does() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert (command.callback.__doc__ or "").strip()


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"dynctl {dynctl.__version__}\n"


# usage


@pytest.mark.parametrize("arguments", [
    ["serve"], ["up", "--fast"], ["plan", "a", "b"], ["logs", "-n", "few"], ["logs", "-n", "-1"], ["--nonsense"],
    ["down", "--timeout", "-1"], ["frontend", "--port", "70000"], ["plan", "--set"],
])  # fmt: skip
def test_what_is_no_command_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage:" in err or "requires an argument" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("kind", "code"), [
    (RuntimeFailure, 1), (UsageError, 2), (HostError, 3), (TransportError, 4), (RunStateError, 5), (ReadyTimeout, 124),
    (DynctlError, 1),
])  # fmt: skip
def test_errors_are_cause_place_why_fix_and_an_exit_code(
    kind: type[DynctlError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> None:
        raise kind("it broke", where="here", why=["for this", "and that"], fix="do so", tail=["last line"])

    monkeypatch.setattr(module, "app", fail)
    assert run([]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: it broke",
        "  at  here",
        "  why for this",
        "  why and that",
        "  fix do so",
        "  | last line",
    ]


def test_an_error_may_be_short() -> None:
    assert DynctlError("it broke").lines() == ["error: it broke"]
    assert DynctlError("it broke", why="once").why == ("once",)


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "app", interrupt)
    assert run([]) == 130


# wrong input


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return code, err


@pytest.mark.parametrize("command", ["validate", "plan", "up"])
def test_a_missing_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = fails([command, "nowhere.yaml"], capsys)
    assert code == 2
    assert "  at  nowhere.yaml" in err


@pytest.mark.parametrize("command", ["validate", "plan", "up"])
@pytest.mark.parametrize("change", ["name=../up", "roles.decode.workers=0", "roles.decode.wrkers=1", "engine", "=1"])
def test_a_wrong_override(command: str, change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = fails([command, str(topology_file(tmp_path)), "--set", change], capsys)
    assert code == 2
    assert "  fix " in err
    assert not (tmp_path / "xdg_state_home").exists()


@pytest.mark.parametrize("command", ["plan", "up"])
@pytest.mark.parametrize(("change", "code"), [
    ("model=/no/such/model", 2), ("engine=sglang", 2), ("roles.decode.args.port=1", 2), ("python=/no/such/python", 3),
    ("transport.require=nvlink", 4),
])  # fmt: skip
def test_what_can_not_be_planned(
    command: str, change: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, err = fails([command, str(topology_file(tmp_path, 28998)), "--set", change], capsys)
    assert found == code
    for line in ("error: ", "  at  ", "  fix "):
        assert line in err


@pytest.mark.parametrize("arguments", [
    ["status"], ["down"], ["logs"], ["events"], ["status", "ghost"], ["down", "ghost"], ["logs", "ghost"],
])  # fmt: skip
def test_nothing_is_running(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(arguments, capsys)[0] == 5


def test_validate_looks_at_nothing_but_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DYNCTL_ENGINE_PYTHON", "/no/such/python")
    assert run(["validate", str(topology_file(tmp_path)), "--set", "roles.decode.tp=128"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "cpu-1p1d: valid\n")


# plan


def test_plan_as_json_is_data_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(topology_file(tmp_path, 28999)), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = msgspec.json.decode(out)
    assert [process["id"] for process in document["processes"]] == ["prefill-0", "decode-0", "frontend"]
    assert document["processes"][0]["argv"][0] == str(tmp_path / "engine-python")
    assert not (tmp_path / "xdg_state_home").exists()


def test_plan_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(topology_file(tmp_path, 28999))]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    for word in ("prefill-0", "decode-0", "frontend", "--kv-transfer-config", "VLLM_NIXL_SIDE_CHANNEL_PORT"):
        assert word in out


def test_a_topology_in_the_working_directory_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    topology_file(tmp_path).rename(tmp_path / "topology.yaml")
    assert run(["validate"]) == 0
    assert "cpu-1p1d" in capsys.readouterr().err


def test_the_schema_is_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["properties"]["roles"]


# in processes of their own

MODULES = "import sys; from dynctl.cli.app import run; code = run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"


def modules_of(*arguments: str) -> set[str]:
    """The modules that are imported when a command has run."""
    argv = [sys.executable, "-c", MODULES, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_help_is_cheap() -> None:
    heavy = {"pydantic", "rich", "httpx", "psutil", "yaml", "uvloop", "asyncio", "msgspec", "prometheus_client"}
    assert not heavy & modules_of("--help")


def test_plan_imports_no_network_and_no_live_view(tmp_path: Path) -> None:
    file = str(topology_file(tmp_path, 28999))
    found = modules_of("plan", file, "--json")
    assert not {"httpx", "uvloop", "asyncio", "rich", "prometheus_client"} & found
    assert not {"httpx", "uvloop", "asyncio", "rich", "prometheus_client"} & modules_of("plan", file)
    assert not {"vllm", "torch", "nixl"} & found


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "dynctl", "schema"], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode in (0, 1)


@pytest.mark.parametrize(("typed", "given"), [
    (["check-rdma", "--listen"], ["check-rdma", "--listen="]),
    (["check-rdma", "--listen", "--json"], ["check-rdma", "--listen=", "--json"]),
    (["check-rdma", "--listen", "10.0.0.1", "f.yaml"], ["check-rdma", "--listen", "10.0.0.1", "f.yaml"]),
    (["check-rdma", "--listen", "f.yaml"], ["check-rdma", "--listen=", "f.yaml"]),
    (["check-rdma", "--json"], ["check-rdma", "--json"]),
    (["up", "--listen"], ["up", "--listen"]),
])  # fmt: skip
def test_listen_may_stand_without_an_address(typed: list[str], given: list[str]) -> None:
    assert listen_alone(typed) == given
