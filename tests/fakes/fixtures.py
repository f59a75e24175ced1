"""Fixtures for test modules that run against the fake engine: import them by name into a conftest or a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environment import build_fake_environment
from .model import make_fake_model


@pytest.fixture(scope="session")
def fake_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a fake engine environment."""
    return str(build_fake_environment(tmp_path_factory.mktemp("engine") / "venv"))


@pytest.fixture(scope="session")
def fake_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory that the fake engine can serve."""
    return make_fake_model(tmp_path_factory.mktemp("models") / "fake")
