"""The seam between planning and engines: what an adapter is asked, and which adapters there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from dynctl.engines.spec import ProcessSpec, Role, Seat
from dynctl.errors import UsageError
from dynctl.topology.schema import Topology


class ServiceContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes of a run share that are no workers: `url`, the frontend's; `ports` of each by its id."""

    python: str
    run_dir: str
    namespace: str
    url: str
    ports: Mapping[str, dict[str, int]] = {}


class EngineContext(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter may know besides topology and seat: interpreter, the model's argument, the kind of machine.

    `netdev`: the network interface that KV to and from other nodes may use, where it is known and needed.
    """

    python: str
    model: str
    on_gpu: bool
    cores: int
    loopback_only: bool
    emulation_off: bool = False
    netdev: str | None = None
    service: ServiceContext | None = None


class EngineAdapter(Protocol):
    """Turns seats into processes. Adapters are pure: everything about an engine is data in what they return."""

    name: str
    owned_flags: Mapping[str, str]
    """Flags that dynctl sets itself, and the topology key to use instead."""
    must_agree: Mapping[str, str]
    """Flags on which prefill and decode must agree, and the value that leaving them out means."""
    simulated: bool
    """It takes no GPU and moves no KV."""
    pushes: bool
    """Prefill always writes KV to decode, whatever the topology's direction is by default."""
    counts_kv: bool
    """Its metrics count the KV bytes that it hands over."""
    router: str
    """The kind of frontend that serves its workers unless the topology names another."""
    together: Mapping[str, Mapping[str, str]]
    """Of the router's version the beginning, and of what goes with it: names of EngineFacts' fields, and versions."""

    def packages(self, topology: Topology) -> tuple[str, ...]:
        """What must be installed for its interpreter: names of EngineFacts' fields."""

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        """The ports a worker of that role needs by name, and how many consecutive ones each."""

    def block_tokens(self, topology: Topology, role: Role, *, on_gpu: bool) -> int:
        """The engine's KV block size in tokens; 0 when only the engine knows."""

    def value_type(self, topology: Topology, role: Role, *, on_gpu: bool) -> tuple[str | None, str | None]:
        """The dtype and the KV cache dtype the engine is told to use; None where it decides by itself."""

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        """The worker that sits there."""

    def service_ports(self, topology: Topology) -> dict[str, dict[str, int]]:
        """The ports of its services besides the frontend, by the service's id and the port's name."""

    def services(self, topology: Topology, context: ServiceContext) -> tuple[ProcessSpec, ...]:
        """Its own frontend and what that needs; nothing where the built-in frontend serves it."""


class BuiltinRouter:
    """The part of an adapter whose workers dynctl's own frontend serves."""

    simulated = False
    pushes = False
    counts_kv = True
    router = "builtin"
    together: Mapping[str, Mapping[str, str]] = {}

    def service_ports(self, topology: Topology) -> dict[str, dict[str, int]]:
        """None: there is nothing besides the frontend."""
        return {}

    def services(self, topology: Topology, context: ServiceContext) -> tuple[ProcessSpec, ...]:
        """None: the built-in frontend or vllm-router serves it."""
        return ()


def adapter(topology: Topology) -> EngineAdapter:
    """The adapter of the topology's engine; UsageError for a known engine that has none yet."""
    from dynctl.engines.registry import ADAPTERS

    found = ADAPTERS.get(topology.engine)
    if found is None:
        raise UsageError(
            f"engine `{topology.engine}` is known, but this version of dynctl has no adapter for it",
            where=topology.where("engine"),
            fix="engines with an adapter: " + ", ".join(sorted(ADAPTERS)),
        )
    return found


def refuse_frontend_flags(topology: Topology, owned: Mapping[str, str]) -> None:
    """UsageError for a flag of `frontend.args` that dynctl sets. `owned`: what to use instead, by flag."""
    for key in topology.frontend.args:
        name = flag_name(key).removeprefix("no-")
        if use := next((use for flag, use in owned.items() if flag.startswith(name)), None):
            raise UsageError(
                f"`{key}` is set by dynctl and can't be given in args",
                where=topology.where("frontend", "args", key),
                fix=use,
            )


def flag_name(key: str) -> str:
    """A flag as users may write it (`--max_model_len`, `max-model-len`, `tp`) in its one spelling without dashes.

    After a dot comes a key within a JSON flag (`hf-overrides.rope_scaling`): it stays as it is.
    """
    name, dot, inner = key.lstrip("-").partition("=")[0].partition(".")
    return name.replace("_", "-") + dot + inner


def _owner(key: str, engine: EngineAdapter) -> str | None:
    """What to use instead of a flag that dynctl sets; argparse takes any beginning of a flag for the whole."""
    name = flag_name(key).partition(".")[0].removeprefix("no-")
    return next((use for flag, use in engine.owned_flags.items() if flag.startswith(name)), None)


def refuse_owned_flags(topology: Topology, engine: EngineAdapter) -> None:
    """UsageError when `args` sets what dynctl derives."""
    for role in ("prefill", "decode", "worker"):
        spec = getattr(topology.roles, role)
        for key in spec.args if spec else ():
            if use := _owner(key, engine):
                raise UsageError(
                    f"`{key}` is set by dynctl and can't be given in args",
                    where=topology.where("roles", role, "args", key),
                    fix=use,
                )


def in_its_direction(topology: Topology, engine: EngineAdapter) -> Topology:
    """The topology with the one direction that the engine has, if it has but one. UsageError if it names the other."""
    transport = topology.transport
    if not engine.pushes or transport.direction == "push":
        return topology
    if "direction" in transport.model_fields_set:
        raise UsageError(
            f"the workers of {engine.name} push KV",
            where=topology.where("transport", "direction"),
            why="prefill writes it into decode's memory; there is no other way in this engine",
            fix="leave it out, or write `push`",
        )
    return topology.model_copy(update={"transport": transport.model_copy(update={"direction": "push"})})


def refuse_disagreement(topology: Topology, engine: EngineAdapter) -> None:
    """UsageError when prefill and decode are given different values for what they must agree on."""
    prefill, decode = topology.roles.prefill, topology.roles.decode
    if not (prefill and decode):
        return
    for flag, default in engine.must_agree.items():
        a, b = _said(prefill.args, flag, default), _said(decode.args, flag, default)
        if a != b and str(a) != str(b):
            raise UsageError(
                f"prefill and decode must agree on `{flag}`: {a} and {b}",
                where=topology.where("roles", "decode", "args"),
                why="decode would refuse the KV cache at the handshake (compatibility hash)",
                fix=f"give both roles the same `{flag}`",
            )


def _said(args: Mapping[str, Any], flag: str, default: str) -> Any:
    """The value that `args` give the flag: `flag`, `no-flag` or `flag.key`."""
    given = {flag_name(key): value for key, value in args.items()}
    if inner := {name: value for name, value in given.items() if name.startswith(f"{flag}.")}:
        return inner
    for name, on in ((flag, "true"), (f"no-{flag}", "false")):
        if name in given:
            value = given[name]
            off = "false" if on == "true" else "true"
            return on if value is None or value is True else off if value is False else value
    return default
