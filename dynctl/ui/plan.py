"""A plan as text: every process with where it sits and what it executes, every pair with its path and why."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator

from dynctl.engines.spec import ProcessSpec
from dynctl.plan.values import ALL_PAIRS, Plan


def plan_text(plan: Plan, width: int, *, explain: bool = False, here: bool = True) -> str:
    """The whole plan, wrapped to `width` columns. `explain`: for each process why it sits where it sits.

    `here`: the plan's node is the machine that shows it.
    """
    parts = [f"{plan.name}  {plan.engine}  {plan.model}  {plan.frontend_url}"]
    for node in plan.nodes:
        own = node.name == plan.node
        whose = "" if not own else "  (this node)" if here else "  (whose plan this is)"
        parts += ["", f"node {node.name}  {node.address}, control port {node.control_port}{whose}"]
        for process in plan.processes:
            if process.node == node.name:
                parts += _process(process, width, explain=explain, known=own or bool(process.reasons))
    for process in () if plan.nodes else plan.processes:
        parts += _process(process, width, explain=explain)
    parts += _pairs(plan, width)
    for warning in plan.warnings:
        parts += _wrapped(f"warning: {warning}", width, "", "  ")
    return "\n".join(parts)


def _process(process: ProcessSpec, width: int, *, explain: bool, known: bool = True) -> list[str]:
    """`known`: its seat is; else the node that it is on decides that by its own hardware."""
    lines = ["", *_wrapped(f"{process.id}  {', '.join(_seat(process, known=known))}", width, "", "  ")]
    for reason in process.reasons if explain else ():
        lines += _wrapped(f"why {reason}", width, "  ", "      ")
    lines += _wrapped(shlex.join(f"{key}={value}" for key, value in process.env.items()), width)
    return lines + _wrapped(shlex.join(process.argv), width)


def _pairs(plan: Plan, width: int) -> list[str]:
    """Every pair up to the number that is proven one by one; above it the first of each path, and how many more."""
    pairs = plan.transport.pairs
    if not pairs:
        return []
    lines = ["", f"transport  require {plan.transport.required}, {plan.transport.direction}"]
    shown = pairs if len(pairs) <= ALL_PAIRS else tuple({pair.path: pair for pair in reversed(pairs)}.values())
    count = Counter(pair.path for pair in pairs)
    for pair in shown:
        more = f" (and {count[pair.path] - 1:,} more over {pair.path})" if len(shown) < len(pairs) else ""
        lines += _wrapped(f"{pair.from_} -> {pair.to}  {pair.path}: {pair.reason}{more}", width)
    return lines


def _wrapped(text: str, width: int, first: str = "  ", further: str = "    ") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def _seat(process: ProcessSpec, *, known: bool) -> Iterator[str]:
    if process.leader:
        yield f"part of {process.leader}"
    if process.gpus:
        yield "GPUs " + ",".join(map(str, process.gpus))
    if process.nics:
        yield "NICs " + ",".join(process.nics)
    if process.numa is not None:
        yield f"NUMA node {process.numa}"
    if process.cpus or known or process.role == "frontend":
        yield f"cores {process.cpus}" if process.cpus else "any core"
    else:
        yield "GPUs and cores as that node has them"
    if process.after:
        yield f"starts after {', '.join(process.after)}"
    for name, port in process.ports.items():
        yield f"{name.replace('_', ' ')} port {port}"
