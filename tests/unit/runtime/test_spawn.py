"""What a started process gets: environment, session, cores, log, and how its end is put into words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dynctl.engines.spec import ProcessSpec
from dynctl.errors import HostError
from dynctl.hardware.values import cpu_list
from dynctl.runtime.spawn import environment, exit_text, spawn
from tests.unit.plan.machines import made

SPEC = ProcessSpec(id="decode-0", role="decode", argv=("engine",), env={"UCX_TLS": "tcp", "MINE": "plan"})


def test_what_steers_the_kv_path_is_not_inherited() -> None:
    inherited = {
        "PATH": "/bin",
        "HF_TOKEN": "secret",
        "UCX_TLS": "rc",
        "UCX_NET_DEVICES": "mlx5_0:1",
        "NIXL_LOG_LEVEL": "debug",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": "5600",
        "MINE": "caller",
    }
    env = environment(SPEC, "run-1", inherited)
    assert env["PATH"] == "/bin"
    assert env["HF_TOKEN"] == "secret"
    assert (env["UCX_TLS"], env["MINE"]) == ("tcp", "plan")
    assert not {"UCX_NET_DEVICES", "NIXL_LOG_LEVEL", "VLLM_NIXL_SIDE_CHANNEL_PORT"} & set(env)


def test_the_runs_mark_can_not_be_overridden() -> None:
    spec = ProcessSpec(id="decode-0", role="decode", argv=("e",), env={"DYNCTL_RUN_ID": "other"})
    env = environment(spec, "run-1", {"DYNCTL_RUN_ID": "outer", "DYNCTL_PROCESS": "x"})
    assert (env["DYNCTL_RUN_ID"], env["DYNCTL_PROCESS"]) == ("run-1", "decode-0")


def test_a_process_that_renames_itself_keeps_its_mark() -> None:
    """setproctitle writes its title over the environment that /proc shows, unless SPT_NOENV is set."""
    assert environment(SPEC, "run-1", {})["SPT_NOENV"]


def test_secrets_of_the_caller_are_not_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in repr(made())


def test_a_process_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; print(os.getsid(0) == os.getpid(), os.getcwd(), sorted(os.sched_getaffinity(0)), flush=True)"
    )
    core = min(os.sched_getaffinity(0))
    spec = ProcessSpec(id="w", role="worker", argv=(sys.executable, "-c", code), cpus=cpu_list((core,)))
    log = tmp_path / "w.log"
    log.write_text("before\n")
    before = os.sched_getaffinity(0)
    assert spawn(spec, "run-1", log, tmp_path).wait(30) == 0
    assert log.read_text() == f"before\nTrue {tmp_path} [{core}]\n"
    assert os.sched_getaffinity(0) == before


def test_what_can_not_be_executed(tmp_path: Path) -> None:
    spec = ProcessSpec(id="w", role="worker", argv=("/no/such/python",))
    with pytest.raises(HostError) as caught:
        spawn(spec, "run-1", tmp_path / "w.log", tmp_path)
    assert caught.value.cause == "can't execute /no/such/python: No such file or directory"
    assert caught.value.where == "process w"


def test_cores_that_are_not_there_are_named(tmp_path: Path) -> None:
    spec = ProcessSpec(id="w", role="worker", argv=("/bin/true",), cpus="4000-4001")
    with pytest.raises(HostError, match="4000-4001"):
        spawn(spec, "run-1", tmp_path / "w.log", tmp_path)


@pytest.mark.parametrize(("code", "words"), [
    (0, "exit code 0"), (1, "exit code 1"), (-9, "killed by SIGKILL"), (-int(signal.SIGSEGV), "killed by SIGSEGV"),
    (-250, "killed by signal 250"), (None, "exit status unknown"),
])  # fmt: skip
def test_exits_in_words(code: int | None, words: str) -> None:
    assert exit_text(code) == words


def test_standard_input_is_empty(tmp_path: Path) -> None:
    spec = ProcessSpec(id="w", role="worker", argv=("/bin/cat",))
    process: subprocess.Popen[bytes] = spawn(spec, "run-1", tmp_path / "w.log", tmp_path)
    assert process.wait(30) == 0
