"""Answers imports of torchvision with empty modules, for machines that it has no build for.

The engine's interpreter runs this where this directory is on PYTHONPATH: `dynamo.vllm` imports torchvision, and uses
nothing of it for text models.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

VERSION = "0.28.0"


class _Named(type):
    """A class of which every attribute exists: a placeholder of that name."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


class Shim(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads torchvision and whatever is imported below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for torchvision's modules, nothing for others."""
        if fullname.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The usual one."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Every name that is asked for is there."""
        module.__dict__["__version__"] = VERSION
        module.__dict__["__getattr__"] = lambda name: _Named.__getattr__(_Named(module.__name__, (), {}), name)


if importlib.util.find_spec("torchvision") is None:
    sys.meta_path.append(Shim())
