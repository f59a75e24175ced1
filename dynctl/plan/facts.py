"""What had to be looked up before planning: engine versions, model configuration, ports in use, ambient settings."""

from __future__ import annotations

import msgspec

from dynctl.hardware.values import Hardware


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's interpreter and the versions installed beside it; None: not installed there."""

    python: str
    vllm: str | None = None
    nixl: str | None = None
    torch: str | None = None
    dynamo: str | None = None
    sglang: str | None = None
    trtllm: str | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the engines are given as model (a path or a hub id) and its configuration, empty where it can't be read."""

    model: str
    config: dict[str, object] = {}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plan rests on besides the topology.

    `taken_ports` maps a port that can't be bound to who holds it; `ambient` names variables of the caller's environment
    that steer UCX, NIXL or the side channel and are therefore not passed on; `dynctl` is the argv prefix by which
    dynctl re-executes itself; `notes` is what the plan's reader must be told of these facts (another machine's are
    partly assumed). `node`: the node of the topology that these facts are of, `netdev` the network interface that has
    its address; `elsewhere`: snapshots of the others, as far as there are any. `router`: the command of vllm-router.
    """

    hardware: Hardware
    engine: EngineFacts
    model: ModelFacts
    run_dir: str
    socket: str = ""
    dynctl: tuple[str, ...] = ("dynctl",)
    taken_ports: dict[int, str] = {}
    ambient: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    node: str = "local"
    netdev: str | None = None
    elsewhere: dict[str, Hardware] = {}
    router: str | None = None
