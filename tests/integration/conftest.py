"""Fixtures for tests that run real processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.run_harness import Home


@pytest.fixture
def make_home(fake_python: str, fake_model: Path) -> Callable[[], Home]:
    """Makes worlds; who makes one closes it."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return lambda: Home(fake_python, fake_model, worker, workers)


@pytest.fixture
def home(make_home: Callable[[], Home]) -> Iterator[Home]:
    """A world of the test's own; at the end nothing of it may be alive."""
    made = make_home()
    try:
        yield made
    finally:
        made.close()
