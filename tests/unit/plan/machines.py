"""Machines, topologies and facts to plan with. All of it is invented."""

from __future__ import annotations

from typing import Any

from dynctl.hardware.values import Cma, Gpu, Hardware, Holder, Nic, NicPort
from dynctl.plan.facts import EngineFacts, Facts, ModelFacts
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan
from dynctl.topology.load import parse
from dynctl.topology.schema import Topology

GIB = 1 << 30
CMA_ALLOWED = Cma(allowed=True, reason="Yama ptrace_scope is 1")
CMA_REFUSED = Cma(allowed=False, reason="Yama ptrace_scope is 2")
ACTIVE = Nic(name="mlx5_0", numa=0, ports=(NicPort(number=1, state="ACTIVE", phys_state="LinkUp"),))
INACTIVE = Nic(name="mlx5_1", numa=1)
ENGINE = EngineFacts(python="/opt/engine/bin/python", vllm="0.32.0", nixl="1.5.1", torch="2.13.0")

TINY_CONFIG: dict[str, object] = {
    "model_type": "qwen3",
    "dtype": "float32",
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
TINY_DIR = "/cache/models/tiny-1"

CPU_1P1D = "schema: 1\nname: cpu-1p1d\nmodel: builtin:tiny\nroles:\n  prefill:\n  decode:\n"


def cpu(cores: int = 2, *, cma: Cma = CMA_ALLOWED, nics: tuple[Nic, ...] = ()) -> Hardware:
    """A machine without a GPU."""
    return Hardware(hostname="m", cores=tuple(range(cores)), memory_bytes=8 * GIB, cma=cma, nics=nics)


def gpus(
    count: int, *, nvlink: bool = True, nics: tuple[Nic, ...] = (), busy: tuple[int, ...] = (), cores: int = 64
) -> Hardware:
    """A machine of H200s, all of them NVLink peers or none; `busy` ones are held by a process."""
    everyone = range(count)
    return Hardware(
        hostname="m",
        gpus=tuple(
            Gpu(
                index=index,
                uuid=f"GPU-{index:04d}",
                name="NVIDIA H200",
                memory_bytes=141 * GIB,
                pci=f"0000:{index + 16:02x}:00.0",
                numa=index // 4,
                nvlinks={peer: 18 for peer in everyone if peer != index} if nvlink else {},
                holders=(Holder(pid=4000 + index),) if index in busy else (),
            )
            for index in everyone
        ),
        nics=nics,
        cores=tuple(range(cores)),
        memory_bytes=1024 * GIB,
        driver="580.65.06",
        cuda="13.0",
    )


def topology(text: str = CPU_1P1D, *sets: str) -> Topology:
    """The topology in `text` with overrides."""
    return parse(text, source="t.yaml", overrides=sets)


def facts(hardware: Hardware | None = None, **changes: Any) -> Facts:
    """What was looked up on that machine."""
    fields: dict[str, Any] = {
        "hardware": hardware or cpu(),
        "engine": ENGINE,
        "model": ModelFacts(model=TINY_DIR, config=TINY_CONFIG),
        "run_dir": "/state/cpu-1p1d",
        "socket": "/run/cpu-1p1d.sock",
        "dynctl": ("dynctl",),
        **changes,
    }
    return Facts(**fields)


def made(text: str = CPU_1P1D, *sets: str, on: Hardware | None = None, **changes: Any) -> Plan:
    """The plan of that topology on that machine."""
    return resolve(topology(text, *sets), facts(on, **changes))


def pools(prefill: str = "{}", decode: str = "{}", more: str = "") -> str:
    """A disaggregated topology of a real model, roles as YAML flow mappings."""
    return (
        f"schema: 1\nname: x\nmodel: Qwen/Qwen3-32B\nserved_name: q\n{more}"
        f"roles:\n  prefill: {prefill}\n  decode: {decode}\n"
    )
