"""What `dynctl bench` was told to measure: runs, files, URLs, and a run's aggregated counterpart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dynctl.bench import layouts
from dynctl.bench.layouts import Layout
from dynctl.bench.target import Target, by_run, by_url
from dynctl.cli import choose
from dynctl.cli.bench_options import BenchOptions
from dynctl.errors import UsageError
from dynctl.store.run import TOPOLOGY_FILE
from dynctl.topology.load import as_json

Source = Target | Layout
"""What is there already, and what has to be brought up."""


def sources(names: Sequence[str], options: BenchOptions, headers: Mapping[str, str], scratch: Path) -> list[Source]:
    """One or two. `scratch`: where the topology of a counterpart is written."""
    if options.url and names:
        raise UsageError("--url and a name or file are two targets", fix="leave one of them out")
    if options.url:
        found: list[Source] = [by_url(options.url, headers)]
    else:
        found = [_source(name, headers) for name in names] or [by_run(choose.run(None), headers)]
    if options.compare:
        if len(found) > 1:
            raise UsageError("--compare brings the second layout", fix="name one")
        found.append(_derived(found[0], options.compare, scratch / "agg.json"))
    if len(found) > 2:
        raise UsageError("two layouts are compared", fix="name two")
    if options.alternate and not (options.compare and isinstance(found[0], Target) and not options.together):
        raise UsageError(
            "--alternate goes with --compare agg and a running deployment alone",
            why="two files are started in turns as it is, unless there is room for both or --together asks for it",
            fix="leave it out",
        )
    return found


def _source(name: str, headers: Mapping[str, str]) -> Source:
    if name.endswith((".yaml", ".yml", ".json")) or "/" in name:
        return layouts.layout(name, choose.topology(Path(name), []))
    if name.startswith(("http:", "https:")):
        return by_url(name, headers)
    return by_run(choose.run(name), headers)


def _derived(of: Source, kind: str, path: Path) -> Layout:
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
    path.write_bytes(msgspec.json.encode(layouts.aggregated(document)))
    return layouts.layout(str(path), choose.topology(path, []))
