"""The facts of a plan for another machine: its ports, engine and model can't be looked up from here."""

from __future__ import annotations

from dynctl.errors import HostError
from dynctl.hardware.values import Hardware
from dynctl.plan.facts import EngineFacts, Facts, ModelFacts
from dynctl.preflight import engine, model
from dynctl.store import paths
from dynctl.topology.schema import Topology

UNKNOWN = "unknown"
PLACEHOLDER_PYTHON = "python3"


def facts(topology: Topology, hardware: Hardware, dynctl: tuple[str, ...]) -> Facts:
    """What this host knows, placeholders for the rest, and notes that say which is which."""
    found, engine_notes = _engine(topology)
    about, model_notes = _model(topology.model)
    nameless = any(gpu.uuid.startswith("GPU-unknown-") for gpu in hardware.gpus)
    return Facts(
        hardware=hardware,
        engine=found,
        model=about,
        run_dir=str(paths.run_dir(topology.name)),
        socket=str(paths.socket_path(topology.name)),
        dynctl=dynctl,
        notes=(
            "this plan is for another machine: ports in use there, its directories and its environment are not known",
            *engine_notes,
            *model_notes,
            *(["the GPUs' UUIDs are not known: GPU-unknown-0, ... stand for them"] if nameless else []),
            *hardware.notes,
        ),
    )


PACKAGES = ("vllm", "nixl", "torch", "dynamo", "sglang", "trtllm")


def _engine(topology: Topology) -> tuple[EngineFacts, tuple[str, ...]]:
    """The engine as it is here, or placeholders: that it is not installed here says nothing of the other machine."""
    try:
        here = engine.look_up(engine.find_python(topology.python, topology.engine))
    except HostError as error:
        python = topology.python or PLACEHOLDER_PYTHON
        note = f"the engine is not looked up ({error.cause}): `{python}` stands for its interpreter"
        return EngineFacts(python=python, **dict.fromkeys(PACKAGES, UNKNOWN)), (note,)
    versions = {name: getattr(here, name) or UNKNOWN for name in PACKAGES}
    notes = () if topology.python else (f"`{here.python}` is this host's engine; the other machine uses its own",)
    return EngineFacts(python=here.python, **versions), notes


def _model(name: str) -> tuple[ModelFacts, tuple[str, ...]]:
    if model.is_path(name) and not model.exists(name):
        return ModelFacts(model=name), (f"{name} is not on this machine: the size of its KV cache is not known",)
    return model.look_up(name), ()
