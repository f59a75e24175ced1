"""Dynamo's planes before a start: what the run needs of etcd and NATS is there, and its namespace is its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from dynctl.engines.dynamo_planes import ETCD, NATS
from dynctl.errors import HostError, RunStateError, UsageError
from dynctl.plan.values import Plan
from dynctl.preflight.others import is_live
from dynctl.store.registrations import ANSWER_S, EtcdError, Planes, Registration, Registry, clear, planes_of
from dynctl.store.run import known_runs

PACKAGES = {ETCD: "etcd-server", NATS: "nats-server"}
LOOK_S = 0.5
OWN = "leave it out to have one started with the run"

Say = Callable[[str], None]


def check_planes(plan: Plan, say: Say) -> None:
    """Raises for what is missing, does not answer, or is another's; what a dead run has registered is removed."""
    planes = planes_of(plan)
    if planes is None:
        return
    _refuse_missing_servers(plan)
    refuse_shared_namespace(plan)
    if planes.nats:
        _await_nats(planes.nats)
    if planes.etcd:
        registry = Registry(planes.etcd)
        try:
            registry.answers()
            _clear(registry, planes, say)
        except EtcdError as error:
            raise silent("etcd", ", ".join(planes.etcd), str(error)) from error


def refuse_shared_namespace(plan: Plan) -> None:
    """UsageError where another live run of this host has the same namespace on the same servers."""
    mine = planes_of(plan)
    for run in known_runs() if mine else ():
        with contextlib.suppress(RunStateError):
            if run.name == plan.name or not is_live(run):
                continue
            other = planes_of(run.plan())
            if mine and other and mine.meets(other):
                raise UsageError(
                    f"the namespace `{mine.namespace}` is that of the run `{run.name}`",
                    where="control.namespace",
                    why="both use the same servers: their workers would take each other for their own",
                    fix=f"name another one, leave it out, or end that run: `dynctl down {run.name}`",
                )


def absent(planes: Planes) -> Iterator[str]:
    """Which of the servers of others' do not answer, in words."""
    if planes.etcd:
        try:
            Registry(planes.etcd).answers()
        except EtcdError:
            yield f"etcd at {', '.join(planes.etcd)} does not answer"
    if planes.nats and _nats_trouble(planes.nats):
        yield f"NATS at {planes.nats} does not answer"


def silent(what: str, where: str, why: str) -> HostError:
    """The error for a server of others' that does not answer."""
    return HostError(
        f"{what} at {where} does not answer",
        where=f"control.{what.lower()}",
        why=why,
        fix=f"start it, correct the address, or {OWN}",
    )


def _refuse_missing_servers(plan: Plan) -> None:
    for process in plan.own():
        if process.id in PACKAGES and process.role == "control" and not shutil.which(process.argv[0]):
            raise HostError(
                f"there is no `{process.argv[0]}` on this host",
                where=f"process {process.id}",
                why="the run starts its own, as `control` names no other",
                fix=f"install it (`apt-get install {PACKAGES[process.id]}`) and have it on PATH (also /usr/sbin), "
                f"or name a running one: `control.{process.id}`",
            )


def _await_nats(url: str) -> None:
    if trouble := _nats_trouble(url):
        raise silent("NATS", url, trouble)


def _nats_trouble(url: str) -> str | None:
    """A NATS server greets whoever connects, before TLS as well."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 4222), ANSWER_S) as connection:
            connection.settimeout(ANSWER_S)
            greeting = connection.recv(5)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return None if greeting.startswith(b"INFO") else "what listens there is no NATS server"


def _clear(registry: Registry, planes: Planes, say: Say) -> None:
    if planes.derived:
        if count := registry.remove(planes.namespace):
            say(f"removed what an earlier start of the run has left in etcd: {count} keys")
        return
    for name, count in _clear_after_the_dead(planes):
        say(f"removed what the run `{name}`, of which nothing is alive, has left in `{planes.namespace}`: {count} keys")
    left = {one.lease: registry.remaining_s(one.lease) for one in registry.registered(planes.namespace)}
    if left:
        say(f"waiting up to {max(left.values())} s for what is registered in `{planes.namespace}` to run out")
    while there := registry.registered(planes.namespace):
        if alive := [one for one in there if _is_renewed(registry, one, left)]:
            raise UsageError(
                f"the namespace `{planes.namespace}` is in use",
                where="control.namespace",
                why=f"registered there: {_places(there)}; seen to be alive: {_places(alive)}",
                fix="name another one, leave it out, or end who has it",
            )
        time.sleep(LOOK_S)


def _clear_after_the_dead(planes: Planes) -> Iterator[tuple[str, int]]:
    """Runs of this host that had the same namespace, and how many keys of theirs were still there."""
    for run in known_runs():
        with contextlib.suppress(RunStateError):
            if is_live(run):
                continue
            plan = run.plan()
            other = planes_of(plan)
            if other and planes.meets(other) and (count := clear(plan)):
                yield run.name, count


def _places(found: list[Registration]) -> str:
    return ", ".join(sorted(one.at for one in found)[:6])


def _is_renewed(registry: Registry, one: Registration, left: dict[int, int]) -> bool:
    """Whether somebody keeps the lease alive: it is valid for longer than at the last look, or has come since."""
    before, now = left.get(one.lease), registry.remaining_s(one.lease)
    left[one.lease] = now
    return before is None or now > before
