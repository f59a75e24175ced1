"""The shape of the code: pure rooms import no effect, rooms know only those before them, nothing grows too large."""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "dynctl"

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

ROOMS = (
    *(
        "counted",
        "errors",
        "environ",
        "replacing",
        "topology",
        "hardware",
        "http",
        "engines",
        "fabric",
        "plan",
        "export",
    ),
    *("export", "frontend", "telemetry", "store", "proof", "nodes", "ui", "preflight", "runtime", "ssh", "bench"),
    "cli",
)
"""Each room may import those before it, and of the others only their values."""
VALUES = ("plan.values", "engines.spec", "hardware.values", "store.event", "telemetry.status", "frontend.messages")

IN_ENGINE = {
    *("dynctl.engines.tiny_model", "dynctl.engines.inside.vllm_headless", "dynctl.engines.inside.dynctl_guard"),
    "dynctl.engines.weights_fetch",
    *("dynctl.fabric.probe.agent", "dynctl.fabric.probe.agent_memory", "dynctl.fabric.probe.agent_ucx"),
}
"""Scripts that the engine's interpreter runs: nothing of dynctl is there, and nothing of dynctl imports them."""

LONGEST_FILE = 300
LONGEST_FUNCTION = 60


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


def is_pure(module: str) -> bool:
    return _named(module, PURE) and not _named(module, NOT_PURE)


def _named(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(module, pattern) for pattern in patterns)


def target(found: Import) -> str:
    """The module that is really imported: `from dynctl.store import paths` means dynctl.store.paths."""
    inner = f"{found.module}.{found.name}"
    return inner if inner in TREES else found.module


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


def test_rooms_import_only_rooms_before_them() -> None:
    wrong = []
    for module in TREES:
        room = module.split(".")[1] if "." in module else "__main__"
        if room == "__main__":
            continue
        assert room in ROOMS, f"{room} is a new room: give it a place in ROOMS"
        for wanted in {target(item) for item in imports(TREES[module])}:
            if wanted.startswith("dynctl.") and wanted.removeprefix("dynctl.") not in VALUES:
                other = wanted.split(".")[1]
                wrong += [f"{module} imports {wanted}"] * (ROOMS.index(other) > ROOMS.index(room))
    assert wrong == []


def test_values_import_values_only() -> None:
    for name in VALUES:
        for item in imports(TREES[f"dynctl.{name}"]):
            wanted = target(item).removeprefix("dynctl.")
            assert not target(item).startswith("dynctl") or wanted in VALUES, f"{name} imports {wanted}"


def test_modules_import_in_no_circle() -> None:
    graph = {
        module: {target(item) for item in imports(tree) if not item.late and target(item) in TREES}
        for module, tree in TREES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module] - {"dynctl"}):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_engine_is_never_imported() -> None:
    heavy = {"vllm", "torch", "transformers", "nixl", "numpy", "safetensors", "tokenizers", "huggingface_hub"}
    for module, tree in TREES.items():
        found = {item.module.split(".")[0] for item in imports(tree)} & heavy
        assert not found or module in IN_ENGINE, f"{module} imports {found}"
        if module not in IN_ENGINE:
            assert not {target(item) for item in imports(tree)} & IN_ENGINE, f"{module} imports what is the engine's"


def test_every_import_is_a_declared_dependency() -> None:
    declared = {"httptools", "httpx", "msgspec", "prometheus_client", "psutil", "pydantic", "pydantic_core", "pynvml"}
    declared |= {
        "jinja2",
        "yaml",
        "rich",
        "typer",
        "uvloop",
        "opentelemetry",
        "zmq",
        "dynctl",
        *sys.stdlib_module_names,
    }
    for module in set(TREES) - IN_ENGINE:
        assert {item.module.split(".")[0] for item in imports(TREES[module])} <= declared, module


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
