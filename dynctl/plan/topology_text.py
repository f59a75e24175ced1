"""A layout as a commented topology file. Pure."""

from __future__ import annotations

import json
import re
import textwrap

from dynctl.hardware.values import Hardware
from dynctl.plan.layout import Layout, Pool

PLAIN = re.compile(r"[A-Za-z/][\w./-]*")


def topology_text(layout: Layout, *, name: str, model: str, hardware: Hardware) -> str:
    """The file that `init` writes: what was chosen, why, and the keys that are changed first."""
    lines = [*_comment(layout, hardware), "schema: 1", f"name: {name}", f"model: {_scalar(model)}"]
    if "prefill" in layout.pools:
        lines += [
            "transport:",
            "  require: auto    # the best path each pair has; nvlink, rdma, shm or tcp refuse anything slower",
        ]
    lines.append("roles:")
    for role, pool in layout.pools.items():
        lines.append(f"  {role}: {{{_pool(pool)}}}")
    return "\n".join(lines) + "\n"


def _comment(layout: Layout, hardware: Hardware) -> list[str]:
    where = f" for {hardware.hostname}" if hardware.hostname else ""
    head = f"Written by `dynctl init`{where}. `dynctl plan` shows what follows from it, docs/topology.md every key."
    parts = [head, *(f"- {reason}" for reason in layout.reasons)]
    return [
        f"# {line}"
        for part in parts
        for line in textwrap.wrap(_one_line(part), 110, subsequent_indent="  " if part.startswith("- ") else "")
    ]


def _pool(pool: Pool) -> str:
    share = [f"share: {pool.share:g}"] if pool.share else []
    return ", ".join([f"workers: {pool.workers}", *share, *([f"tp: {pool.tp}"] if pool.tp > 1 else [])])


def _scalar(text: str) -> str:
    """Plain where YAML reads it back as the same text, else in double quotes."""
    return text if PLAIN.fullmatch(text) or text == "builtin:tiny" else json.dumps(text)


def _one_line(text: str) -> str:
    """A process may have any name: nothing of it ends the comment."""
    return "".join(character if character.isprintable() else " " for character in text)
