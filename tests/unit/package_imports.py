"""The package's modules as syntax trees, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[2] / "dynctl"


class Import(NamedTuple):
    """`name` of `module`, or the module whole where name is empty; `late`: within a function."""

    module: str
    name: str
    late: bool


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(node: ast.AST, late: bool = False) -> Iterator[Import]:
    """All imports that are executed, those under TYPE_CHECKING left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (Import(item.name, "", late) for item in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(child.module or "", item.name, late) for item in child.names)
        else:
            yield from imports(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


TREES = {module_name(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def target(found: Import) -> str:
    """The module that is really imported: `from dynctl.store import paths` means dynctl.store.paths."""
    inner = f"{found.module}.{found.name}"
    return inner if inner in TREES else found.module
