"""What an adopted node may take for proven on others: the last proof, unless it failed or the node was lost since."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dynctl.runtime.rejoining import proven_before
from dynctl.store.event import Event

PLAN: Any = SimpleNamespace(
    elsewhere=lambda: [SimpleNamespace(id=f"decode-{n}", node=node) for n, node in enumerate("bc")]
)


def proof(process: str, mark: str | None) -> Event:
    return Event(seq=0, at=0.0, kind="gate", message="", process=process, data={"incarnation": mark})


def heard(node: str) -> Event:
    return Event(seq=0, at=0.0, kind="node", message="", data={"node": node})


BOTH = [heard("b"), heard("c"), proof("decode-0", "r:1"), proof("decode-1", "s:1")]


@pytest.mark.parametrize(
    ("past", "found"),
    [
        (BOTH, {"decode-0": "r:1", "decode-1": "s:1"}),
        ([*BOTH, proof("decode-0", "r:2")], {"decode-0": "r:2", "decode-1": "s:1"}),
        ([*BOTH, proof("decode-0", None)], {"decode-1": "s:1"}),
        ([*BOTH, heard("c")], {"decode-0": "r:1"}),
        ([*BOTH, heard("c"), proof("decode-1", "s:1")], {"decode-0": "r:1", "decode-1": "s:1"}),
        ([*BOTH, proof("prefill-0", "x:1")], {"decode-0": "r:1", "decode-1": "s:1"}),
    ],
)
def test_the_last_proof_counts_unless_something_happened_since(past: list[Event], found: dict[str, str]) -> None:
    assert proven_before(past, PLAN) == found
