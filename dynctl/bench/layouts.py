"""Brings layouts up to be measured, and takes them down again whatever happens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from dynctl.bench.holder import Held, Order
from dynctl.bench.target import Target, by_run
from dynctl.counted import counted
from dynctl.errors import HostError, RuntimeFailure, UsageError
from dynctl.hardware.values import Hardware
from dynctl.store.run import RunStore, is_supervised
from dynctl.topology.schema import Topology

DOWN_S = "5"
SUFFIX = "-bench"
LONGEST_NAME = 40


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A topology file to be measured. `name`: of the run that bench starts, so that the user's own is not touched."""

    label: str
    file: str
    name: str
    gpus: int
    slo_ms: dict[str, float] = {}


class Interrupted(Exception):
    """Ctrl-C while a layout was brought up; it is gone again."""


def layout(file: str, topology: Topology, sets: Sequence[str] = ()) -> Layout:
    """Of a checked topology. UsageError for one that several nodes serve: bench starts what is on this one."""
    if topology.nodes:
        raise UsageError(
            "bench brings up layouts of one node", where=file, fix="bring it up yourself, and name the run instead"
        )
    slo = topology.slo
    found = {"ttft_ms": slo.ttft_ms, "itl_ms": slo.itl_ms} if slo else {}
    return Layout(
        label=topology.name,
        file=file,
        name=topology.name[: LONGEST_NAME - len(SUFFIX)] + SUFFIX,
        gpus=sum(role.workers * role.gpus_per_worker for _, role in topology.roles.present()),
        slo_ms={name: value for name, value in found.items() if value is not None},
    )


def room_beside(what: Layout, running: str, held: int, machine: Hardware) -> None:
    """HostError where too few GPUs are left for a layout beside the run `running`, which holds `held` of them."""
    if machine.has_gpu() and len(machine.gpus) < held + what.gpus:
        raise HostError(
            f"{what.label} needs {counted(what.gpus, 'GPU')} beside the {held} of {running}; "
            f"there are {len(machine.gpus)}",
            why="bench does not end a deployment that it did not start",
            fix=f"`--alternate` ends {running} for the comparison, and brings it up again at the end",
        )


def down_command(command: Sequence[str], what: Layout) -> list[str]:
    """The command that ends the layout's run."""
    return [*command, "down", what.name, "--timeout", DOWN_S]


def refuse_running(what: Layout) -> None:
    """UsageError where a run is there that has the layout's name."""
    if is_supervised(what.name):
        raise UsageError(
            f"a run `{what.name}` is there already", why="another bench may be at it", fix=f"`dynctl down {what.name}`"
        )


@contextlib.contextmanager
def up(
    what: Layout,
    command: Sequence[str],
    headers: Mapping[str, str],
    stopped: Callable[[], bool],
    aside: Callable[[], contextlib.AbstractContextManager[None]],
    within: Held | None = None,
) -> Iterator[Target]:
    """The layout, ready; it is down afterwards. `aside`: entered while `up` talks on stderr; `within`: what holds the
    run that made way for it.

    RuntimeFailure, with `up`'s own exit code, when it does not come up.
    """
    refuse_running(what)
    sets = ["--set", f"name={what.name}", "--set", f"frontend.port={_free_port()}"]
    order = Order([*command, "up", "-d", what.file, *sets, "--no-verify"], [down_command(command, what)])
    held = Held(command, order, within)
    try:
        with aside():
            code = held.done(stopped)
        if stopped():
            raise Interrupted
        if code:
            failure = RuntimeFailure(f"`{what.label}` did not come up (exit code {code}; why is said above)")
            failure.exit_code = code
            raise failure
        yield by_run(RunStore(what.name), headers, what.label)
    finally:
        code, said = held.end()
        if code:
            raise RuntimeFailure(f"`{what.name}` could not be ended", why=said.splitlines()[-3:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def aggregated(document: Mapping[str, object]) -> dict[str, object]:
    """The topology with one `worker` role: decode's shape, as many workers as the GPUs of both roles give."""
    roles = document.get("roles")
    if not isinstance(roles, dict) or "decode" not in roles or "prefill" not in roles:
        raise UsageError("the run is aggregated already", where="--compare agg", fix="name another layout's file")

    def gpus(role: Mapping[str, int]) -> int:
        return role.get("gpus") or role.get("tp", 1) * role.get("pp", 1) * role.get("dp", 1)

    prefill, decode = roles["prefill"], roles["decode"]
    total = sum(role.get("workers", 1) * gpus(role) for role in (prefill, decode))
    if total % gpus(decode):
        raise UsageError(
            f"{counted(total, 'GPU')} can't be split into workers of {gpus(decode)}",
            where="--compare agg",
            fix="name two topology files",
        )
    worker = {key: value for key, value in decode.items() if key not in ("workers", "pin", "on")}
    worker["workers"] = total // gpus(decode)
    kept = {key: value for key, value in document.items() if key not in ("transport",)}
    return {**kept, "name": f"{str(document['name'])[:30]}-agg", "roles": {"worker": worker}}
