"""The topology's JSON schema, for editors: it takes what the user writes (`lease: 30s`) and explains every key."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from dynctl.topology.not_yet import NOT_YET
from dynctl.topology.schema import Topology

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema as a JSON document of draft 2020-12."""
    document = Topology.model_json_schema(by_alias=True, mode="validation", schema_generator=_Plain)
    document["required"].remove("name")
    _mark_not_yet(document)
    return {"$schema": _DIALECT, **document, "title": "dynctl topology, schema 1"}


def _mark_not_yet(document: dict[str, Any]) -> None:
    for path, accepted in NOT_YET.items():
        owner = document
        if len(path) > 1:
            owner = document["$defs"]["RoleSpec" if path[0] == "roles" else str(path[0]).capitalize()]
        only = json.dumps(accepted[-1]) if accepted[-1] else "nothing here"
        owner["properties"][path[-1]]["description"] += f" This version of dynctl supports only {only}."


class _Plain(GenerateJsonSchema):
    """Without titles that repeat the key and without null as a choice that nobody writes."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) in (None, ""):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)
