"""What the frontend is told of a process in each of its states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dynctl.runtime.picture import Picture


@pytest.mark.parametrize(
    ("state", "was_ready", "told"),
    [
        ("ready", True, "ready"),
        ("ready", False, "proving"),
        ("loading", True, "proving"),
        ("unhealthy", True, "unhealthy"),
        ("draining", True, "draining"),
        ("stopping", True, "down"),
        ("crashed", True, "down"),
    ],
)
def test_the_frontend_is_told_of_each_state(state: str, was_ready: bool, told: str) -> None:
    (entry,) = picture(state, was_ready=was_ready).table({"decode-0"}).workers
    assert (entry.state, entry.lost) == (told, False)


@pytest.mark.parametrize(("node", "lost"), [("ready", False), ("missing", False), ("lost", True)])
def test_the_frontend_is_told_of_a_worker_whose_node_is_lost(node: str, lost: bool) -> None:
    others = SimpleNamespace(rows=lambda: {"b": SimpleNamespace(state=node)})
    (entry,) = picture("unhealthy", was_ready=True, others=others).table(set()).workers
    assert (entry.state, entry.lost) == ("unhealthy", lost)


def picture(state: str, *, was_ready: bool, others: object = None) -> Picture:
    """Of a run with one process, which is on node b."""
    spec = SimpleNamespace(id="decode-0", role="decode", node="b", probes=SimpleNamespace(url="http://h:1"))
    plan = SimpleNamespace(workers=lambda: (spec,), own=lambda: (spec,), places=lambda worker: {spec.node})
    process = SimpleNamespace(id="decode-0", spec=spec, state=state)
    nothing = cast("Any", None)
    made = Picture(
        cast("Any", plan), nothing, {"decode-0": cast("Any", process)}, nothing, nothing, cast("Any", others)
    )
    made.was_ready = was_ready
    return made
