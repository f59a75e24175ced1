"""Fixtures for tests that run real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.run_harness import Home


@pytest.fixture
def home(fake_python: str, fake_model: Path) -> Iterator[Home]:
    """A world of the test's own; at the end nothing of it may be alive."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    made = Home(fake_python, fake_model, worker, workers)
    try:
        yield made
    finally:
        made.close()
