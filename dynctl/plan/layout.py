"""Which pools fit a machine: P:D counts and tensor parallelism from its free GPUs and the model's size. Pure.

Half of the GPUs prefill, half decode, each worker as small as the model allows; only decode is given twice as many GPUs
per worker where the model needs several anyway, as its KV cache decides how many requests run at once.
"""

from __future__ import annotations

import msgspec

from dynctl.errors import HostError
from dynctl.hardware.values import Gpu, Hardware
from dynctl.plan.sizing import ModelSize

MEMORY_UTILIZATION = 0.9
"""The part of a GPU's memory that the engine takes: vLLM's own default."""
SHARE = 0.45
"""The part for each of two workers on one GPU."""
RUNTIME_BYTES = 2 << 30
"""What a worker needs besides weights and KV: activations, CUDA graphs."""
KV_PART = 0.2
"""The part of what the engine takes that must be left for KV."""
ASSUMED_BYTES = 80 << 30
"""Memory of a GPU where the machine's description does not say."""
SMALL = 0.5
"""GPUs with less than this part of the largest one's memory are not counted."""
LARGEST_TP = 16


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Workers of one role, all alike. `share`: the part of one GPU that each takes."""

    workers: int
    tp: int = 1
    share: float | None = None

    def text(self, letter: str) -> str:
        """`2P(tp2)`."""
        return f"{self.workers}{letter}" + f"(tp{self.tp})" * (self.tp > 1)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Pools by role, `prefill` and `decode` or `worker` alone; `reasons`: why these, in sentences."""

    pools: dict[str, Pool]
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """`2p1d`, `agg`."""
        if "worker" in self.pools:
            return "agg"
        return f"{self.pools['prefill'].workers}p{self.pools['decode'].workers}d"


def choose_layout(hardware: Hardware, model: str, size: ModelSize | None) -> Layout:
    """The layout for that model on that machine. HostError where its free GPUs can't hold the model."""
    if not hardware.has_gpu():
        one = Pool(workers=1)
        reason = "no GPU here: one prefill and one decode worker on the CPU, their KV in host memory"
        return Layout(pools={"prefill": one, "decode": one}, reasons=(reason,))
    memories = _free(hardware)
    known = min(filter(None, memories), default=0)
    count, memory, reasons = len(memories), known or ASSUMED_BYTES, [_counted(hardware, len(memories))]
    if not known:
        reasons.append("the GPUs' memory is not known from this description: 80 GiB each is assumed, a guess")
    tp = _smallest_tp(size, count, memory, model) if size else 1
    pools, why = _pools(count, tp, memory, size, sliced=_sliced(hardware))
    if size is None:
        reasons.append("the model's size is not known: tp 1 is a guess")
    else:
        part = next(iter(pools.values())).share or MEMORY_UTILIZATION
        reasons += _fits(size, tp, memory, part)
    return Layout(pools=pools, reasons=(*reasons, why))


