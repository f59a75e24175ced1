"""The JSON schema that editors use agrees with what `parse` accepts, and explains every key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dynctl.topology.load import json_schema
from dynctl.topology.nodes import to_data
from dynctl.topology.yaml_source import compose_document

ROOT = Path(__file__).resolve().parents[3]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
SMALL: dict[str, Any] = {"schema": 1, "model": "builtin:tiny", "roles": {"prefill": {"workers": 1}, "decode": {}}}


def test_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def sections(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield document
    yield from document["$defs"].values()


def test_every_key_is_described_with_an_example_that_is_valid() -> None:
    document = json_schema()
    for section in sections(document):
        assert section["description"]
        assert section["additionalProperties"] is False
        assert "^x-" in section["patternProperties"]
        for key, about in section["properties"].items():
            assert about["description"], key
            inner = jsonschema.Draft202012Validator({**about, "$defs": document["$defs"]})
            assert about["examples"], key
            for example in about["examples"]:
                inner.validate(example)
            if "default" in about:
                inner.validate(about["default"])


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_profiles_are_valid(path: Path) -> None:
    # as YAML 1.2, like editors: PyYAML alone takes the key `on` for true
    VALIDATOR.validate(to_data(compose_document(path.read_text(), path.name)))


@pytest.mark.parametrize(
    "more",
    [
        {"transport": {"lease": "1h30m", "env": {"UCX_TLS": "tcp", "N": 0}, "connector": {"a": [1]}}},
        {"ready": {"timeout": "30m", "stall": "5m"}, "slo": {"ttft": "300ms"}},
        {"x-mine": [1]},
        {"roles": {"worker": {"gpus": 2, "args": {"a": {"b": None}}, "x-y": 1}}},
    ],
)
def test_accepts(more: dict[str, Any]) -> None:
    VALIDATOR.validate({**SMALL, **more})


@pytest.mark.parametrize(
    "more",
    [
        {"engin": "vllm"},
        {"schema": 2},
        {"engine": "vlm"},
        {"name": "../x"},
        {"transport": {"lease": 30}},
        {"transport": {"lease": "30"}},
        {"transport": {"lease_s": "30s"}},
        {"frontend": {"port": 0}},
        {"roles": {"prefill": {}}},
        {"roles": {"prefill": {}, "decode": {}, "worker": {}}},
        {"roles": {"worker": {"workers": 1025}}},
    ],
)
def test_refuses(more: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid({**SMALL, **more})
