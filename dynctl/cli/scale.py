"""`dynctl scale`: plans other counts of workers around those that run, and asks the supervisor to bring them about."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping

from dynctl.cli import choose
from dynctl.cli.operate import operate, refuse_unsupervised
from dynctl.errors import UsageError
from dynctl.plan.rescale import check_counts, parse_counts, present_counts, rescale, rewritten
from dynctl.plan.values import Plan
from dynctl.preflight.gather import gather
from dynctl.runtime.messages import Scale
from dynctl.store.run import TOPOLOGY_FILE, RunStore, planning_lock
from dynctl.topology.load import as_json, load_text


def scale(words: list[str], name: str | None, drain_s: float, *, as_json: bool) -> int:
    """0 when the new workers are proven and serve, and those that go are gone; or when there is nothing to do."""
    counts = parse_counts(words)
    store = choose.run(name)
    refuse_unsupervised(store)
    plan = store.plan()
    if plan.nodes:
        raise UsageError(
            f"`{plan.name}` runs on several nodes: workers come and go on a run of one node only",
            fix="change `workers` in the file, end the run on every node and start it again",
        )
    check_counts(plan, counts)
    now = present_counts(plan)
    down = {role: count for role, count in counts.items() if count < now[role]}
    up = {role: count for role, count in counts.items() if count > now[role]}
    if not (down or up):
        print("nothing to do: " + ", ".join(f"{role} has {now[role]}" for role in counts), file=sys.stderr)  # noqa: T201
        return 0
    if down and up:
        _planned(store, counts)  # what does not fit is refused before anything goes
    for part in (down, up):
        if part:
            _scale(store, part, drain_s, as_json=as_json)
    return 0


def _scale(store: RunStore, counts: Mapping[str, int], drain_s: float, *, as_json: bool) -> None:
    """One direction. Ports are looked at under the lock, which is held until the plan is the run's."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(planning_lock())
        plan, topology = _planned(store, counts)
        asked = Scale(plan=plan, topology=topology, drain_s=drain_s)
        operate(store, asked, as_json=as_json, begun=stack.close)


def _planned(store: RunStore, counts: Mapping[str, int]) -> tuple[Plan, str]:
    """The run's plan with these counts, and the topology that it follows from."""
    topology = load_text(rewritten(store.topology(), counts), store.dir / TOPOLOGY_FILE)
    plan = rescale(store.whole_plan(), topology, gather(topology))
    return plan, as_json(topology)
