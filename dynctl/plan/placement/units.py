"""What a worker can be given: whole GPUs, or the MIG slices of those that are cut into slices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from dynctl.hardware.values import Gpu, Hardware, Holder, MigDevice
from dynctl.plan.placement.nics import Nearest, NicIndex

SMALL = 0.5
"""A GPU with less than this part of the largest one's memory is not taken without a pin."""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU or one MIG slice. `hindrance`: why nobody can have it; `small`: why nobody gets it without a pin."""

    gpu: Gpu
    mig: MigDevice | None = None
    nearest: Nearest = Nearest()
    hindrance: str | None = None
    small: str | None = None

    @property
    def device(self) -> str:
        """What CUDA_VISIBLE_DEVICES takes: the UUID, or the index where only a matrix is known."""
        return (self.mig.uuid if self.mig else self.gpu.uuid) or str(self.gpu.index)

    @property
    def numa(self) -> int | None:
        """The GPU's NUMA node, None where it has none or it is not known."""
        return self.gpu.numa if self.gpu.numa is not None and self.gpu.numa >= 0 else None

    @property
    def text(self) -> str:
        """`GPU 3`, or `GPU 3's MIG slice 1 (3g.40gb)`."""
        if self.mig is None:
            return f"GPU {self.gpu.index}"
        profile = f" ({self.mig.profile})" if self.mig.profile else ""
        return f"GPU {self.gpu.index}'s MIG slice {self.mig.index}{profile}"


def units(hardware: Hardware) -> tuple[Unit, ...]:
    """Every unit in NVML order, with what is in its way."""
    index = NicIndex(hardware)
    largest = max((_memory(gpu, mig) for gpu in hardware.gpus for mig in gpu.mig or (None,)), default=0)
    found: list[Unit] = []
    for gpu in hardware.gpus:
        nearest = index.nearest(gpu)
        for mig in gpu.mig if gpu.mig_enabled and gpu.mig else (None,):
            memory = _memory(gpu, mig)
            small = f"has {_gib(memory)} of memory, the largest here {_gib(largest)}"
            found.append(
                Unit(
                    gpu=gpu,
                    mig=mig,
                    nearest=nearest,
                    hindrance=_hindrance(gpu, mig),
                    small=small if 0 < memory < SMALL * largest else None,
                )
            )
    return tuple(found)


def held_by(holders: Iterable[Holder]) -> str:
    """`is held by pid 4121 (VLLM::EngineCore, orphan of run 'qwen3')`."""
    return f"is held by {', '.join(holder.text() for holder in holders)}"


def unavailable(found: Iterable[Unit]) -> list[str]:
    """A sentence for each unit that is not given away."""
    return [f"{unit.text} {why}" for unit in found if (why := unit.hindrance or unit.small)]


def remedy(found: Iterable[Unit]) -> str | None:
    """The command that gives back what dead runs hold."""
    holders = [holder for unit in found for holder in (*unit.gpu.holders, *(unit.mig.holders if unit.mig else ()))]
    runs = dict.fromkeys(holder.run for holder in holders if holder.run and holder.kind in ("run", "orphan"))
    return " and ".join(f"`dynctl down {run}`" for run in runs) or None


def by_name(found: Iterable[Unit]) -> Mapping[str | int, Unit]:
    """Units by what a pin may call them: UUID, or NVML index of a whole GPU."""
    names: dict[str | int, Unit] = {}
    for unit in found:
        if unit.mig is None:
            names[unit.gpu.index] = unit
        if unit.device:
            names.setdefault(unit.device, unit)
    return names


def _memory(gpu: Gpu, mig: MigDevice | None) -> int:
    return mig.memory_bytes if mig else gpu.memory_bytes


def _hindrance(gpu: Gpu, mig: MigDevice | None) -> str | None:
    if gpu.lost:
        return f"is lost: {gpu.lost}"
    if gpu.mig_enabled and mig is None:
        return "is in MIG mode and has no slices (`nvidia-smi mig -cgi PROFILE -C` makes one)"
    holders = mig.holders if mig else gpu.holders
    return held_by(holders) if holders else None


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.0f} GiB"
