"""A custom resource's structural schema, applied as an API server that refuses unknown fields does.

Of the rules in CEL those that a graph of dynctl's can meet are known here, by their message; any other is an error of
its own, so that none is passed over. Rules on updates (`oldSelf`) say nothing of a new object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from jsonschema import Draft7Validator, ValidationError
from jsonschema.validators import extend

Schema = dict[str, Any]
_WITHIN = ("items", "additionalProperties")
_KEPT = "x-kubernetes-preserve-unknown-fields"
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)")


def strict(schema: Schema) -> Schema:
    """The schema with every field that it does not name forbidden, where the server would drop it."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {key: strict(value) for key, value in made["properties"].items()}
    for key in _WITHIN:
        if isinstance(made.get(key), dict):
            made[key] = strict(made[key])
    if made.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    elif made.get("type") == "object" and not made.get(_KEPT):
        made.setdefault("additionalProperties", False)
    return made


def _map_keys(_: Any, keys: list[str], instance: Any, __: Schema) -> Iterator[ValidationError]:
    seen = [tuple(item.get(key) for key in keys) for item in instance]
    for item in seen:
        if seen.count(item) > 1:
            yield ValidationError(f"{item} is there twice")


def _rules(_: Any, rules: list[dict[str, str]], instance: Any, __: Schema) -> Iterator[ValidationError]:
    for rule in rules:
        if "oldSelf" in rule["rule"]:
            continue
        said = rule.get("message", rule["rule"])
        if said not in RULES:
            yield ValidationError(f"a rule that is not known here: {said}")
        elif not RULES[said](instance):
            yield ValidationError(said)


def _shared_memory(this: Any) -> bool:
    number = _NUMBER.match(str(this.get("size", 0)))
    return this.get("disabled") is True or bool(number and Decimal(number[0]) > 0)


def _names(this: Any) -> bool:
    names = [component.get("name", "").lower() for component in this]
    return len(names) == len(set(names))


def _available(this: Any) -> bool:
    return "minAvailable" not in this or this.get("replicas") == 0 or this["minAvailable"] <= this.get("replicas", 1)


RULES: dict[str, Callable[[Any], bool]] = {
    "size is required when disabled is false": _shared_memory,
    "component names must be unique case-insensitively": _names,
    "at most one component may have type epp": lambda this: sum(one.get("type") == "epp" for one in this) <= 1,
    "eppConfig may only be set when type is epp": lambda this: "eppConfig" not in this or this.get("type") == "epp",
    "minAvailable must be less than or equal to replicas unless replicas is 0": _available,
    "sidecar containers must specify a non-empty image": lambda this: this["name"] == "main" or bool(this.get("image")),
    "When create is true, size, storageClass, and volumeAccessMode are required": lambda this: (
        not this.get("create") or {"size", "storageClass", "volumeAccessMode"} <= set(this)
    ),
}
Structural: Any = extend(Draft7Validator, {"x-kubernetes-list-map-keys": _map_keys, "x-kubernetes-validations": _rules})
