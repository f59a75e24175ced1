"""The topology's JSON schema, for editors: it takes what the user writes (`lease: 30s`) and explains every key."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from dynctl.topology.schema import Topology

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema as a JSON document of draft 2020-12."""
    document = Topology.model_json_schema(by_alias=True, mode="validation", schema_generator=_Plain)
    document["required"].remove("name")
    return {"$schema": _DIALECT, **document, "title": "dynctl topology, schema 1"}


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
