"""The JSON documents that others read: their schemas hold real examples, and the promised keys are there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from dynctl.bench.document import Document
from dynctl.bench.sizing import Advice, Demand, advise
from dynctl.bench.verdict import compare
from dynctl.cli.bench_diff import Diff
from dynctl.frontend.messages import RequestRecord
from dynctl.plan.values import Plan
from dynctl.runtime.lifecycle import TABLE
from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus
from tests.unit.bench.arms import result, served
from tests.unit.plan.machines import ACTIVE, CPU_1P1D, cpu, gpus, made, pools

sys.path.insert(0, str(Path(__file__).parent / "ui"))  # the statuses that the live view is tested with
import scenes

AGGREGATED = "schema: 1\nname: agg\nmodel: builtin:tiny\nroles: {worker: }\n"
PLANS = [
    made(),
    made(AGGREGATED),
    made(pools("{workers: 2, tp: 2}", "{tp: 4}", "slo: {ttft: 300ms}\n"), on=gpus(8)),
    made(pools("{pin: [{nics: [mlx5_0]}]}"), on=gpus(2, nvlink=False, nics=(ACTIVE,))),
    made(CPU_1P1D, "transport.env.UCX_TLS=tcp", on=cpu(32), ambient=("UCX_TLS",)),
]
RECORD = RequestRecord(id="id", at=1.0, path="/v1/completions", mode="decode-only", status=200, streamed=True)
EVENTS = [
    Event(seq=1, at=1795453442.5, kind="run.state", message="starting x", state="starting"),
    Event(seq=2, at=1795453443.0, kind="process.phase", message="loading", process="decode-0", phase="loading"),
    Event(seq=3, at=1.0, kind="pair", message="m", process="decode-0", state="shm", why="w", data={"bytes": 12}),
    Event(seq=0, at=1.0, kind="request", message="id", who="frontend", data=msgspec.to_builtins(RECORD)),
]


def statuses() -> list[RunStatus]:
    found = []
    for make in vars(scenes).values():
        if callable(make) and getattr(make, "__module__", "") == "scenes" and not isinstance(make, type):
            try:
                made_status = make()
            except TypeError:
                continue
            found += [made_status] if isinstance(made_status, RunStatus) else []
    return found


def encoded(value: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def holds(kind: type[msgspec.Struct], document: Any) -> None:
    jsonschema.validate(document, msgspec.json.schema(kind), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("kind", [Plan, RunStatus, Event, Document, Diff, Advice])
def test_the_schemas_are_schemas(kind: type[msgspec.Struct]) -> None:
    jsonschema.Draft202012Validator.check_schema(msgspec.json.schema(kind))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_plans(plan: Plan) -> None:
    document = encoded(plan)
    holds(Plan, document)
    assert (document["schema"], document["name"]) == (1, plan.name)
    for process in document["processes"]:
        assert set(process) >= {
            *("id", "role", "node", "argv", "env", "gpus", "gpu_uuids", "nics", "numa", "cpus", "ports")
        }
        assert all(isinstance(index, int) for index in process["gpus"])
        assert len(process["gpus"]) == len(process["gpu_uuids"])
    assert set(document["transport"]) >= {"required", "pairs"}
    for pair in document["transport"]["pairs"]:
        assert set(pair) >= {"from", "to", "path", "reason"}
        assert pair["path"] in {"nvlink", "rdma", "shm", "tcp"}
    assert isinstance(document["warnings"], list)


def test_there_are_statuses_to_look_at() -> None:
    assert len(statuses()) >= 3
    assert any(status.transport.pairs for status in statuses())


@pytest.mark.parametrize("status", statuses(), ids=lambda status: status.state)
def test_statuses(status: RunStatus) -> None:
    document = encoded(status)
    holds(RunStatus, document)
    assert set(document) >= {
        *("schema", "name", "state", "supervisor", "frontend", "processes", "transport", "ttft_ms")
    }
    assert document["schema"] == 1
    assert "pid" in document["supervisor"]
    assert "url" in document["frontend"]
    for process in document["processes"]:
        assert set(process) >= {
            *("id", "role", "node", "pid", "state", "phase", "gpus", "gpu_uuids", "nics", "numa", "cpus", "ports"),
            *("restarts", "since", "rss_bytes"),
        }
    assert set(document["transport"]) >= {"required", "verdict", "gigabytes_per_s", "evidence", "pairs"}
    for pair in document["transport"]["pairs"]:
        assert set(pair) >= {"from", "to", "verdict", "bytes", "gigabytes_per_s", "evidence"}
        assert all(set(line) == {"kind", "source", "line"} for line in pair["evidence"])
    assert set(document["ttft_ms"]) >= {"p50", "p99", "window_s", "split", "window"}


def test_states_are_those_that_are_promised() -> None:
    states = msgspec.json.schema(RunStatus)["$defs"]["RunStatus"]["properties"]["state"]["enum"]
    assert set(states) == {"starting", "ready", "degraded", "failed", "stopping", "stopped", "unsupervised"}
    verdicts = msgspec.json.schema(RunStatus)["$defs"]["TransportStatus"]["properties"]["verdict"]["enum"]
    assert set(verdicts) == {"nvlink", "rdma", "shm", "tcp", "mixed", "unknown"}
    process = msgspec.json.schema(RunStatus)["$defs"]["ProcessStatus"]["properties"]["state"]["enum"]
    assert {state for row in TABLE for state in (row.state, row.after)} == set(process)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_events(event: Event) -> None:
    document = encoded(event)
    holds(Event, document)
    assert {"seq", "at", "kind", "message"} <= set(document)
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event


def compared() -> Document:
    """Two layouts, measured."""
    layout, baseline = served("one", ttft_ms=80), served("two")
    return result(
        layout, baseline, baseline="two", comparison=compare(baseline.rounds, layout.rounds, slo_ms={"ttft_ms": 60.0})
    )


def test_a_bench() -> None:
    document = encoded(compared())
    holds(Document, document)
    assert set(document) >= {*("schema", "workload", "client_health", "runs", "comparison")}
    for run in document["runs"]:
        assert {"layout", "metrics"} <= set(run)
        assert {"p50", "p90", "p99"} <= set(run["metrics"]["ttft_ms"]) & set(run["metrics"]["itl_ms"])
        assert {"output_tokens_per_s", "requests_per_s", "goodput"} <= set(run["metrics"])
    assert set(document["comparison"]) >= {"ttft_p50", "itl_p50", "goodput"}
    for verdict in document["comparison"].values():
        assert {"ratio", "ci95", "verdict"} <= set(verdict)
        assert verdict["verdict"] in {"better", "worse", "no difference shown"}
    assert document["comparison"]["ttft_p50"]["verdict"] == "worse"


def test_a_diff_and_an_advice() -> None:
    holds(Diff, encoded(Diff(old="a", new="b", comparison=compared().comparison)))
    for ttft_ms in (None, 1.0, 300.0):
        asked = Demand(prefill_tok_s=30000, decode_tok_s=1500, isl=3000, osl=150, gpus=8, ttft_ms=ttft_ms)
        holds(Advice, encoded(advise(asked)))


def test_the_committed_schema_of_bench() -> None:
    """What others build on: a change of the document shows as a change of this file."""
    committed = Path(__file__).parents[2] / "docs" / "bench.schema.json"
    made = msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Document)), indent=1) + b"\n"
    assert committed.read_bytes() == made, "write bench.schema.json anew from msgspec.json.schema(Document)"


@pytest.mark.parametrize(("kind", "document"), [
    (Document, {"schema": 1}),
    (Document, {"client_health": {"valid": True}}),
    (Event, {"seq": 1, "at": 1.0, "kind": "gossip", "message": "m"}),
    (Event, {"seq": "one", "at": 1.0, "kind": "gate", "message": "m"}),
    (RunStatus, {"name": "x", "state": "fine", "transport": {"required": "auto"}}),
    (RunStatus, {"name": "x", "state": "ready"}),
    (Plan, {"name": "x"}),
])  # fmt: skip
def test_the_schemas_refuse_what_is_wrong(kind: type[msgspec.Struct], document: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        holds(kind, document)


@pytest.mark.parametrize("make", [lambda: PLANS[0], lambda: statuses()[0], compared], ids=["plan", "status", "bench"])
def test_a_later_version_may_add_keys(make: Callable[[], msgspec.Struct]) -> None:
    example = make()
    kind = type(example)
    document = {**encoded(example), "added_later": {"a": 1}}
    holds(kind, document)
    assert msgspec.convert(document, kind) == example
