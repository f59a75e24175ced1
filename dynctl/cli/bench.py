"""`dynctl bench`: the same workload against one or two layouts, and what may be said of the difference."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dynctl.bench import ask, layouts
from dynctl.bench.conclude import conclude
from dynctl.bench.crew import Crew
from dynctl.bench.document import Document
from dynctl.bench.files import write
from dynctl.bench.layouts import Interrupted, Layout
from dynctl.bench.measure import Arm, Bench, in_turns
from dynctl.bench.pace import fitted, trial
from dynctl.bench.progress import BenchProgress
from dynctl.bench.stop import Stop
from dynctl.bench.table import text
from dynctl.bench.target import Target, by_run, by_url
from dynctl.bench.workload import Workload
from dynctl.cli import bench_options as typed
from dynctl.cli import choose
from dynctl.cli.bench_options import BenchOptions
from dynctl.errors import DynctlError, UsageError
from dynctl.preflight.gather import self_command
from dynctl.store.run import TOPOLOGY_FILE, RunStore, is_supervised, known_runs
from dynctl.topology.load import as_json

Source = Target | Layout
"""What is there already, and what has to be brought up."""


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
        self.sources = self._sources(names)
        self.compared = len(self.sources) == 2 or options.aa
        self.began_at = time.time()

    def _sources(self, names: Sequence[str]) -> list[Source]:
        options = self.options
        if options.url and names:
            raise UsageError("--url and a name or file are two targets", fix="leave one of them out")
        if options.url:
            found: list[Source] = [by_url(options.url, self.headers)]
        else:
            found = [self._source(name) for name in names] or [by_run(choose.run(None), self.headers)]
        if options.compare:
            if len(found) > 1:
                raise UsageError("--compare brings the second layout", fix="name one")
            found.append(self._derived(found[0], options.compare))
        if len(found) > 2:
            raise UsageError("two layouts are compared", fix="name two")
        return found

    def _source(self, name: str) -> Source:
        if name.endswith((".yaml", ".yml", ".json")) or "/" in name:
            return layouts.layout(name, choose.topology(Path(name), []))
        if name.startswith(("http:", "https:")):
            return by_url(name, self.headers)
        return by_run(choose.run(name), self.headers)

    def _derived(self, of: Source, kind: str) -> Layout:
        """The aggregated counterpart of a layout, as a file of its own."""
        if kind != "agg":
            raise UsageError(f"can't compare with `{kind}`", where="--compare", fix="there is one: agg")
        if isinstance(of, Layout):
            topology = choose.topology(Path(of.file), [])
        elif of.plan is not None:
            topology = choose.topology(Path(of.plan.run_dir) / TOPOLOGY_FILE, [])
        else:
            raise UsageError("nothing is known of a URL's layout", where="--compare", fix="name a run or a file")
        document = msgspec.json.decode(as_json(topology))
        path = Path(self.scratch.name) / "agg.json"
        path.write_bytes(msgspec.json.encode(layouts.aggregated(document)))
        return layouts.layout(str(path), choose.topology(path, []))

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
        written = write(self.output, document, self.arms) if self.output else []
        self._show(document, written)
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
        if len(layouts_) == 1 and len(self.sources) == 2:
            self._beside(layouts_[0], next(source for source in self.sources if isinstance(source, Target)))
        with contextlib.ExitStack() as stack:
            targets: list[Target] = []
            for source in self.sources:
                if isinstance(source, Target):
                    targets.append(source)
                else:
                    self._phase(f"bringing up {source.label}", progress)
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
                workload = self._paced(bench, target, workload)
            arms = [Arm(target.label, workload) for target in targets]
            if self.options.aa:
                arms[-1] = _again(arms[-1])
            self.arms += arms
            self._phase("measuring", progress)
            in_turns(bench, list(zip(arms, targets, strict=True)), range(workload.rounds), self.stop.asked)

    def _alternate(self, bench: Bench, progress: BenchProgress, pair: list[Layout]) -> None:
        """Two start-ups of each, A B B A, with half of the rounds in each: what a start-up decides is seen twice."""
        self.notes.append("start-up confounded: the layouts were not up at once, but started in turns, A B B A")
        for number, which in enumerate((0, 1, 1, 0)):
            what = pair[which]
            self._phase(f"bringing up {what.label} (start-up {number // 2 + 1} of 2)", progress)
            with self._up(what, progress) as target:
                if not self.arms:
                    model = self.options.model or ask.model_of(target.url, dict(target.headers), target.cert)
                    (workload,) = typed.workloads(self.options, model, compared=True)
                    self._learn(bench, [target], workload)
                    workload = self._paced(bench, target, workload)
                    workload = msgspec.structs.replace(workload, rounds=max(2, workload.rounds))
                    self.arms = [Arm(layout.label, workload) for layout in pair]
                    self.arms += [_again(self.arms[1])] if self.options.aa else []
                arms = self.arms[1:] if which else self.arms[:1]
                workload = arms[0].workload
                self._learn(bench, [target], workload)
                half = (workload.rounds + 1) // 2
                numbers = range(half) if number < 2 else range(half, workload.rounds)
                self._phase(f"measuring {what.label}", progress)
                in_turns(bench, [(arm, target) for arm in arms], numbers, self.stop.asked, start_up=number // 2)
            if self.stop.asked():
                return

    def _up(self, what: Layout, progress: BenchProgress) -> contextlib.AbstractContextManager[Target]:
        return layouts.up(what, self_command(), self.headers, self.stop.asked, progress.aside)

    def _learn(self, bench: Bench, targets: Sequence[Target], workload: Workload) -> None:
        for target in targets:
            note = f"{target.label}: no /tokenize and no usage: a word is taken for a token, prompts are not exact"
            if not bench.learn(target, workload) and note not in self.notes:
                self.notes.append(note)

    def _paced(self, bench: Bench, target: Target, workload: Workload) -> Workload:
        """Fewer requests a round where a comparison of a slow target would take long, and nobody said how many."""
        if not self.compared or self.options.requests or not workload.concurrency or workload.open or workload.trace:
            return workload
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
        wanted = sum(what.gpus for what in pair)
        from dynctl.hardware.discover import discover

        machine = discover()
        return machine.has_gpu() and len(machine.gpus) >= wanted and not _alive_runs()

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

    def _show(self, document: Document, written: Sequence[Path]) -> None:
        if self.options.json:
            print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())  # noqa: T201
        else:
            for line in text(document):
                print(line)  # noqa: T201 - stdout is data
        for path in written:
            print(f"wrote {path}", file=sys.stderr)  # noqa: T201


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


def _alive_runs() -> list[RunStore]:
    return [store for store in known_runs() if is_supervised(store.name)]
