"""The `control` section: Dynamo's discovery, request and event planes."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from dynctl.topology.base import Section, Text, Texts, wrong


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
