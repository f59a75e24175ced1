"""The topology that fits a machine, as `init` writes it and as `up` starts it where there is no file."""

from __future__ import annotations

from typing import NamedTuple

from dynctl.hardware.values import Hardware
from dynctl.plan.layout import Layout, choose_layout
from dynctl.plan.resolve import TINY
from dynctl.plan.sizing import ModelSize, model_size
from dynctl.plan.topology_text import topology_text
from dynctl.preflight import model as models
from dynctl.topology.schema import as_name

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
DEFAULT_SIZE = (
    ModelSize(  # its configuration as published: the default must not be a guess where it is not in the cache
        parameters=596_049_920, weight_bytes=1_192_099_840, kv_bytes_per_token=114_688, heads=16, kv_heads=8
    )
)
TINY_SIZE = ModelSize(parameters=3_700_000, weight_bytes=7_400_000, kv_bytes_per_token=4096, heads=4, kv_heads=2)


class Fitting(NamedTuple):
    """A topology file's text, the layout it has, and what its reader should know of the model."""

    name: str
    model: str
    text: str
    layout: Layout
    notes: tuple[str, ...] = ()


def fitting(
    hardware: Hardware, model: str | None = None, name: str | None = None, *, elsewhere: bool = False
) -> Fitting:
    """What fits. `model` None: a small real model on GPUs, the built-in one without; HostError where it does not fit.

    `elsewhere`: a model's path may be one of another machine; else UsageError where there is no model.
    """
    chosen = model or (DEFAULT_MODEL if hardware.has_gpu() else TINY)
    size = None if elsewhere and models.is_path(chosen) and not models.exists(chosen) else _size(chosen)
    layout = choose_layout(hardware, chosen, size)
    prefix = "" if hardware.has_gpu() else "cpu-"
    called = f"{prefix}{layout.name}" if model is None else _named(chosen, f"{prefix}{layout.name}")
    return Fitting(
        name=name or called,
        model=chosen,
        text=topology_text(layout, name=name or called, model=chosen, hardware=hardware),
        layout=layout,
        notes=() if size else _unknown(chosen),
    )


def _size(model: str) -> ModelSize | None:
    if model == TINY:
        return TINY_SIZE
    found = model_size(models.look_up(model).config, models.stored_bytes(model))
    return found or (DEFAULT_SIZE if model == DEFAULT_MODEL else None)


def _unknown(model: str) -> tuple[str, ...]:
    if models.is_path(model):
        return (f"{model}: its config.json is not on this machine, or does not say how large the model is",)
    return (
        f"{model} is not in this machine's cache, or its config.json does not say how large it is: tp 1 is a guess",
        f"`hf download {model} config.json` fetches what is needed; then `dynctl init --force` again",
    )


def _named(model: str, layout: str) -> str:
    stem = as_name(model.rstrip("/").rpartition("/")[2].replace("builtin:", ""))[: 39 - len(layout)].strip("-")
    return f"{stem}-{layout}" if stem else layout
