"""Which engines can be driven. Adding one is a module and a line here."""

from __future__ import annotations

from dynctl.engines.base import EngineAdapter
from dynctl.engines.dynamo import DynamoMocker, DynamoVllm
from dynctl.engines.dynamo_others import DynamoSglang, DynamoTrtllm
from dynctl.engines.vllm import Vllm

_EVERY: tuple[EngineAdapter, ...] = (Vllm(), DynamoVllm(), DynamoSglang(), DynamoTrtllm(), DynamoMocker())
ADAPTERS = {engine.name: engine for engine in _EVERY}
