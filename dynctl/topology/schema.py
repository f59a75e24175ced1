"""The topology: what the user wrote, checked, as values. Schema 1 grows only by optional keys."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, WithJsonSchema, model_validator

from dynctl.topology.base import NAME_PATTERN, Milliseconds, Section, Text, fits_as_name, wrong
from dynctl.topology.frontend_limits import Admission, LegTimeouts, Retries
from dynctl.topology.health import Health
from dynctl.topology.kv_path import Transport
from dynctl.topology.node_spec import NodeSpec, check_nodes, check_on, check_span
from dynctl.topology.nodes import Origin
from dynctl.topology.ready import Ready
from dynctl.topology.roles import Pin, RestartRule, Roles, RoleSpec

__all__ = ["Frontend", "Pin", "Ready", "RestartRule", "RoleSpec", "Roles", "Slo", "Tls", "Topology", "Transport"]

Engine = Literal["vllm", "dynamo-vllm", "dynamo-sglang", "dynamo-trtllm", "dynamo-mocker", "sglang", "trtllm"]
BUILTIN_MODELS = ("tiny",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)


def is_model_path(model: str) -> bool:
    """Whether `model` names a directory: it begins with `/`, `./`, `../` or `~`."""
    return model.startswith(("/", "./", "../", "~")) or model in (".", "..")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's loopback; a name other than localhost might be anything and is not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def _check_host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value):
            fix = f"write `{value.strip('[]')}`" if value.startswith("[") else "for example `host: 127.0.0.1`"
            raise wrong("must be an address or a host name, without a scheme, port or brackets", fix=fix) from None
    return value


Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Host = Annotated[str, AfterValidator(_check_host)]
Model = Annotated[Text, AfterValidator(_check_model)]


class Tls(Section):
    """Certificate and key of the frontend."""

    cert: Text = Field(description="Path of the certificate chain, PEM.", examples=["./server.pem"])
    key: Text = Field(description="Path of the private key, PEM.", examples=["./server.key"])


class Frontend(Section):
    """The OpenAI-compatible server in front of the workers."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.", examples=["127.0.0.1"])
    port: int = Field(default=8000, ge=1, le=65535, description="Port to listen on.", examples=[8000])
    routing: Literal["round-robin", "least-loaded", "power-of-two", "session", "cache-aware", "kv-aware"] = Field(
        default="round-robin", description="How workers are chosen.", examples=["cache-aware"]
    )
    kind: Literal["builtin", "vllm-router", "dynamo"] | None = Field(
        default=None, description="Which router serves; by default the one that the engine needs.", examples=["builtin"]
    )
    on: Text | None = Field(
        default=None, description="Node that it runs on, where there are several; by default the first.", examples=["a"]
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes of the frontend.", examples=[1])
    resume: bool = Field(
        default=False, description="Carry on a stream on another worker when its worker dies.", examples=[False]
    )
    tls: Tls | None = Field(
        default=None, description="Serve HTTPS.", examples=[{"cert": "./server.pem", "key": "./server.key"}]
    )
    cors_origins: list[Text] = Field(
        default=[],
        description="Web pages that may use it from a browser: origins, or `*` for all.",
        examples=[["https://app.example"]],
    )
    access_log: Text | None = Field(
        default=None,
        description="File that gets a JSON line for each request; by default there is none.",
        examples=["./access.jsonl"],
    )
    timeouts: LegTimeouts = Field(
        default=LegTimeouts(),
        description="Deadlines of the legs of a request.",
        examples=[{"prefill": "5m", "stall": "2m"}],
        json_schema_extra={"default": {}},
    )
    retries: Retries = Field(
        default=Retries(),
        description="What may be tried again.",
        examples=[{"ratio": 0.2, "burst": 64}],
        json_schema_extra={"default": {}},
    )
    admission: Admission | None = Field(
        default=None, description="How many requests are let through at once.", examples=[{"running": 64}]
    )
    decode_alone: Annotated[int, Field(ge=0)] | Literal["learn"] | None = Field(
        default=None,
        description="Tokens to compute below which decode serves a prompt alone; `learn` finds them by TTFT.",
        examples=["learn"],
    )
    api_keys_file: Text | None = Field(
        default=None,
        description="File of accepted API keys, one on each line; without it no key is asked for.",
        examples=["./api-keys"],
    )
    allow_public: bool = Field(
        default=False,
        description="Serve on an address that others can reach although no API key is asked for.",
        examples=[False],
    )

    @model_validator(mode="after")
    def _not_public_by_accident(self) -> Frontend:
        if is_loopback(self.host) or self.api_keys_file or self.allow_public:
            return self
        raise wrong(
            f"is {self.host}, which others can reach, and no API key is asked for",
            why="whoever reaches the port could use the model",
            fix="add `api_keys_file`, or `allow_public: true` to serve without keys, or use host 127.0.0.1",
            at=("host",),
        )


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
