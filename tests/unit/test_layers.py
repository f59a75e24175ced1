"""Who imports whom: rooms know only those before them, no circles, no engine, no undeclared library."""

from __future__ import annotations

import sys

from package_imports import TREES, imports, target

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
