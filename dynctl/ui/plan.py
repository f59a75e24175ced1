"""A plan as text: every process with where it sits and what it executes, every pair with its path and why."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from dynctl.engines.spec import ProcessSpec
from dynctl.plan.values import Plan


def plan_text(plan: Plan, width: int, *, explain: bool = False) -> str:
    """The whole plan, wrapped to `width` columns. `explain`: for each process why it sits where it sits."""
    parts = [f"{plan.name}  {plan.engine}  {plan.model}  {plan.frontend_url}"]
    for process in plan.processes:
        parts += ["", *_wrapped(f"{process.id}  {', '.join(_seat(process))}", width, "", "  ")]
        for reason in process.reasons if explain else ():
            parts += _wrapped(f"why {reason}", width, "  ", "      ")
        parts += _wrapped(shlex.join(f"{key}={value}" for key, value in process.env.items()), width)
        parts += _wrapped(shlex.join(process.argv), width)
    if plan.transport.pairs:
        parts += ["", f"transport  require {plan.transport.required}, {plan.transport.direction}"]
        for pair in plan.transport.pairs:
            parts += _wrapped(f"{pair.from_} -> {pair.to}  {pair.path}: {pair.reason}", width)
    for warning in plan.warnings:
        parts += _wrapped(f"warning: {warning}", width, "", "  ")
    return "\n".join(parts)


def _wrapped(text: str, width: int, first: str = "  ", further: str = "    ") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def _seat(process: ProcessSpec) -> Iterator[str]:
    if process.gpus:
        yield "GPUs " + ",".join(map(str, process.gpus))
    if process.nics:
        yield "NICs " + ",".join(process.nics)
    if process.numa is not None:
        yield f"NUMA node {process.numa}"
    yield f"cores {process.cpus}" if process.cpus else "any core"
    if process.after:
        yield f"starts after {', '.join(process.after)}"
    for name, port in process.ports.items():
        yield f"{name.replace('_', ' ')} port {port}"
