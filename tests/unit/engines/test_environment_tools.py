"""What a build of the engine environment works with: an interpreter, pip in an environment of its own, its progress."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from dynctl.engines.environment.child import child_env
from dynctl.engines.environment.interpreters import interpreters
from dynctl.engines.environment.pip import NoWheelError, explain
from dynctl.engines.environment.progress import Progress, megabytes
from dynctl.errors import HostError, RuntimeFailure


@pytest.fixture
def bin_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty folder, and a dynctl that runs on no supported Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "_base_executable", str(folder / "none"), raising=False)
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_interpreters_are_asked_not_believed(bin_only: Path) -> None:
    script(bin_only / "python3.98", "echo no such version >&2; exit 127")
    script(bin_only / "python3.97", "echo 3.97 /opt/python3.97")
    script(bin_only / "python3", "echo 3.97 /opt/other")
    assert list(interpreters(["3.97", "3.98"])) == [("3.97", "/opt/python3.97")]


def test_no_interpreter_is_an_error_with_a_fix(bin_only: Path) -> None:
    with pytest.raises(HostError, match=r"3\.97, 3\.98") as caught:
        list(interpreters(["3.97", "3.98"]))
    assert "python3.98-venv" in (caught.value.fix or "")


def test_another_python_gets_no_settings_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("PIP_TARGET", "/x")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    env = child_env(TMPDIR="/y")
    assert "PYTHONPATH" not in env
    assert "PIP_TARGET" not in env
    assert env["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert env["TMPDIR"] == "/y"


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", NoWheelError, "torch==2.13.0+cpu"),
        ("OSError: [Errno 28] No space left on device", HostError, "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", RuntimeFailure, "hash"),
        (
            "WARNING: Retrying after NewConnectionError('x')\nNo matching distribution found for a",
            RuntimeFailure,
            "index",
        ),
        ("something else", RuntimeFailure, "pip failed"),
    ],
)
def test_what_pip_says_becomes_a_cause_and_a_fix(said: str, kind: type[Exception], words: str) -> None:
    error = explain(["WARNING: Location 'x' is ignored", *said.splitlines()], "/a/log")
    assert type(error) is kind
    assert words in error.cause
    assert error.fix
    assert error.where == "/a/log"
    assert not [line for line in error.tail if "is ignored" in line]


def test_off_a_terminal_progress_is_a_line_per_phase_and_per_ten_seconds() -> None:
    out, now = io.StringIO(), [0.0]
    with Progress(out, clock=lambda: now[0]) as progress:
        progress.phase("packages")
        for now[0] in (1.0, 9.0, 10.5, 12.0, 20.4, 20.6):
            progress.update(f"at {now[0]}")
        now[0] = 30.0
    said = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert said == [
        "packages",
        "packages: at 10.5, 10 s",
        "packages: at 20.6, 21 s",
        "packages: done in 30 s (at 20.6)",
    ]


def test_a_phase_that_fails_is_not_called_done() -> None:
    out = io.StringIO()
    progress = Progress(out)
    progress.phase("packages")
    progress.__exit__(KeyboardInterrupt)
    assert "packages: stopped after" in out.getvalue()
    assert "done" not in out.getvalue()


def test_bytes_are_written_for_people() -> None:
    assert [megabytes(count) for count in (0, 812_400_000, 4_035_921_493)] == ["0 MB", "812 MB", "4.0 GB"]
