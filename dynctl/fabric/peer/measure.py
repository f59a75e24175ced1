"""Transfers between two nodes, timed, and what UCX's log says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Literal

import msgspec

from dynctl.fabric.pair_row import spread
from dynctl.fabric.probe.child import Offer, ProbeAgent, ProbeError
from dynctl.fabric.report import PairReport
from dynctl.fabric.ucx_log import UcxReader
from dynctl.fabric.verdict import explain, verdict
from dynctl.plan.values import TransportClass
from dynctl.telemetry.status import Verdict

SIZES: tuple[int, ...] = (64 << 10, 1 << 20, 16 << 20, 256 << 20)
REPEATS = 5
LONG_US = 2e6
"""A transfer longer than this is not followed by a larger one: a slow path would take minutes, and tell no more."""

Direction = Literal["read", "write"]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One direction, measured. Microseconds of each repeat at the smallest and at the largest size."""

    direction: Direction
    small_us: tuple[float, ...] = ()
    large_us: tuple[float, ...] = ()
    large_bytes: int = 0
    error: str | None = None
    fix: str | None = None


async def measure(agent: ProbeAgent, offer: Offer, direction: Direction, sizes: tuple[int, ...]) -> Move:
    """Moves memory at each size, small to large. A transfer that fails is a Move with its cause."""
    small: tuple[float, ...] = ()
    large, size = small, 0
    try:
        for size in sizes:
            moved = await agent.move(offer, direction, size, REPEATS)
            large = moved.durations_us
            small = small or large
            if max(large) > LONG_US:
                break
    except ProbeError as error:
        cause, fix = because(error)
        return Move(direction=direction, error=cause, fix=fix)
    return Move(direction=direction, small_us=small, large_us=large, large_bytes=size)


def because(error: ProbeError) -> tuple[str, str | None]:
    """A probe's failure as cause and fix: what UCX complains of, where it does."""
    reader = read(error.lines)
    found, fix = explain("unknown", reader, "tcp") if reader.errors else ((), None)
    return "; ".join((error.text, *found)), fix


def read(lines: Iterable[str], source: str = "UCX") -> UcxReader:
    """UCX's log."""
    reader = UcxReader(source)
    for line in lines:
        reader.feed(line)
    return reader


def pair_report(
    base: PairReport, move: Move, reader: UcxReader, floor: TransportClass, line_gigabits_per_s: float | None
) -> PairReport:
    """`base` with what was measured, and the verdict by UCX's own protocol table."""
    if move.error:
        return msgspec.structs.replace(base, error=move.error, fix=move.fix)
    way: Literal["pull", "push"] = "pull" if move.direction == "read" else "push"
    reached, evidence = verdict(reader.tables, direction=way, transfer_bytes=move.large_bytes)
    rates = [move.large_bytes / us / 1000 for us in move.large_us]
    rate = statistics.median(rates)
    cause, fix = (None, None) if reached != "unknown" else _unknown(reached, reader, floor)
    return msgspec.structs.replace(
        base,
        verdict=reached,
        evidence=evidence,
        gigabytes_per_s=rate,
        spread=spread(rates),
        latency_us=statistics.median(move.small_us),
        size_bytes=move.large_bytes,
        fraction_of_line_rate=rate * 8 / line_gigabits_per_s if line_gigabits_per_s and reached == "rdma" else None,
        error=cause,
        fix=fix,
    )


def _unknown(reached: Verdict, reader: UcxReader, floor: TransportClass) -> tuple[str, str | None]:
    causes, fix = explain(reached, reader, floor)
    return "; ".join(causes), fix
