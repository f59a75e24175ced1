"""The frontend section: where it listens, how it routes, and who may ask."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from dynctl.topology.base import Args, Section, Text, wrong
from dynctl.topology.frontend_limits import Admission, LegTimeouts, Retries

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's loopback; a name other than localhost might be anything and is not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value):
            fix = f"write `{value.strip('[]')}`" if value.startswith("[") else "for example `host: 127.0.0.1`"
            raise wrong("must be an address or a host name, without a scheme, port or brackets", fix=fix) from None
    return value


Host = Annotated[str, AfterValidator(_check_host)]


class Tls(Section):
    """Certificate and key of the frontend."""

    cert: Text = Field(description="Path of the certificate chain, PEM.", examples=["./server.pem"])
    key: Text = Field(description="Path of the private key, PEM.", examples=["./server.key"])


class Frontend(Section):
    """The OpenAI-compatible server in front of the workers."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.", examples=["127.0.0.1"])
    port: int = Field(default=8000, ge=1, le=65535, description="Port to listen on.", examples=[8000])
    routing: Literal[
        "round-robin",
        "least-loaded",
        "power-of-two",
        "session",
        "cache-aware",
        "kv-aware",
        "kv",
        "random",
        "direct",
        "device-aware-weighted",
    ] = Field(
        default="round-robin",
        description="How workers are chosen; kv (cache-aware), direct and device-aware-weighted are Dynamo's, "
        "random its and vllm-router's.",
        examples=["cache-aware"],
    )
    kind: Literal["builtin", "vllm-router", "dynamo"] | None = Field(
        default=None, description="Which router serves; by default the one that the engine needs.", examples=["builtin"]
    )
    on: Text | None = Field(
        default=None, description="Node that it runs on, where there are several; by default the first.", examples=["a"]
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that share the port.", examples=[1])
    args: Args = Field(
        default={},
        description="Further flags of Dynamo's frontend or vllm-router, verbatim; those that dynctl sets are refused.",
        examples=[{"router-conditional-disagg": True}],
    )
    migration_limit: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="How often Dynamo's frontend may move a request to another worker when its worker is lost.",
        examples=[3],
    )
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
