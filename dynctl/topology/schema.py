"""The topology: what the user wrote, checked, as values. Schema 1 grows only by optional keys."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, WithJsonSchema, model_validator

from dynctl.topology.base import NAME_PATTERN, Milliseconds, Section, Text, fits_as_name, wrong
from dynctl.topology.control import Control
from dynctl.topology.frontend_spec import Frontend, Tls, is_loopback
from dynctl.topology.health import Health
from dynctl.topology.kv_path import Transport
from dynctl.topology.node_spec import NodeSpec, check_nodes, check_on, check_span
from dynctl.topology.nodes import Origin
from dynctl.topology.ready import Ready
from dynctl.topology.roles import Pin, RestartRule, Roles, RoleSpec
from dynctl.topology.router_fit import check_router

__all__ = [
    "Control",
    "Frontend",
    "Pin",
    "Ready",
    "RestartRule",
    "RoleSpec",
    "Roles",
    "Slo",
    "Tls",
    "Topology",
    "Transport",
    "is_loopback",
]

Engine = Literal["vllm", "dynamo-vllm", "dynamo-sglang", "dynamo-trtllm", "dynamo-mocker", "sglang", "trtllm"]
BUILTIN_MODELS = ("tiny",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def is_model_path(model: str) -> bool:
    """Whether `model` names a directory: it begins with `/`, `./`, `../` or `~`."""
    return model.startswith(("/", "./", "../", "~")) or model in (".", "..")


def _check_name(value: str) -> str:
    if not fits_as_name(value):
        raise wrong(
            "must be 1 to 40 characters, each of them a-z, 0-9 or `-`, the first not `-`",
            why="the name of a run is also the name of its directory and of its processes",
            fix=f"for example `name: {suggestion}`" if (suggestion := as_name(value)) else "choose such a name",
        )
    return value


def as_name(text: str) -> str:
    """The nearest thing to `text` that fits as a name; empty when nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")


def _check_model(value: str) -> str:
    if value.startswith("builtin:"):
        if value.removeprefix("builtin:") not in BUILTIN_MODELS:
            raise wrong(
                "names a built-in model that does not exist", why="there is one: tiny", fix="write `builtin:tiny`"
            )
    elif not is_model_path(value) and not (_HUB_ID.fullmatch(value) and ".." not in value):
        raise wrong(
            "must be a hub id, a path or builtin:tiny",
            why="a hub id is `owner/name`; a path begins with `/`, `./`, `../` or `~`",
            fix="for example `model: Qwen/Qwen3-0.6B`, or `model: ./my-model`",
        )
    return value


Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Model = Annotated[Text, AfterValidator(_check_model)]


class Slo(Section):
    """Latencies that requests should keep to."""

    ttft_ms: Milliseconds | None = Field(
        default=None, alias="ttft", description="Time to first token.", examples=["300ms"]
    )
    itl_ms: Milliseconds | None = Field(
        default=None, alias="itl", description="Time between two tokens.", examples=["10ms"]
    )


