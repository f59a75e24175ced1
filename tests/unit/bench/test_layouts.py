"""What bench brings up: the aggregated counterpart of a layout, and whether there is room for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dynctl.bench.layouts import Layout, aggregated, room_beside
from dynctl.errors import HostError, UsageError
from dynctl.hardware.values import Hardware

SNAPSHOTS = Path(__file__).parents[2] / "data" / "snapshots"


def roles(**roles: Any) -> dict[str, Any]:
    return {"schema": 1, "name": "n", "model": "m", "transport": {"require": "rdma"}, "roles": roles}


def test_the_counterpart_has_as_many_gpus_in_decodes_shape() -> None:
    split = roles(
        prefill={"workers": 2, "tp": 2}, decode={"workers": 1, "tp": 4, "args": {"x": 1}, "pin": [{"gpus": [0]}]}
    )
    found = aggregated(split)
    assert found == {
        "schema": 1,
        "name": "n-agg",
        "model": "m",
        "roles": {"worker": {"workers": 2, "tp": 4, "args": {"x": 1}}},
    }


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (roles(worker={"workers": 1}), "aggregated already"),
        (roles(prefill={"workers": 1, "gpus": 1}, decode={"workers": 1, "gpus": 4}), "5 GPUs can't be split"),
    ],
)
def test_where_there_is_none(split: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        aggregated(split)


def test_room_beside_a_run() -> None:
    """On eight GPUs four fit beside four, and beside six they don't; without GPUs cores are shared."""
    machine = msgspec.json.decode((SNAPSHOTS / "h100x8.json").read_bytes(), type=Hardware)
    what = Layout(label="agg", file="f", name="agg-bench", gpus=4)
    room_beside(what, "mine", 4, machine)
    room_beside(what, "mine", 6, Hardware())
    with pytest.raises(HostError) as error:
        room_beside(what, "mine", 6, machine)
    assert "`--alternate`" in str(error.value.fix)
