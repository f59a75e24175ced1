"""From the evidence of one transfer to its report: use counts, lanes and NIC counters must agree. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from dynctl.fabric.pair_row import pair_row, spread
from dynctl.fabric.probe.ends import Direction, Transfer
from dynctl.fabric.report import Check, PairReport
from dynctl.fabric.ucx_log import LaneLine, UcxReader
from dynctl.fabric.verdict import explain, lane_class, meets, verdict
from dynctl.telemetry.status import Evidence, Verdict

SEEN_BY_NICS = 0.9
UNSEEN_BY_NICS = 0.5
"""Shares of a transfer's bytes: from the first on it went through the NICs; below the second it did not."""

FIXES: Mapping[str, str] = {
    "no-python": "name a working interpreter: `python:` in the topology",
    "no-nixl": "install NIXL in the engine's interpreter (`nixl`, or nixl-cu12 / nixl-cu13), or run `make engine`",
    "not-nixl": "install NIXL in the engine's interpreter (`nixl`, or nixl-cu12 / nixl-cu13), or run `make engine`",
    "no-ucx": "install a NIXL wheel that brings its UCX plugin (nixl-cu12, nixl-cu13); check NIXL_PLUGIN_DIR",
    "memory": "free memory of that kind, raise `ulimit -l`; for a GPU see `nvidia-smi`",
    "deadline": "see `dmesg` and the NICs' error counters; a peer that is stopped or unreachable looks like this",
    "data": "bytes arrived wrong: don't serve over this path; try another NIC or driver, and report it",
    "crash": "run it again with UCX_LOG_LEVEL=debug; UCX_MODULES=^ib in transport.env tells whether verbs is at fault",
}
"""What to do about each kind of failure that UCX itself says nothing of."""