class Topology(Section):
    """A disaggregated (or aggregated) LLM server: model, roles, transport and frontend."""

    schema_: Literal[1] = Field(alias="schema", description="Version of this file format.", examples=[1])
    name: Name = Field(description="Name of the run; by default the name of the file.", examples=["qwen3-32b-2p1d"])
    model: Model = Field(
        description="Hub id, path (begins with /, ./, ../ or ~), or builtin:tiny, a small model made on first use.",
        examples=["Qwen/Qwen3-32B-FP8"],
    )
    served_name: Text = Field(
        default="", description="Model name that clients use; by default the model.", examples=["qwen3-32b"]
    )
    engine: Engine = Field(default="vllm", description="What serves the model.", examples=["vllm"])
    python: Text | None = Field(
        default=None,
        description="Interpreter that has the engine; by default $DYNCTL_ENGINE_PYTHON, then what `make engine` built.",
        examples=["/opt/vllm/bin/python"],
    )
    transport: Transport = Field(
        default=Transport(),
        description="The KV path.",
        examples=[{"require": "auto"}],
        json_schema_extra={"default": {}},
    )
    frontend: Frontend = Field(
        default=Frontend(),
        description="The OpenAI-compatible server.",
        examples=[{"port": 8000}],
        json_schema_extra={"default": {}},
    )
    control: Control = Field(
        default=Control(),
        description="How Dynamo's processes find each other and talk; only for its engines.",
        examples=[{"discovery": "etcd", "request": "tcp", "event": "nats"}],
        json_schema_extra={"default": {}},
    )
    roles: Roles = Field(
        description="Which workers there are: prefill and decode, or worker alone.",
        examples=[{"prefill": {"workers": 1}, "decode": {"workers": 1}}],
    )
    nodes: dict[str, NodeSpec] = Field(
        default={}, description="The machines of a run that spans several.", examples=[{"a": {"address": "10.0.0.1"}}]
    )
    secret_file: Text | None = Field(
        default=None,
        description="File, readable by its owner alone, with the secret that the nodes of a run share; "
        "by default $DYNCTL_SECRET.",
        examples=["./secret"],
    )
    ready: Ready = Field(
        default=Ready(),
        description="How long start-up may take.",
        examples=[{"timeout": "30m"}],
        json_schema_extra={"default": {}},
    )
    health: Health = Field(
        default=Health(),
        description="How ready workers are watched.",
        examples=[{"canary": "5s", "stall": "60s"}],
        json_schema_extra={"default": {}},
    )
    slo: Slo | None = Field(
        default=None, description="Service-level objectives.", examples=[{"ttft": "300ms", "itl": "10ms"}]
    )

    _origin: Origin = PrivateAttr(default_factory=Origin)

    def where(self, *path: str | int) -> str:
        """For errors found after parsing: `FILE:LINE roles.decode.tp` for `where("roles", "decode", "tp")`."""
        return self._origin.where(path)

    def written(self, key: str) -> Any:
        """The data of a section of the user's own (`x-...`); None where there is none."""
        return self._origin.data(key)

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode are apart."""
        return self.roles.worker is None

    def role(self, name: str) -> RoleSpec:
        """The role of that name; KeyError if this topology has none."""
        return dict(self.roles.present())[name]

    @model_validator(mode="before")
    @classmethod
    def _default_served_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("served_name") is None and isinstance(model := data.get("model"), str):
            return {**data, "served_name": model.removeprefix("builtin:")}
        return data

    @property
    def frontend_node(self) -> str | None:
        """The node of the frontend; None where the file has no nodes."""
        return self.frontend.on or next(iter(self.nodes), None)

    @model_validator(mode="after")
    def _nodes_fit(self) -> Topology:
        check_nodes(self.nodes)
        front = (self.frontend.on,) if self.frontend.on else None
        check_on(self.nodes, front, ("frontend", "on"))
        for name, role in self.roles.present():
            check_on(self.nodes, role.on, ("roles", name, "on"))
            check_span(self.nodes, name, role)
        return self

    @property
    def router(self) -> str:
        """The kind of the frontend: `dynamo` for Dynamo's engines, else `builtin`, unless the file names another."""
        return self.frontend.kind or ("dynamo" if self.engine.startswith("dynamo-") else "builtin")

    @model_validator(mode="after")
    def _router_fits(self) -> Topology:
        layout = {"several_nodes": bool(self.nodes), "aggregated": self.roles.worker is not None}
        check_router(self.engine, self.router, self.frontend, self.control, **layout)
        return self

    @model_validator(mode="after")
    def _decode_has_no_pipeline(self) -> Topology:
        """vLLM's NIXL connectors, pull and push, refuse pipeline parallelism on a kv_consumer."""
        decode = self.roles.decode
        if decode is not None and decode.pp > 1 and self.engine in ("vllm", "dynamo-vllm"):
            raise wrong(
                f"is {decode.pp}, but a decode worker can't be split into pipeline stages",
                why="vLLM's NIXL connectors don't allow pipeline parallelism on the side that receives KV",
                fix="use `tp` or `dp` on decode",
                at=("roles", "decode", "pp"),
            )
        return self
