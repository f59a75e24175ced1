"""The fake engine keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.pair import Pair, running_pair
from tests.contract.suite import ContractSuite
from tests.fakes.fixtures import fake_model, fake_python

__all__ = ["fake_model", "fake_python"]


@pytest.fixture(scope="module")
def pair(fake_python: str, fake_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    env = {"FAKE_ENGINE_TOKEN_DELAY_MS": "1"}  # or an aborted stream would be over before the abort
    with running_pair(fake_python, fake_model, tmp_path_factory.mktemp("fake"), env, patience_s=20) as both:
        yield both


class TestFakeEngine(ContractSuite):
    pass
