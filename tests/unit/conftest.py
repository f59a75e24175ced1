"""Fixtures that several rooms' unit tests use."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynctl.store import paths


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The directories that locks lie in are the tests' own, too."""
    with pytest.MonkeyPatch.context() as patch:
        place = str(tmp_path_factory.mktemp("tmp"))
        patch.setattr(tempfile, "tempdir", place)
        patch.setenv("TMPDIR", place)
        yield


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, locks and sockets of runs within the test's own directory."""
    locks = tmp_path / "locks"
    locks.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "runtime_dir", lambda: locks)
    monkeypatch.setattr(paths, "SOCKET_PATH_BYTES", 1000)
