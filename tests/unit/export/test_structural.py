"""The reading of a CRD's schema that exports are held against."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.export.structural import Structural, strict

AMOUNT = {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+$", "x-kubernetes-int-or-string": True}
MEMORY = {
    "type": "object",
    "properties": {"size": AMOUNT, "disabled": {"type": "boolean"}},
    "x-kubernetes-validations": [{"rule": "...", "message": "size is required when disabled is false"}],
}
SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "enum": ["a", "b"]},
        "limits": {"type": "object", "additionalProperties": AMOUNT},
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "memory": MEMORY,
        "empty": {"type": "object"},
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["path"],
        },
    },
    "x-kubernetes-validations": [{"rule": "oldSelf.name == self.name", "message": "is immutable"}],
}


def wrong(document: dict[str, Any], schema: dict[str, Any] = SCHEMA) -> list[str]:
    """What is said against it."""
    return [error.message for error in Structural(strict(schema)).iter_errors(document)]


@pytest.mark.parametrize(
    "document",
    [
        {"name": "a"},
        {"name": "a", "limits": {"x": 1, "y": "2"}, "value": {"any": ["thing"]}, "empty": {}},
        {"name": "a", "memory": {"size": "16"}, "items": [{"path": "/a"}, {"path": "/b"}]},
        {"name": "a", "memory": {"disabled": True}},
    ],
)
def test_what_the_schema_says_is_taken(document: dict[str, Any]) -> None:
    assert wrong(document) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"nmae": "a"}, "'nmae' was unexpected"),
        ({"empty": {"a": 1}}, "'a' was unexpected"),
        ({"items": [{"path": "/a", "mode": "x"}]}, "'mode' was unexpected"),
        ({"items": [{}]}, "'path' is a required property"),
        ({"items": [{"path": "/a"}, {"path": "/a"}]}, "is there twice"),
        ({"name": "c"}, "is not one of"),
        ({"limits": {"x": 1.5}}, "is not of type 'integer', 'string'"),
        ({"limits": {"x": "many"}}, "does not match"),
        ({"memory": {"size": "0"}}, "size is required"),
        ({"memory": {}}, "size is required"),
    ],
)
def test_what_it_does_not_say_is_refused(more: dict[str, Any], said: str) -> None:
    assert said in " ".join(wrong({"name": "a", **more}))


def test_a_rule_that_is_not_known_is_not_passed_over() -> None:
    schema = {"type": "object", "x-kubernetes-validations": [{"rule": "self.b > 1"}]}
    assert wrong({}, schema) == ["a rule that is not known here: self.b > 1"]
