"""Real vLLM keeps the contract that the fake engine was made after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.client import warm_up
from tests.contract.pair import Pair, running_pair
from tests.contract.suite import ContractSuite, PushSuite

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("vllm")]


@pytest.fixture(scope="class")
def pair(engine_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(engine_python, tiny_model, tmp_path_factory.mktemp("vllm"), {}, patience_s=300) as both:
        warm_up(both)
        yield both


@pytest.fixture(scope="class")
def push_pair(engine_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("push")
    with running_pair(engine_python, tiny_model, directory, {}, 300, "NixlPushConnector") as both:
        warm_up(both)
        yield both


class TestVllm(ContractSuite):
    pass


class TestVllmPushing(PushSuite):
    pass
