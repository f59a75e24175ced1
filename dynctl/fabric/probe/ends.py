"""Which transfers prove a plan: every prefill-decode pair, and in it every GPU with its NIC. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from dynctl.engines.spec import ProcessSpec
from dynctl.hardware.values import Hardware, Nic
from dynctl.plan.values import Plan, PlannedPair, TransportClass

EMULATION = "UCX_PROTO_EMULATION_ENABLE"
NIC_MAPPING, NIC_VARIABLES = "VLLM_GPU_NIC_PCIE_MAPPING", "VLLM_NIC_SELECTION_VARS"
Direction = Literal["read", "write"]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a pair, or one GPU of it: what a probe child in its place is given."""

    id: str
    process: str
    node: str
    python: str
    env: dict[str, str]
    cpus: str | None = None
    memory: Literal["cuda", "host"] = "host"
    gpu: int | None = None
    nics: tuple[str, ...] = ()


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer to prove: from prefill's end to decode's, and the floor its path must meet.

    `line_rate_gigabytes_per_s`: that of the slower end's NICs, None where an end has none, or their rate is not known.
    """

    source: End
    target: End
    floor: TransportClass
    line_rate_gigabytes_per_s: float | None = None

    @property
    def pair(self) -> str:
        """`prefill-0 -> decode-0`."""
        return f"{self.source.process} -> {self.target.process}"


def transfers(plan: Plan, hardware: Hardware, pairs: Sequence[PlannedPair]) -> tuple[Transfer, ...]:
    """The transfers of these pairs, those left out whose ends are on different nodes."""
    found: list[Transfer] = []
    for pair in pairs:
        source, target = plan.process(pair.from_), plan.process(pair.to)
        if source.node != target.node:
            continue
        for a, b in rank_pairs(len(source.gpus), len(target.gpus)):
            ends = _end(plan, hardware, source, a), _end(plan, hardware, target, b)
            rate = _line_rate(hardware, *ends)
            found.append(Transfer(source=ends[0], target=ends[1], floor=pair.floor, line_rate_gigabytes_per_s=rate))
    return tuple(found)


def rank_pairs(sources: int, targets: int) -> tuple[tuple[int, int], ...]:
    """Ranks that hand over to each other, so that each occurs: (2, 4) -> 0-0 0-1 1-2 1-3. No GPU counts as one rank."""
    sources, targets = max(1, sources), max(1, targets)
    most = max(sources, targets)
    return tuple((at * sources // most, at * targets // most) for at in range(most))


def directions(plan: Plan, *, both: bool) -> tuple[Direction, ...]:
    """Reads where decode pulls, writes where prefill pushes; both if asked for."""
    own: Direction = "read" if plan.transport.direction == "pull" else "write"
    return ("read", "write") if both else (own,)


def _end(plan: Plan, hardware: Hardware, spec: ProcessSpec, rank: int) -> End:
    env = dict(spec.env)
    floors = [pair.floor for pair in plan.transport.pairs if spec.id in (pair.from_, pair.to)]
    if all(floor != "tcp" for floor in floors):
        env.pop(EMULATION, None)  # the plan's own: the probe is to see the path, not to be refused one
    gpu = spec.gpus[rank] if spec.gpus else None
    own = _own_nic(hardware, env, gpu)
    if own:
        env["UCX_NET_DEVICES"] = ",".join(filter(None, (f"{own[0]}:{own[1]}", env.get("UCX_NET_DEVICES"))))
    if spec.gpu_uuids:
        env["CUDA_VISIBLE_DEVICES"] = spec.gpu_uuids[rank]
    return End(
        id=spec.id if len(spec.gpus) < 2 else f"{spec.id}.gpu{gpu}",
        process=spec.id,
        node=spec.node,
        python=spec.argv[0],
        env=env,
        cpus=spec.cpus,
        memory="host" if gpu is None else "cuda",
        gpu=gpu,
        nics=(own[0],) if own else spec.nics,
    )


def _own_nic(hardware: Hardware, env: dict[str, str], gpu: int | None) -> tuple[str, str] | None:
    """The NIC and port that vLLM puts in front of UCX_NET_DEVICES for this GPU's rank; None where it does not."""
    mapping, port = env.pop(NIC_MAPPING, ""), env.pop(NIC_VARIABLES, "").partition(",")[0].partition(":")[2]
    by_gpu = dict(one.split("=", 1) for one in mapping.split(",") if "=" in one)
    pci = next((by_gpu.get(one.pci) for one in hardware.gpus if one.index == gpu), None)
    name = next((nic.name for nic in hardware.nics if pci and nic.pci == pci), None)
    return (name, port or "1") if name else None


def _line_rate(hardware: Hardware, *ends: End) -> float | None:
    by_name: dict[str, Nic] = {nic.name: nic for nic in hardware.nics}
    sums = []
    for end in ends:
        rates = [by_name[name].rate_gigabits_per_s for name in end.nics if name in by_name]
        if not rates or None in rates:
            return None
        sums.append(sum(rate for rate in rates if rate))
    return min(sums) / 8
