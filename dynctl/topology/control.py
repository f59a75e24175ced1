"""The `control` section: Dynamo's discovery, request and event planes; and what goes with which router."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from dynctl.topology.base import Section, Text, Texts, wrong
from dynctl.topology.frontend_spec import Frontend

DYNAMO_ONLY = ("kv", "random", "direct", "device-aware-weighted")
BUILTIN_ONLY = ("session",)
BUILTIN_KEYS = (
    "resume",
    "timeouts",
    "retries",
    "admission",
    "decode_alone",
    "api_keys_file",
    "tls",
    "cors_origins",
    "access_log",
)


def _check_endpoints(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        _check_url(value, ("http", "https"), "http://10.0.0.1:2379")
    return values


def _check_nats(value: str) -> str:
    return _check_url(value, ("nats", "tls"), "nats://10.0.0.1:4222")


def _check_url(value: str, schemes: tuple[str, ...], example: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in schemes or not parts.hostname or not port:
        raise wrong("must be a URL with host and port", fix=f"for example `{example}`")
    if parts.password is not None or parts.username is not None:
        raise wrong(
            "names a user or a password",
            why="the plan, the logs and command lines of processes would show it",
            fix="leave it out, and give it to the processes by their own environment",
        )
    return value


def _check_namespace(value: str) -> str:
    if not (value.isascii() and value.replace("-", "").replace("_", "").isalnum() and len(value) <= 64):
        raise wrong("must be 1 to 64 letters, digits, `-` or `_`", fix="for example `namespace: team-a`")
    return value


class Control(Section):
    """How Dynamo's processes find each other (discovery), send requests, and tell each other of events.

    etcd and NATS are started with the run, on loopback, unless endpoints of running ones are named.
    """

    discovery: Literal["file", "etcd"] = Field(
        default="file",
        description="Where workers register: a private directory of the run, or etcd.",
        examples=["file"],
    )
    request: Literal["tcp", "nats"] = Field(
        default="tcp", description="What carries requests from the frontend to workers.", examples=["tcp"]
    )
    event: Literal["zmq", "nats"] = Field(
        default="zmq", description="What carries KV events and load of workers to the router.", examples=["zmq"]
    )
    etcd: Annotated[Texts, AfterValidator(_check_endpoints)] | None = Field(
        default=None,
        description="Endpoints of a running etcd; by default one is started with the run.",
        examples=[["http://10.0.0.1:2379"]],
    )
    nats: Annotated[Text, AfterValidator(_check_nats)] | None = Field(
        default=None,
        description="URL of a running NATS server; by default one is started with the run.",
        examples=["nats://10.0.0.1:4222"],
    )
    namespace: Annotated[Text, AfterValidator(_check_namespace)] | None = Field(
        default=None,
        description="Dynamo's namespace; by default one of this run alone.",
        examples=["team-a"],
    )

    @property
    def uses_nats(self) -> bool:
        """Whether any plane goes over NATS."""
        return "nats" in (self.request, self.event)


def check_router(engine: str, router: str, frontend: Frontend, control: Control, *, several_nodes: bool) -> None:
    """Raises for a router that the engine's workers don't speak with, and for keys that this router does not have."""
    dynamo = engine.startswith("dynamo-")
    if dynamo != (router == "dynamo"):
        raise wrong(
            f"is {router}, which does not go with the engine {engine}",
            why="workers of Dynamo register with Dynamo's frontend, and speak its protocol alone"
            if dynamo
            else "Dynamo's frontend serves workers that register with Dynamo",
            fix="leave it out: the engine decides",
            at=("frontend", "kind"),
        )
    if dynamo:
        _check_dynamo(frontend, control, several_nodes)
        return
    for key in ("args", "migration_limit"):
        if key in frontend.model_fields_set:
            raise wrong(
                "is Dynamo's alone",
                why=f"the frontend of the engine {engine} is the built-in one",
                fix="leave it out, or use one of the engines dynamo-*",
                at=("frontend", key),
            )
    if frontend.routing in DYNAMO_ONLY:
        raise wrong(
            f"is {frontend.routing}, which only Dynamo's frontend has",
            fix="write `cache-aware` or `least-loaded`, or use one of the engines dynamo-*",
            at=("frontend", "routing"),
        )
    if control.model_fields_set:
        raise wrong(
            "is for Dynamo's engines",
            why=f"the engine is {engine}, whose workers are known to the frontend without it",
            fix="leave it out, or use one of the engines dynamo-*",
            at=("control",),
        )


def _check_dynamo(frontend: Frontend, control: Control, several_nodes: bool) -> None:
    if several_nodes:
        raise wrong(
            "names several nodes, which Dynamo's engines can't be started on by this version",
            why="its discovery, request and event planes are started on one node",
            fix="leave `nodes` out, or use the engine vllm",
            at=("nodes",),
        )
    for key in BUILTIN_KEYS:
        if key in frontend.model_fields_set and getattr(frontend, key):
            raise wrong(
                "is the built-in frontend's alone",
                why="the engine is Dynamo's, and so is its frontend",
                fix="write `migration_limit: 3`" if key == "resume" else "leave it out",
                at=("frontend", key),
            )
    if frontend.routing in BUILTIN_ONLY:
        raise wrong(
            f"is {frontend.routing}, which only the built-in frontend has",
            fix="write `kv`, `round-robin` or `least-loaded`",
            at=("frontend", "routing"),
        )
    for key, used in (("etcd", control.discovery == "etcd"), ("nats", control.uses_nats)):
        if getattr(control, key) is not None and not used:
            plane = "`discovery: etcd`" if key == "etcd" else "`request: nats` or `event: nats`"
            raise wrong("is given, but no plane uses it", fix=f"write {plane}, or leave it out", at=("control", key))
