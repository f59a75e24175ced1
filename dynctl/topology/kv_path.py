"""The `transport` section: the KV path between prefill and decode."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dynctl.topology.base import Env, Seconds, Section


class Transport(Section):
    """The KV path between prefill and decode."""

    require: Literal["auto", "nvlink", "rdma", "shm", "tcp"] = Field(
        default="auto",
        description="The slowest class of path that every prefill-decode pair may use (nvlink > rdma > shm > tcp); "
        "auto: the best that the hardware offers that pair.",
        examples=["rdma"],
    )
    direction: Literal["pull", "push"] = Field(
        default="pull",
        description="pull: decode reads the KV (NixlConnector); push: prefill writes it (NixlPushConnector).",
        examples=["pull"],
    )
    backend: Literal["ucx", "libfabric"] = Field(default="ucx", description="NIXL's backend.", examples=["ucx"])
    lease_s: Seconds = Field(
        default=30.0,
        alias="lease",
        description="How long prefill keeps the KV of a request that decode has not asked for yet.",
        examples=["30s"],
        json_schema_extra={"default": "30s"},
    )
    env: Env = Field(
        default={}, description="UCX settings for every worker, verbatim.", examples=[{"UCX_TLS": "rc,cuda_copy"}]
    )
    connector: dict[str, Any] = Field(
        default={},
        description="Further keys of vLLM's kv_connector_extra_config, verbatim.",
        examples=[{"num_threads": 4}],
    )
