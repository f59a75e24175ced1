"""Our aiperf files against the models that aiperf itself reads them with, as recorded from its 0.13.0."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec

from dynctl.bench.compatible import aiperf, aiperf_rows
from tests.unit.bench.arms import result, served

MODELS = json.loads((Path(__file__).parents[2] / "data" / "aiperf" / "models.json").read_text())


def holds(kind: str, value: object) -> None:
    jsonschema.validate(value, MODELS[kind], cls=jsonschema.Draft202012Validator)


def test_the_export() -> None:
    """Every metric is one of aiperf's own tags, with values of its own shape."""
    arm = served("one")
    export = msgspec.json.decode(msgspec.json.encode(aiperf(arm, result(arm).runs[0])))
    assert set(export) <= set(MODELS["tags"])
    assert {"time_to_first_token", "inter_token_latency", "request_throughput", "goodput"} <= set(export)
    for value in export.values():
        holds("result", value)
        assert set(value) <= set(MODELS["result"]["properties"])


def test_the_rows() -> None:
    """All that aiperf's reader wants of a row is there."""
    rows = [msgspec.json.decode(msgspec.json.encode(row)) for row in aiperf_rows(served("one"))]
    assert [row["metadata"]["session_num"] for row in rows] == list(range(len(rows)))
    for row in rows:
        holds("metadata", row["metadata"])
        assert row["metadata"]["request_start_ns"] < row["metadata"]["request_end_ns"]
        for value in row["metrics"].values():
            holds("value", value)
