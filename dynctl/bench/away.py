"""Takes the user's own deployment away while its counterpart needs the GPUs, and brings it back whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dynctl.bench.holder import Held, Order
from dynctl.bench.layouts import Layout, down_command
from dynctl.errors import RuntimeFailure
from dynctl.plan.values import Plan
from dynctl.store.run import TOPOLOGY_FILE


@contextlib.contextmanager
def away(
    plan: Plan,
    instead: Layout,
    command: Sequence[str],
    aside: Callable[[], contextlib.AbstractContextManager[None]],
    phase: Callable[[str], None],
) -> Iterator[Held]:
    """The run is down within, and up again afterwards, once `instead` is gone, as it was started and scaled: by a
    process of its own, within which `instead` is to be held. `aside`: entered while `down` talks on stderr; `phase`:
    told what is done."""
    up = [*command, "up", "-d", str(Path(plan.run_dir) / TOPOLOGY_FILE), "--verify" if plan.verify else "--no-verify"]
    if plan.preflight is None:  # there was none, or nothing for it to look at
        up.append("--no-preflight")
    # where bench and the holder of `instead` were killed, it is still there
    order = Order([*command, "down", plan.name], [down_command(command, instead), up], whole=True)
    phase(f"ending {plan.name}, which comes back later")
    held = Held(command, order)
    try:
        with aside():
            code = held.done()
        if code:
            raise RuntimeFailure(f"`{plan.name}` could not be ended (exit code {code}; why is said above)")
        yield held
    finally:
        phase(f"bringing {plan.name} up again")
        code, said = held.end()
        if code:
            raise RuntimeFailure(
                f"`{plan.name}` could not be brought up again",
                why=said.splitlines()[-3:],
                fix=f"`dynctl up {plan.name}`",
            )
