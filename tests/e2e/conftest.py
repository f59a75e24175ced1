"""Real engines: the environment that `make engine` built, and the seeded tiny model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dynctl.engines.environment import default_python
from dynctl.engines.tiny import ensure_tiny_model
from tests.e2e.deployment import Deployment, deployed
from tests.e2e.site import PROMPTS, complete


@pytest.fixture(scope="session")
def engine_python() -> str:
    """The engine's interpreter; a skip with the reason where none has been built."""
    python = os.environ.get("DYNCTL_ENGINE_PYTHON") or default_python("vllm")
    if python is None:
        pytest.skip("no engine environment: run `make engine`")
    return str(python)


@pytest.fixture(scope="session")
def tiny_model(engine_python: str) -> Path:
    """The seeded random-weight model."""
    return ensure_tiny_model(engine_python, print)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory with a short path: unix sockets allow 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="dynctl-e2e-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    """State and sockets of one test."""
    with short_directory() as path:
        yield path


@pytest.fixture(scope="module")
def cpu_1p1d(request: pytest.FixtureRequest, engine_python: str) -> Iterator[Deployment]:
    """One prefill and one decode worker, ready and verified: started once for all tests that only use it.

    A module's `SETS` are overrides of the profile.
    """
    sets: tuple[str, ...] = getattr(request.module, "SETS", ())
    with short_directory() as path, deployed("cpu-1p1d", path, engine_python, *sets) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def one_node(engine_python: str) -> dict[str, str]:
    """What one worker on one node, without any hand-over, answers to each prompt."""
    with (
        short_directory() as directory,
        deployed("cpu-agg", directory, engine_python) as alone,
    ):
        answers = [complete(prompt, url=alone.url) for prompt in PROMPTS]
    assert [answer.status for answer in answers] == [200] * len(PROMPTS)
    return {answer.prompt: answer.text for answer in answers}
