"""Which engines can be driven. Adding one is a module and a line here."""

from __future__ import annotations

from dynctl.engines.base import EngineAdapter
from dynctl.engines.vllm import Vllm

ADAPTERS: dict[str, EngineAdapter] = {"vllm": Vllm()}
