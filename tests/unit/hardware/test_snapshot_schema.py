"""The snapshot is a versioned document: what `hardware --json` prints keeps to its schema and comes back as it was."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import msgspec

from dynctl.hardware.discover import discover
from dynctl.hardware.imports import parse
from dynctl.hardware.values import Hardware


def test_this_machine_as_a_snapshot(tmp_path: Path) -> None:
    found = discover(tmp_path)
    text = msgspec.json.encode(found)
    document = msgspec.json.decode(text)
    jsonschema.validate(document, msgspec.json.schema(Hardware))
    assert document["schema"] == 1
    back = parse(text, "snapshot")
    assert (back.cores, back.numa_nodes, back.limits, back.cma) == (
        found.cores, found.numa_nodes, found.limits, found.cma,
    )  # fmt: skip


def test_the_schema_refuses_what_is_no_machine() -> None:
    validator = jsonschema.Draft202012Validator(msgspec.json.schema(Hardware))
    assert not validator.is_valid({"schema": 1, "gpus": [{"index": "zero"}]})
