"""A plan as text: every process with where it sits and what it executes, every pair with its path and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from dynctl.engines.spec import ProcessSpec
from dynctl.plan.values import Plan


def plan_text(plan: Plan) -> RenderableType:
    """The whole plan, wrapped to the console."""
    head = Text.assemble((plan.name, "bold"), f"  {plan.engine}  {plan.model}  {plan.frontend_url}")
    parts: list[RenderableType] = [head]
    for process in plan.processes:
        parts += [Text(), *_process(process)]
    if plan.transport.pairs:
        parts += [Text(), Text(f"transport  require {plan.transport.required}, {plan.transport.direction}", "bold")]
        parts += [Text(f"  {p.from_} -> {p.to}  {p.path}: {p.reason}") for p in plan.transport.pairs]
    parts += [Text(f"warning: {warning}", "yellow") for warning in plan.warnings]
    return Group(*parts)


def _process(process: ProcessSpec) -> Iterator[RenderableType]:
    yield Text.assemble((process.id, "bold"), "  ", ", ".join(_seat(process)))
    if process.env:
        yield Padding(
            Text(" ".join(f"{key}={shlex.quote(value)}" for key, value in process.env.items()), "dim"), (0, 2)
        )
    yield Padding(Text(shlex.join(process.argv)), (0, 2))


def _seat(process: ProcessSpec) -> Iterator[str]:
    if process.gpus:
        yield "GPUs " + ",".join(map(str, process.gpus))
    if process.nics:
        yield "NICs " + ",".join(process.nics)
    if process.numa is not None:
        yield f"NUMA node {process.numa}"
    yield f"cores {process.cpus}" if process.cpus else "any core"
    for name, port in process.ports.items():
        yield f"{name.replace('_', ' ')} port {port}"
