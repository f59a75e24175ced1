"""The fake engine keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.pair import Pair, running_pair
from tests.contract.suite import ContractSuite, PushSuite

_PATIENCE_S = 60.0  # a hang shows, a busy machine does not


@pytest.fixture(scope="class")
def pair(fake_python: str, fake_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    env = {"FAKE_ENGINE_TOKEN_DELAY_MS": "1"}  # or an aborted stream would be over before the abort
    with running_pair(fake_python, fake_model, tmp_path_factory.mktemp("fake"), env, _PATIENCE_S) as both:
        yield both


@pytest.fixture(scope="class")
def push_pair(fake_python: str, fake_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("push")
    with running_pair(fake_python, fake_model, directory, {}, _PATIENCE_S, "NixlPushConnector") as both:
        yield both


class TestFakeEngine(ContractSuite):
    pass


class TestFakeEnginePushing(PushSuite):
    pass
