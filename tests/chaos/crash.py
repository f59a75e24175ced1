"""A real engine that crashes on a request: what its Python runs first, and how it is told."""

from __future__ import annotations

from pathlib import Path

HOOK = """
import importlib.abc, importlib.util, os, signal, sys

ORDER = os.path.join({directory!r}, "crash-" + os.environ.get("DYNCTL_PROCESS", ""))


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "vllm.v1.engine.core":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            crashing(module.EngineCore)

        spec.loader.exec_module = exec_module
        return spec


def crashing(core):
    preprocess, seen = core.preprocess_add_request, []

    def counted(self, request):
        if os.path.exists(ORDER):
            seen.append(1)
            if len(seen) >= int(open(ORDER).read()):
                os.unlink(ORDER)
                os.kill(os.getpid(), signal.SIGSEGV)
        return preprocess(self, request)

    core.preprocess_add_request = counted


sys.meta_path.insert(0, Finder())
"""
"""In the engine core, `EngineCore.preprocess_add_request` is called once for each request that arrives (vLLM 0.32,
vllm/v1/engine/core.py). The order is taken away first: who is started again does not crash again."""


def hook(directory: Path) -> Path:
    """The directory for PYTHONPATH of engines that crash when they are told."""
    path = directory / "engine_hooks"
    path.mkdir(exist_ok=True)
    (path / "sitecustomize.py").write_text(HOOK.format(directory=str(directory)))
    return path


def order(directory: Path, process: str, request: int) -> None:
    """That process's engine core dies by SIGSEGV on its so manyth request from now."""
    partial = directory / f"partial-{process}"
    partial.write_text(str(request))
    partial.rename(directory / f"crash-{process}")
