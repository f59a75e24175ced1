"""The proof of a plan's KV path: a transfer for each pair, each GPU and each direction, in the workers' own place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dynctl.fabric.probe import installed, rows
from dynctl.fabric.probe.bench import Bench, Outcome
from dynctl.fabric.probe.ends import Direction, End, Transfer, directions, transfers
from dynctl.fabric.probe.judge import Failure, Judged, failed, judge
from dynctl.fabric.report import Check, PairReport, UcxLibrary
from dynctl.fabric.ucx_log import UcxReader
from dynctl.hardware.values import Hardware
from dynctl.plan.values import Plan, PlannedPair, pairs_to_prove
from dynctl.telemetry.status import Verdict

SIZES = (64 << 10, 1 << 20, 16 << 20, 256 << 20)
QUICK_SIZES = (64 << 10, 4 << 20)
REPEATS = (5, 20)
"""At least and at most."""
MOVED_BYTES = 64 << 20
"""What the repeats of one size should come to."""
QUICK_REPEATS = 5

Progress = Callable[[int, int, str], None]
Proof = tuple[tuple[PairReport, ...], tuple[Check, ...], tuple[UcxLibrary, ...]]


def prove(
    plan: Plan,
    hardware: Hardware,
    *,
    pairs: Sequence[PlannedPair] | None = None,
    sizes: Sequence[int] | None = None,
    both: bool = False,
    quick: bool = False,
    progress: Progress | None = None,
    root: Path = Path("/"),
) -> Proof:
    """Pair reports, rows (`ucx`, `ucxver`, `tls`, `netdev`, `ucxother`, `pair`) and the UCX libraries found.

    `pairs`: by default all of the plan, above 64 a covering set; pairs between nodes are left out. `sizes` in bytes.
    `quick`: a small and a medium size, and no other UCX is looked for. `progress(done, all, what)` is told of each
    transfer. Raises nothing for what goes wrong with a probe: that is in the reports and rows.
    """
    work = asyncio.run(_work(plan, hardware, _Order(pairs, sizes, both, quick), progress or _silent, root))
    return _document(work, quick=quick)


def prove_quickly(
    plan: Plan, hardware: Hardware, pairs: Sequence[PlannedPair], progress: Progress | None = None
) -> tuple[tuple[Transfer, Judged], ...]:
    """The quick form of `prove`: each transfer and what came of it, without rows on UCX."""
    work = asyncio.run(_work(plan, hardware, _Order(pairs, None, False, True), progress or _silent, Path("/")))
    return tuple(work.judged)


class _Order(NamedTuple):
    """What is to be proven."""

    pairs: Sequence[PlannedPair] | None
    sizes: Sequence[int] | None
    both: bool
    quick: bool

    def repeats(self) -> dict[int, int]:
        """How often each size is moved."""
        sizes = self.sizes or (QUICK_SIZES if self.quick else SIZES)
        return {size: QUICK_REPEATS if self.quick else _repeats(size) for size in sizes}


class _Work(NamedTuple):
    """Everything that the probes gave."""

    bench: Bench
    judged: list[tuple[Transfer, Judged]]
    found: list[tuple[rows.Found, UcxReader]]
    system: tuple[UcxLibrary, ...]


async def _work(plan: Plan, hardware: Hardware, order: _Order, progress: Progress, root: Path) -> _Work:
    wanted = transfers(plan, hardware, pairs_to_prove(plan.transport.pairs) if order.pairs is None else order.pairs)
    ends = {end.id: end for transfer in wanted for end in (transfer.source, transfer.target)}
    ways = [(transfer, direction) for transfer in wanted for direction in directions(plan, both=order.both)]
    judged: list[tuple[Transfer, Judged]] = []
    async with Bench(root) as bench:
        elsewhere = asyncio.create_task(_nothing() if order.quick else installed.system())
        progress(0, len(ways), "starting the probes")
        await asyncio.gather(*(bench.start(end) for end in ends.values()))
        for done, (transfer, direction) in enumerate(ways):
            progress(done, len(ways), f"{transfer.pair}: {direction}")
            outcome = await bench.move(transfer, direction, order.repeats())
            judged.append((transfer, _judged(plan, transfer, direction, outcome)))
        system = await elsewhere
    progress(len(ways), len(ways), "done")
    found = [_found(bench, group, hardware, judged) for group in _alike(ends.values())]
    return _Work(bench, judged, found, system)


def _judged(plan: Plan, transfer: Transfer, direction: Direction, outcome: Outcome) -> Judged:
    if isinstance(outcome.moves, Failure):
        return failed(transfer, direction, outcome.moves, outcome.reader)
    lenient = plan.transport.required == "auto" and not any(spec.gpus for spec in plan.processes)
    sent = outcome.sent_bytes
    return judge(transfer, direction, outcome.moves, outcome.reader, sent_bytes=sent, lenient=lenient)


def _document(work: _Work, *, quick: bool) -> Proof:
    found, opened = work.found, work.bench.opened
    checks = [row for one, reader in found for row in rows.rows(one, reader)]
    libraries = tuple(dict.fromkeys(one.library for one, _ in found if one.library.version or one.library.path))
    beside = [*work.system]
    pythons = {one.python: opened[end].others for one, _ in found for end in one.targets if end in opened}
    for python, packages in pythons.items():
        beside += installed.packages(python, packages)
    if not quick and found:
        checks += rows.others(next(iter(libraries), None), beside)
    checks += [one.check for _, one in work.judged]
    return tuple(one.report for _, one in work.judged), tuple(checks), (*libraries, *beside)


def _alike(ends: Iterable[End]) -> list[list[End]]:
    """Ends by interpreter and settings: what UCX finds is the same for all of a group."""
    groups: dict[tuple[object, ...], list[End]] = {}
    for end in ends:
        settings = tuple(sorted((name, value) for name, value in end.env.items() if name.startswith(("UCX_", "NIXL_"))))
        groups.setdefault((end.python, settings), []).append(end)
    return list(groups.values())


def _found(
    bench: Bench, group: Sequence[End], hardware: Hardware, judged: Sequence[tuple[Transfer, Judged]]
) -> tuple[rows.Found, UcxReader]:
    ids = {end.id for end in group}
    first = next((end for end in group if end.id in bench.opened), group[0])
    readers = [bench.readers[end.id] for end in group if end.id in bench.readers]
    reader = max(readers, key=lambda one: len(one.errors), default=UcxReader(first.id))
    opened, resources = bench.opened.get(first.id), bench.resources.get(first.id, ())
    mine = [(t, one) for t, one in judged if {t.source.id, t.target.id} & ids]
    reached: tuple[Verdict, ...] = tuple(one.report.verdict for _, one in mine if one.report.gigabytes_per_s)
    library = UcxLibrary(
        source=f"NIXL {opened.nixl} in {first.python}" if opened else f"NIXL in {first.python}",
        version=(opened.version if opened else None) or reader.version,
        path=(opened.library if opened else None) or reader.library,
        transports=tuple(dict.fromkeys(name.partition("/")[0] for name in resources)),
        devices=tuple(dict.fromkeys(name.partition("/")[2] for name in resources if not name.endswith("/memory"))),
        used=True,
    )
    found = rows.Found(
        targets=tuple(end.id for end in group),
        python=first.python,
        library=library,
        env=first.env,
        floors=tuple(dict.fromkeys(t.floor for t, _ in mine)),
        on_gpu=any(end.memory == "cuda" for end in group),
        nics=tuple(nic.name for nic in hardware.nics),
        reached=reached,
        failure=next((bench.failures[end.id] for end in group if end.id in bench.failures), None),
    )
    return found, reader


def _repeats(size: int) -> int:
    least, most = REPEATS
    return max(least, min(most, MOVED_BYTES // size))


async def _nothing() -> tuple[UcxLibrary, ...]:
    return ()


def _silent(_done: int, _all: int, _what: str) -> None:
    """Says nothing."""
