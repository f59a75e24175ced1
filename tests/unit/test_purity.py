"""Pure modules import no effect, open nothing and print nothing."""

from __future__ import annotations

import ast
import fnmatch

import pytest
from package_imports import TREES, Import, imports, target

PURE = (
    "dynctl.counted",
    "dynctl.environ",
    "dynctl.errors",
    "dynctl.topology*",
    "dynctl.plan*",
    "dynctl.engines.base",
    "dynctl.engines.dynamo*",
    "dynctl.engines.registry",
    "dynctl.engines.spec",
    "dynctl.engines.vllm*",
    "dynctl.export*",
    "dynctl.hardware.values",
    "dynctl.hardware.distance",
    "dynctl.hardware.matrix",
    "dynctl.hardware.nccl_xml",
    "dynctl.hardware.snapshot",
    "dynctl.hardware.xml_tree",
    "dynctl.fabric.checks*",
    *("dynctl.fabric.probe.ends", "dynctl.fabric.probe.judge", "dynctl.fabric.probe.rows"),
    "dynctl.fabric.conclude",
    "dynctl.fabric.pair_row",
    "dynctl.fabric.peer.address",
    "dynctl.fabric.peer.handshake",
    "dynctl.fabric.peer.messages",
    "dynctl.fabric.report",
    "dynctl.fabric.sizes",
    "dynctl.fabric.ucx_log",
    "dynctl.fabric.verdict",
    "dynctl.telemetry*",
    "dynctl.store.event",
    "dynctl.nodes.failed",
    "dynctl.nodes.meetings",
    "dynctl.nodes.messages",
    "dynctl.nodes.parts",
    "dynctl.nodes.seen",
    "dynctl.nodes.words",
    "dynctl.runtime.binding",
    "dynctl.runtime.lifecycle",
    "dynctl.runtime.messages",
    "dynctl.proof.prompt",
    *("dynctl.ssh.route", "dynctl.ssh.trouble", "dynctl.ssh.words"),
    "dynctl.http.heads",
    "dynctl.http.limits",
    "dynctl.http.message",
    "dynctl.http.origin",
    "dynctl.http.reader",
    *("dynctl.frontend.alone", "dynctl.frontend.body", "dynctl.frontend.fair"),
    "dynctl.frontend.kv_index",
    "dynctl.frontend.errors",
    "dynctl.frontend.health",
    *("dynctl.frontend.merge", "dynctl.frontend.messages"),
    "dynctl.frontend.retry",
    "dynctl.frontend.prefixes",
    *("dynctl.frontend.resume", "dynctl.frontend.routing", "dynctl.frontend.transcript"),
    "dynctl.frontend.spans",
    "dynctl.frontend.sse",
    "dynctl.bench",
    *("dynctl.bench.interval", "dynctl.bench.sample", "dynctl.bench.summary", "dynctl.bench.verdict"),
    *("dynctl.bench.arrivals", "dynctl.bench.job", "dynctl.bench.lengths", "dynctl.bench.prompts"),
    *(
        "dynctl.bench.aiconfigurator_rows",
        "dynctl.bench.aiperf_rows",
        "dynctl.bench.document",
        "dynctl.bench.sizing",
        "dynctl.bench.validity",
        "dynctl.bench.words",
    ),
    *("dynctl.bench.sized", "dynctl.bench.stream", "dynctl.bench.trace", "dynctl.bench.workload"),
)
NOT_PURE = (
    "dynctl.topology.load",
    "dynctl.fabric.checks.observe",
    "dynctl.fabric.checks.read_*",
    "dynctl.fabric.checks.tree",
)
PURE_LIBRARIES = {
    *("__future__", "collections", "contextlib", "csv", "dataclasses", "enum", "fractions", "hashlib", "heapq", "http"),
    *("ipaddress", "itertools", "json", "math", "re", "shlex", "statistics", "typing", "urllib", "zlib", "operator"),
    *(
        "functools",
        "difflib",
        "textwrap",
        "hmac",
        "httptools",
        "msgspec",
        "prometheus_client",
        "pydantic",
        "pydantic_core",
        "xml",
        "yaml",
    ),
}
ALLOWED = {
    ("dynctl.topology.*", "pathlib"): "PurePosixPath",
    ("dynctl.proof.prompt", "random"): "Random",  # a generator of its own, seeded
    ("dynctl.bench.*", "random"): "Random",
}
"""Names that may be taken from a module which otherwise has effects."""


def is_pure(module: str) -> bool:
    return _named(module, PURE) and not _named(module, NOT_PURE)


def _named(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(module, pattern) for pattern in patterns)


def is_allowed(module: str, found: Import) -> bool:
    library = found.module.split(".")[0]
    names = [name for (pattern, of), name in ALLOWED.items() if of == library and fnmatch.fnmatch(module, pattern)]
    return library in PURE_LIBRARIES or found.name in names


def effects(module: str, tree: ast.AST) -> list[str]:
    """What a pure module imports that is not pure."""
    found = []
    for item in imports(tree):
        if item.module.startswith("dynctl"):
            if not is_pure(target(item)) and target(item) != "dynctl":
                found.append(target(item))
        elif not is_allowed(module, item):
            found.append(f"{item.module}.{item.name}".rstrip("."))
    return found


def test_pure_patterns_name_something() -> None:
    for pattern in (*PURE, *NOT_PURE):
        assert fnmatch.filter(TREES, pattern), f"{pattern} matches no module"


def test_pure_modules_import_no_effect() -> None:
    found = {module: effects(module, tree) for module, tree in TREES.items() if is_pure(module)}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "import time as t",
        "from os import path",
        "import os.path",
        "from pathlib import Path",
        "import asyncio",
        "import subprocess",
        "import psutil",
        "import httpx",
        "import uvloop",
        "import random",
        "from dynctl.store import paths",
        "from dynctl.runtime.spawn import spawn",
        "from dynctl.topology.load import load",
        "def f():\n    import socket",
    ],
)
def test_an_effect_is_noticed(line: str) -> None:
    assert effects("dynctl.plan.resolve", ast.parse(line)) != []


def test_what_is_for_type_checkers_only_does_not_count() -> None:
    assert effects("dynctl.plan.resolve", ast.parse("if TYPE_CHECKING:\n    import os")) == []


def test_pure_functions_open_and_print_nothing() -> None:
    calls = [
        f"{module}: {node.func.id}"
        for module, tree in TREES.items()
        if is_pure(module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in {"open", "print", "input", "__import__", "exec", "eval"}
    ]
    assert calls == []
