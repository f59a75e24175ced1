"""The wall clock may jump: it stamps what people read, and decides nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import dynctl

STAMPS = {
    "dynctl.bench.compatible": "aiperf stamps its rows by the wall clock",
    "dynctl.cli.events": "--since asks for a time of day",
    "dynctl.runtime.shared_memory": "files are stamped by it: asked where no note tells what was there before",
    "dynctl.runtime.elsewhere": "when another node was heard last, for people to read",
}
"""Modules that calculate with the wall clock, and why they may."""


def wall_clock(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.time", "datetime.now", "datetime.utcnow"}


def calculations(tree: ast.AST) -> list[str]:
    """Expressions that add to, subtract from or compare with the wall clock."""
    kinds = (ast.BinOp, ast.Compare, ast.AugAssign)
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and any(wall_clock(child) for child in ast.iter_child_nodes(node))
    ]


def test_no_deadline_is_taken_from_the_wall_clock() -> None:
    root = Path(dynctl.__file__).parent
    found = {}
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        if lines := calculations(ast.parse(path.read_text())):
            found[name] = lines
    assert {name: lines for name, lines in found.items() if name not in STAMPS} == {}
    assert set(found) == set(STAMPS), "an exception that is none any more"


def test_such_a_deadline_is_noticed() -> None:
    assert calculations(ast.parse("deadline = time.time() + 5"))
    assert calculations(ast.parse("while time.time() < deadline: pass"))
    assert not calculations(ast.parse("at = time.time()\ndeadline = time.monotonic() + 5"))