def _pools(count: int, tp: int, memory: int, size: ModelSize | None, *, sliced: bool) -> tuple[dict[str, Pool], str]:
    seats = count // tp
    if seats == 1:
        if tp > 1:
            why = f"only {count} GPUs and each copy of the weights takes {tp}: one aggregated worker, no KV moves"
            return {"worker": Pool(workers=1, tp=tp)}, why
        if not sliced and (size is None or _room(size, 1, memory, SHARE) >= KV_PART * SHARE * memory):
            half = Pool(workers=1, share=SHARE)
            why = f"one GPU, which prefill and decode share ({SHARE:.0%} each): for development"
            return {"prefill": half, "decode": half}, why
        why = "one GPU without room for two copies of the weights: one aggregated worker, no KV moves"
        return {"worker": Pool(workers=1)}, "one MIG slice: one aggregated worker" if sliced else why
    decode, prefill = seats // 2, seats - seats // 2
    wide = size is not None and size.splits(2 * tp) and not size.copies_kv(2 * tp)
    if tp > 1 and decode % 2 == 0 and wide:
        pools = {"prefill": Pool(workers=prefill, tp=tp), "decode": Pool(workers=decode // 2, tp=2 * tp)}
        extra = f"; decode with tp {2 * tp}, as more GPUs per worker leave more room for KV"
    else:
        pools, extra = {"prefill": Pool(workers=prefill, tp=tp), "decode": Pool(workers=decode, tp=tp)}, ""
    used = seats * tp
    words = f"{pools['prefill'].text('P')} {pools['decode'].text('D')} on {used} GPUs: half for each"
    idle = f"; {count - used} stay free" if used < count else ""
    odd = ", the odd worker prefills" if prefill > decode else ""
    return pools, f"{words}{odd}{extra}{idle}"


def _smallest_tp(size: ModelSize, count: int, memory: int, model: str) -> int:
    """The fewest GPUs that hold the weights and leave room for KV; a power of two that splits the heads evenly."""
    possible = [tp for tp in (1, 2, 4, 8, 16) if tp <= min(count, LARGEST_TP) and size.splits(tp)]
    fitting = [tp for tp in possible if _fits_in(size, tp, memory)]
    if fitting:
        return fitting[0]
    needed = [tp for tp in (1, 2, 4, 8, 16) if size.splits(tp) and _fits_in(size, tp, memory)]
    need = f"{needed[0]} such GPUs" if needed else "larger GPUs, or a second node"
    raise HostError(
        f"{model} does not fit: {count} free GPUs of {_gib(memory)}",
        where="model",
        why=(
            f"its weights take {_gib(size.weight_bytes)} ({size.source}), {size.heads} attention heads can be split by"
            f" {', '.join(map(str, possible)) or 'none'} here, and {KV_PART:.0%} must be left for KV",
            f"it needs {need}",
        ),
        fix="choose a smaller or a quantised model (`--model`), or free more GPUs",
    )


def _fits_in(size: ModelSize, tp: int, memory: int) -> bool:
    return _room(size, tp, memory, MEMORY_UTILIZATION) >= KV_PART * MEMORY_UTILIZATION * memory


def _room(size: ModelSize, tp: int, memory: int, part: float) -> float:
    """Bytes for KV on each GPU of a worker."""
    return part * memory - size.weight_bytes / tp - RUNTIME_BYTES


def _fits(size: ModelSize, tp: int, memory: int, part: float) -> list[str]:
    room = _room(size, tp, memory, part)
    each = size.kv_bytes_per_gpu(tp)
    tokens = f", about {room / each:,.0f} tokens" if each else ""
    smaller = [less for less in (1, 2, 4, 8) if less < tp and size.splits(less)]
    too_small = f"; tp {smaller[-1]} would leave less than {KV_PART:.0%} for KV" if smaller else ""
    return [
        f"{size.parameters / 1e9:.1f} B parameters, {_gib(size.weight_bytes)} of weights ({size.source})",
        f"tp {tp}: {_gib(size.weight_bytes / tp)} on each GPU of {_gib(memory)}, {_gib(room)} left for KV{tokens}"
        + too_small,
    ]


def _free(hardware: Hardware) -> list[int]:
    """Memory of each GPU that a worker can have, or of each MIG slice where there is no whole one; 0: not known."""
    largest = max(gpu.memory_bytes for gpu in hardware.gpus)
    whole = [gpu.memory_bytes for gpu in hardware.gpus if _is_free(gpu) and not gpu.mig_enabled]
    slices = [
        mig.memory_bytes
        for gpu in hardware.gpus
        if not gpu.lost and gpu.mig_enabled
        for mig in gpu.mig
        if not mig.holders
    ]
    # slices have no peer path to each other, so that KV between them would go over TCP: one is used
    memories = [size for size in whole if not 0 < size < SMALL * largest] or sorted(slices)[-1:]
    if not memories:
        raise HostError(
            f"none of the {len(hardware.gpus)} GPUs is free",
            where="GPUs",
            why=[f"GPU {gpu.index} {_hindrance(gpu)}" for gpu in hardware.gpus[:16]],
            fix="end what holds them, or plan for another machine with `--hardware FILE`",
        )
    return memories


def _sliced(hardware: Hardware) -> bool:
    return not any(_is_free(gpu) and not gpu.mig_enabled for gpu in hardware.gpus)


def _is_free(gpu: Gpu) -> bool:
    return not (gpu.lost or gpu.holders)


def _hindrance(gpu: Gpu) -> str:
    if gpu.lost:
        return f"is lost: {gpu.lost}"
    if gpu.holders:
        return f"is held by {', '.join(holder.text() for holder in gpu.holders)}"
    return "is in MIG mode and has no free slice"


def _counted(hardware: Hardware, count: int) -> str:
    names = {gpu.name for gpu in hardware.gpus if gpu.name}
    kind = f" ({', '.join(sorted(names)[:3])})" if names else ""
    others = [f"GPU {gpu.index} {_hindrance(gpu)}" for gpu in hardware.gpus if not _is_free(gpu)]
    return f"{count} of {len(hardware.gpus)} GPUs are free{kind}" + "".join(f"; {other}" for other in others[:8])


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB"
