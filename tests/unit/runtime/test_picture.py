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
    spec = SimpleNamespace(id="decode-0", role="decode", probes=SimpleNamespace(url="http://h:1"))
    plan = SimpleNamespace(workers=lambda: (spec,), own=lambda: (spec,))
    process = SimpleNamespace(id="decode-0", spec=spec, state=state)
    nothing = cast("Any", None)
    picture = Picture(cast("Any", plan), nothing, {"decode-0": cast("Any", process)}, nothing, nothing)
    picture.was_ready = was_ready
    (entry,) = picture.table({"decode-0"}).workers
    assert entry.state == told
