"""`dynctl bench`: the same workload against one or two layouts, and what may be said of the difference."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import msgspec

from dynctl.bench import ask, layouts
from dynctl.bench.away import away
from dynctl.bench.conclude import conclude
from dynctl.bench.crew import Crew
from dynctl.bench.document import Document
from dynctl.bench.files import write
from dynctl.bench.holder import Held
from dynctl.bench.layouts import Interrupted, Layout
from dynctl.bench.measure import Arm, Bench, in_turns
from dynctl.bench.pace import fitted, trial
from dynctl.bench.progress import BenchProgress
from dynctl.bench.stop import Stop
from dynctl.bench.table import text
from dynctl.bench.target import Target, by_run
from dynctl.bench.workload import Workload
from dynctl.cli import bench_options as typed
from dynctl.cli.bench_options import BenchOptions
from dynctl.cli.bench_sources import sources
from dynctl.errors import DynctlError
from dynctl.preflight.gather import self_command
from dynctl.store.run import RunStore, is_supervised, known_runs


class Campaign:
    """One invocation: who is measured, and how far it came."""

    def __init__(self, names: Sequence[str], options: BenchOptions) -> None:
        self.options = options
        self.command = ("dynctl", *sys.argv[1:])
        self.headers = typed.headers(options)
        self.output = typed.output_dir(options.output)
        self.trace = typed.trace(options)
        self.limits = typed.limits(options)
        self.slo_ms = typed.slo_ms(options.slo)
        self.aiperf = typed.aiperf(options, self.headers)
        self.stop = Stop()
        self.notes: list[str] = []
        self.arms: list[Arm] = []
        typed.workloads(options, options.model or "", compared=False)  # what is wrong with them is said first
        self.scratch = tempfile.TemporaryDirectory(prefix="dynctl-bench-")
        self.sources = sources(names, options, self.headers, Path(self.scratch.name))
        self.compared = len(self.sources) == 2 or options.aa
        self.began_at = time.time()

    # measuring

    def run(self) -> int:
        """Measures, says what came of it, and ends what it started; the exit code."""
        options = self.options
        command = self_command()
        cores = _spare_cores(options.processes)
        with self.scratch, self.stop, BenchProgress(no_color=options.no_color) as progress:
            try:
                with contextlib.ExitStack() as stack:
                    client = self.aiperf or stack.enter_context(Crew(command, options.processes, cores))
                    bench = Bench(client, self.limits, progress.tell, self.stop.asked, self.trace)
                    self._measure(bench, progress)
            except Interrupted:
                pass
            except DynctlError as error:
                self._keep(error)
                raise
            self._phase("working out the result", progress)
        document = self._document()
        self._show(document)
        for path in write(self.output, document, self.arms) if self.output else ():
            print(f"wrote {path}", file=sys.stderr)  # noqa: T201
        if self.stop.number:
            return 128 + self.stop.number
        return 0 if document.valid else 1

    def _keep(self, error: DynctlError) -> None:
        """What was measured before an error ended the bench is kept all the same."""
        self.notes.append(f"ended early: {error.cause}")
        self.stop.interrupted_in = self.stop.phase
        if self.output and any(arm.rounds for arm in self.arms):
            write(self.output, msgspec.structs.replace(self._document(), partial=True), self.arms)

    def _measure(self, bench: Bench, progress: BenchProgress) -> None:
        layouts_ = [source for source in self.sources if isinstance(source, Layout)]
        if not self.options.slo:
            for layout in layouts_:
                self.slo_ms |= layout.slo_ms
        if len(layouts_) == 2 and not self._fit_together(layouts_):
            self._alternate(bench, progress, layouts_)
            return
        if self.options.alternate and isinstance(self.sources[0], Target):
            self._in_its_place(bench, progress, self.sources[0], layouts_[0])
            return
        if len(layouts_) == 1 and len(self.sources) == 2:
            self._beside(layouts_[0], next(source for source in self.sources if isinstance(source, Target)))
        with contextlib.ExitStack() as stack:
            targets: list[Target] = []
            for source in self.sources:
                if isinstance(source, Target):
                    targets.append(source)
                else:
                    targets.append(stack.enter_context(self._up(source, progress)))
            if self.options.aa:
                targets.append(targets[-1])
            self._in_turns(bench, progress, targets)

    def _in_turns(self, bench: Bench, progress: BenchProgress, targets: list[Target]) -> None:
        """Targets that are all there: rounds alternate. A single one may be measured under several loads."""
        model = self.options.model or ask.model_of(targets[0].url, dict(targets[0].headers), targets[0].cert)
        loads = typed.workloads(self.options, model, compared=self.compared)
        self._phase("asking the tokenizer", progress)
        for workload in loads:
            self._learn(bench, targets, workload)
            for target in targets:
                workload = self._paced(bench, progress, target, workload)
            arms = [Arm(target.label, workload) for target in targets]
            if self.options.aa:
                arms[-1] = _again(arms[-1])
            self.arms += arms
            self._phase("measuring", progress)
            in_turns(bench, list(zip(arms, targets, strict=True)), range(workload.rounds), self.stop.asked)

    def _alternate(self, bench: Bench, progress: BenchProgress, pair: list[Layout]) -> None:
        """Two start-ups of each, A B B A, with half of the rounds in each: what a start-up decides is seen twice."""
        self.notes.append("start-up confounded: the layouts were not up at once, but started in turns, A B B A")
        labels = [layout.label for layout in pair]
        for turn, which in enumerate((0, 1, 1, 0)):
            with self._up(pair[which], progress, turn) as target:
                self._turn(bench, progress, labels, turn, target)
            if self.stop.asked():
                return

    def _in_its_place(self, bench: Bench, progress: BenchProgress, running: Target, layout: Layout) -> None:
        """A B B A, where A runs already: it makes way for B, and its second start-up brings it back to the user."""
        plan, labels = running.plan, [running.label, layout.label]
        assert plan  # noqa: S101 - of a URL no counterpart is derived
        layouts.refuse_running(layout)
        self.notes.append("start-up confounded: the layouts were not up at once, but in turns, A B B A")
        self.notes.append(f"{running.label} was measured as it ran, then ended, and brought up again for the last turn")
        self._turn(bench, progress, labels, 0, running)
        if self.stop.asked():
            return
        with away(plan, layout, self_command(), progress.aside, partial(self._phase, progress=progress)) as held:
            for turn in (1, 2):
                if not self.stop.asked():
                    with self._up(layout, progress, turn, held) as target:
                        self._turn(bench, progress, labels, turn, target)
        if not self.stop.asked():
            self._turn(bench, progress, labels, 3, by_run(RunStore(plan.name), self.headers, running.label))

    def _turn(self, bench: Bench, progress: BenchProgress, names: Sequence[str], turn: int, on: Target) -> None:
        """One of the four turns A B B A: half of the rounds of the one that is up."""
        if not self.arms:
            model = self.options.model or ask.model_of(on.url, dict(on.headers), on.cert)
            (workload,) = typed.workloads(self.options, model, compared=True)
            self._learn(bench, [on], workload)
            workload = self._paced(bench, progress, on, workload)
            workload = msgspec.structs.replace(workload, rounds=max(2, workload.rounds))
            self.arms = [Arm(label, workload) for label in names]
            self.arms += [_again(self.arms[1])] if self.options.aa else []
        arms = self.arms[1:] if turn in (1, 2) else self.arms[:1]
        workload = arms[0].workload
        self._learn(bench, [on], workload)
        half = (workload.rounds + 1) // 2
        numbers = range(half) if turn < 2 else range(half, workload.rounds)
        self._phase(f"measuring {arms[0].label}", progress)
        in_turns(bench, [(arm, on) for arm in arms], numbers, self.stop.asked, start_up=turn // 2)

    def _up(
        self, what: Layout, progress: BenchProgress, turn: int | None = None, within: Held | None = None
    ) -> AbstractContextManager[Target]:
        start_up = "" if turn is None else f" (start-up {turn // 2 + 1} of 2)"
        self._phase(f"bringing up {what.label}{start_up}", progress)
        return layouts.up(what, self_command(), self.headers, self.stop.asked, progress.aside, within)

    def _learn(self, bench: Bench, targets: Sequence[Target], workload: Workload) -> None:
        for target in targets:
            note = f"{target.label}: no /tokenize and no usage: a word is taken for a token, prompts are not exact"
            if not bench.learn(target, workload) and note not in self.notes:
                self.notes.append(note)

    def _paced(self, bench: Bench, progress: BenchProgress, target: Target, workload: Workload) -> Workload:
        """Fewer requests a round where a comparison of a slow target would take long, and nobody said how many."""
        if not self.compared or self.options.requests or not workload.concurrency or workload.open or workload.trace:
            return workload
        self._phase("trying the pace", progress)
        pace = bench.pace(target, trial(workload))
        fit = fitted(workload, pace) if pace else workload
        if pace and fit.requests < workload.requests:
            self.notes.append(
                f"{fit.requests} requests a round, not {workload.requests}: {target.label} serves {pace:.1f} a second "
                "(--requests N for another number)"
            )
        return fit

    def _fit_together(self, pair: Sequence[Layout]) -> bool:
        """Whether this machine's free GPUs hold both. Without GPUs only on request: cores would be shared."""
        if self.options.together:
            return True
        from dynctl.hardware.discover import discover

        machine = discover()
        return (
            machine.has_gpu()
            and len(machine.gpus) >= sum(what.gpus for what in pair)
            and not any(is_supervised(store.name) for store in known_runs())
        )

    def _beside(self, layout: Layout, running: Target) -> None:
        """A layout comes up beside what runs already."""
        from dynctl.hardware.discover import discover

        machine = discover()
        layouts.room_beside(layout, running.label, running.gpus, machine)
        if not machine.has_gpu():
            self.notes.append("both layouts were up at once, on the same cores")

    def _phase(self, what: str, progress: BenchProgress) -> None:
        self.stop.phase = what
        progress.phase(what)

    # the result

    def _document(self) -> Document:
        return conclude(
            self.arms,
            compared=self.compared,
            slo_ms=self.slo_ms,
            notes=self.notes,
            stop=self.stop,
            processes=self.options.processes,
            command=self.command,
            backend=self.options.backend,
            at=self.began_at,
        )

    def _show(self, document: Document) -> None:
        if self.options.json:
            print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())  # noqa: T201
        else:
            for line in text(document):
                print(line)  # noqa: T201 - stdout is data


def bench(names: Sequence[str], options: BenchOptions) -> int:
    """Runs it; 0 valid (a layout that is worse is no failure), 1 invalid, 130 interrupted with what there was saved."""
    if names and names[0] == "diff":
        from dynctl.cli.bench_diff import diff

        return diff(list(names[1:]), as_json=options.json)
    return Campaign(names, options).run()


def _again(arm: Arm) -> Arm:
    """The same layout once more, with prompts of its own: no cache may know them."""
    return Arm(f"{arm.label} again", msgspec.structs.replace(arm.workload, nonce=arm.workload.nonce + "b"))


def _spare_cores(processes: int) -> list[int] | None:
    """The last cores that this process may use, where there are enough: the kernel then moves nothing about."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-processes:] if len(cores) >= 8 * processes else None
