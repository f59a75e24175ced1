"""A plan as text: every process with where it sits and what it executes, every pair with its path and why."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from dynctl.engines.spec import ProcessSpec
from dynctl.plan.values import Plan


def plan_text(plan: Plan, width: int) -> str:
    """The whole plan, wrapped to `width` columns."""
    parts = [f"{plan.name}  {plan.engine}  {plan.model}  {plan.frontend_url}"]
    for process in plan.processes:
        parts += ["", f"{process.id}  {', '.join(_seat(process))}"]
        parts += _wrapped(shlex.join(f"{key}={value}" for key, value in process.env.items()), width)
        parts += _wrapped(shlex.join(process.argv), width)
    if plan.transport.pairs:
        parts += ["", f"transport  require {plan.transport.required}, {plan.transport.direction}"]
        for pair in plan.transport.pairs:
            parts += _wrapped(f"{pair.from_} -> {pair.to}  {pair.path}: {pair.reason}", width)
    parts += [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join(parts)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


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