class Moves(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved: microseconds of every repeat by size in bytes; `extra_bytes`: moved besides, unmeasured."""

    durations_us: dict[int, tuple[float, ...]]
    extra: int = 0
    extra_bytes: int = 0

    @property
    def count(self) -> int:
        """Transfers made."""
        return self.extra + sum(len(times) for times in self.durations_us.values())

    @property
    def bytes(self) -> int:
        """Bytes moved."""
        return self.extra_bytes + sum(size * len(times) for size, times in self.durations_us.items())


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer that did not come about: the probe's kind of error and its words."""

    kind: str
    text: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer's report, and the row that holds it against its floor. `failure`: why it did not come about."""

    report: PairReport
    check: Check
    failure: Failure | None = None


def judge(
    transfer: Transfer,
    direction: Direction,
    moves: Moves,
    reader: UcxReader,
    *,
    sent_bytes: Mapping[str, int] | None = None,
    lenient: bool = False,
) -> Judged:
    """The verdict on a transfer that was made. `reader`: the log of the end that moved the bytes.

    `sent_bytes`: what each NIC sent meanwhile. `lenient`: a path that UCX does not name is a warning.
    """
    reached, evidence = verdict(reader.tables, direction="pull" if direction == "read" else "push")
    lanes = [line for line in reader.lanes if line.endpoint != "self"]
    evidence += tuple(Evidence(kind="lane", source=reader.source, line=_lane_text(line)) for line in lanes[-1:])
    evidence += tuple(
        Evidence(kind="counter", source=f"{nic}/port_xmit_data", line=f"{count:,} bytes sent of {moves.bytes:,} moved")
        for nic, count in (sent_bytes or {}).items()
    )
    doubt = _contradiction(reached, reader, lanes, moves, direction, sent_bytes)
    if doubt:
        reached = "unknown"
    report = _measured(transfer, direction, moves, reached, evidence)
    why, fix = explain(reached, reader, transfer.floor) if not meets(reached, transfer.floor) else ((), None)
    if reached == "unknown":
        report = msgspec.structs.replace(report, error=doubt or "; ".join(why), fix=fix)
    return Judged(report=report, check=_row(transfer, report, (doubt,) if doubt else why, fix, lenient=lenient))


def failed(transfer: Transfer, direction: Direction, failure: Failure, reader: UcxReader) -> Judged:
    """The report of a transfer that did not come about, explained by what UCX complained of."""
    why: tuple[str, ...] = ()
    fix = FIXES.get(failure.kind)
    if reader.errors and failure.kind in ("backend", "transfer", "crash", "deadline", "request"):
        why, found = explain("unknown", reader, transfer.floor)
        fix = found or fix
    report = msgspec.structs.replace(_who(transfer, direction), error="; ".join([failure.text, *why]), fix=fix)
    return Judged(
        report=report, check=_row(transfer, report, (failure.text, *why), fix, lenient=False), failure=failure
    )


def _who(transfer: Transfer, direction: Direction) -> PairReport:
    end = transfer.target if direction == "read" else transfer.source
    return PairReport(
        from_=transfer.source.process,
        to=transfer.target.process,
        memory=end.memory,
        direction=direction,
        gpu=end.gpu,
        nics=tuple(dict.fromkeys((*transfer.source.nics, *transfer.target.nics))),
    )


def _measured(
    transfer: Transfer, direction: Direction, moves: Moves, reached: Verdict, evidence: tuple[Evidence, ...]
) -> PairReport:
    smallest, largest = min(moves.durations_us), max(moves.durations_us)
    rates = {size: [size / took / 1e3 for took in times if took > 0] for size, times in moves.durations_us.items()}
    medians = {size: statistics.median(found) for size, found in rates.items() if found}
    rate = medians.get(largest)
    line = transfer.line_rate_gigabytes_per_s if reached == "rdma" else None
    return msgspec.structs.replace(
        _who(transfer, direction),
        verdict=reached,
        gigabytes_per_s=rate,
        spread=spread(rates[largest]),
        fraction_of_line_rate=rate / line if rate and line else None,
        latency_us=statistics.median(moves.durations_us[smallest]),
        size_bytes=largest,
        gigabytes_per_s_by_size=medians,
        evidence=evidence,
    )


def _contradiction(
    reached: Verdict,
    reader: UcxReader,
    lanes: Sequence[LaneLine],
    moves: Moves,
    direction: Direction,
    sent_bytes: Mapping[str, int] | None,
) -> str | None:
    """What speaks against the verdict, in words."""
    operation = "get" if direction == "read" else "put"
    tables = [t for t in reader.tables if t.endpoint != "self" and t.operation == operation and t.multi]
    uses = sum(row.count or 0 for table in tables for row in table.rows)
    if 0 < uses < moves.count:
        return f"UCX counted {uses} uses for {moves.count} transfers: something else moved the rest"
    offered = {lane_class(lane) for line in lanes[-1:] for group in line.lanes.values() for lane in group}
    if reached not in ("unknown", "mixed") and offered and reached not in offered:
        return f"UCX's use counts say {reached}, but its endpoint has no such lane: {_lane_text(lanes[-1])}"
    if not sent_bytes:
        return None
    sent = sum(sent_bytes.values())
    if reached == "rdma" and sent < SEEN_BY_NICS * moves.bytes:
        return f"UCX's use counts say rdma, but the NICs sent {sent:,} bytes of {moves.bytes:,}"
    if reached in ("nvlink", "shm") and sent > UNSEEN_BY_NICS * moves.bytes:
        return f"UCX's use counts say {reached}, but the NICs sent {sent:,} bytes while {moves.bytes:,} were moved"
    return None


def _lane_text(line: LaneLine) -> str:
    groups = "  ".join(f"{purpose}({' '.join(lanes)})" for purpose, lanes in line.lanes.items())
    return f"{line.endpoint} cfg#{line.cfg} {groups}"


def _row(transfer: Transfer, report: PairReport, why: Sequence[str], fix: str | None, *, lenient: bool) -> Check:
    target = f"{transfer.source.id} -> {transfer.target.id} ({report.direction})"
    return pair_row(report, transfer.floor, target=target, why=why, fix=fix, lenient=lenient)
