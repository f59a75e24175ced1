"""`dynctl check-rdma FILE` on a node of several: this node's part of every meeting that the file asks for."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import AbstractAsyncContextManager

import msgspec

from dynctl.cli import two_nodes
from dynctl.errors import DynctlError
from dynctl.fabric.conclude import combined
from dynctl.fabric.peer.address import format_address
from dynctl.fabric.peer.meeting import Meeting
from dynctl.fabric.peer.rendezvous import await_node, dial_node
from dynctl.fabric.report import PairReport, Report
from dynctl.nodes.meetings import Appointment
from dynctl.ui.check_progress import CheckProgress

WAIT_S = 60.0
"""How long a node waits for another by default: people start them by hand."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What this node knows of its meetings: its own name, the run's, the secret, and how long to wait for a node."""

    node: str
    run: str
    secret: str
    within_s: float = WAIT_S


def token(known: Known, at: Appointment) -> str:
    """What both ends of one meeting prove: made of the secret, which it does not give away."""
    said = f"check-rdma {known.run} {at.listener} {at.dialer}"
    return hmac.digest(known.secret.encode(), said.encode(), hashlib.sha256).hex()


def run(appointments: tuple[Appointment, ...], known: Known, here: two_nodes.Here, progress: CheckProgress) -> Report:
    """This node's report with the pairs of all its meetings.

    A meeting that fails is a pair without a verdict, with its cause. When all fail, the first cause is raised.
    """
    found = asyncio.run(_all(appointments, known, here, progress))
    reports = [result for result in found if isinstance(result, Report)]
    if not reports:
        raise next(error for error in found if isinstance(error, BaseException))
    for at, result in zip(appointments, found, strict=True):
        if isinstance(result, DynctlError):
            reports.append(_failed(at, known.node, here.required, result))
        elif isinstance(result, BaseException):
            raise result
    return combined(reports, known.node)


async def _all(
    appointments: tuple[Appointment, ...], known: Known, here: two_nodes.Here, progress: CheckProgress
) -> list[Report | BaseException]:
    """All find their peers at once, and prove one after the other: every node keeps the same order."""
    turns = [asyncio.Event() for _ in range(len(appointments) + 1)]
    turns[0].set()
    return await asyncio.gather(
        *(_one(at, known, here, progress, turns[number : number + 2]) for number, at in enumerate(appointments)),
        return_exceptions=True,
    )


async def _one(
    at: Appointment, known: Known, here: two_nodes.Here, progress: CheckProgress, turns: list[asyncio.Event]
) -> Report:
    other = at.other(known.node)
    mine, following = turns
    try:
        async with _meeting(at, known, progress) as met:
            await met.link.during(mine.wait())
            return await two_nodes.session(met, here, progress)
    except DynctlError as error:
        error.where = error.where or f"the meeting with node {other}"
        raise
    finally:
        await mine.wait()
        following.set()


def _meeting(at: Appointment, known: Known, progress: CheckProgress) -> AbstractAsyncContextManager[Meeting]:
    where, other = format_address(at.host, at.port), at.other(known.node)
    key = token(known, at)
    if known.node == at.listener:
        progress.phase(f"waiting for node {other} at {where}, up to {known.within_s:g} s")
        return await_node(other, at.host, at.port, key, known.within_s)
    progress.phase(f"dialling node {other} at {where}, up to {known.within_s:g} s")
    return dial_node(other, at.host, at.port, key, known.within_s)


def _failed(at: Appointment, node: str, required: str, error: DynctlError) -> Report:
    """A meeting without a proof, in the place of its report."""
    why = "; ".join((error.cause, *error.why))
    pair = PairReport(from_=at.listener, to=at.dialer, error=why, fix=error.fix)
    return Report(ok=False, verdict="unknown", required=required, hostname=node, peer=at.other(node), pairs=(pair,))
