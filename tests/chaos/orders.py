"""A real engine that misbehaves when it is told to: what its Python runs first, and how it is told."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

HOOK = """
import importlib.abc, importlib.util, json, os, signal, sys, time

FILE = os.path.join(DIRECTORY, "order-" + os.environ.get("DYNCTL_PROCESS", ""))


def order(name):
    try:
        with open(FILE) as file:
            return json.load(file).get(name)
    except (OSError, ValueError):
        return None


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if not (change := CHANGES.pop(name, None)):
            return None
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


def engine(module):
    core, seen = module.EngineCore, []
    preprocess = core.preprocess_add_request

    def counted(self, request):
        if last := order("crash_on_request"):
            seen.append(1)
            if len(seen) >= last:
                os.unlink(FILE)
                os.kill(os.getpid(), signal.SIGSEGV)
        return preprocess(self, request)

    def held_up(method):
        def step(self):
            while order("stuck"):
                time.sleep(0.05)
            began = time.monotonic()
            done = method(self)
            if times := order("slower"):
                time.sleep((times - 1) * (time.monotonic() - began))
            return done

        return step

    core.preprocess_add_request = counted
    core.step, core.step_with_batch_queue = held_up(core.step), held_up(core.step_with_batch_queue)


def server(module):
    protocol = module.HttpToolsProtocol
    receive = protocol.data_received

    def received(self, data):
        if order("garbage"):
            self.transport.write(b"\\x00\\x01 this is no HTTP\\r\\n\\r\\n")
            self.transport.close()
        else:
            receive(self, data)

    protocol.data_received = received


CHANGES = {"vllm.v1.engine.core": engine, "uvicorn.protocols.http.httptools_impl": server}
if order("die_at_phase"):
    os.write(2, b"told to die\\n")
    os._exit(1)
sys.meta_path.insert(0, Finder())
"""
"""In the engine core, `EngineCore.preprocess_add_request` is called once for each request that arrives, and a `step` is
one pass of the model (vLLM 0.32, vllm/v1/engine/core.py). A crash takes its order away: who is started again does not
crash again."""


def hook(directory: Path) -> Path:
    """The directory for PYTHONPATH of engines that take orders."""
    path = directory / "engine_hooks"
    path.mkdir(exist_ok=True)
    (path / "sitecustomize.py").write_text(HOOK.replace("DIRECTORY", repr(str(directory))))
    return path


def give(directory: Path, process: str, **knobs: Any) -> None:
    """From now on: `crash_on_request` (its engine core dies by SIGSEGV on its so manyth request), `stuck` (no token),
    `slower` (so many times), `garbage` (no HTTP on its port), `die_at_phase` (its next start exits with 1)."""
    partial = directory / f"partial-{process}"
    partial.write_text(json.dumps(knobs))
    partial.rename(directory / f"order-{process}")


def take_back(directory: Path) -> None:
    """All engines behave again."""
    for path in directory.glob("order-*"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
