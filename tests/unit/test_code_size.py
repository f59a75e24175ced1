"""No file and no function of the package grows too large."""

from __future__ import annotations

import ast

from package_imports import FILES, TREES

LONGEST_FILE = 300
LONGEST_FUNCTION = 60


def test_files_and_functions_are_small() -> None:
    long_files = [str(path) for path in FILES.values() if len(path.read_text().splitlines()) > LONGEST_FILE]
    assert long_files == []
    long_functions = [
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert long_functions == []
