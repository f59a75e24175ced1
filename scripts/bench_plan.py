"""Time to plan: `plan()` in this process, and `dynctl plan --hardware FILE` as a command, by the size of the machine.

    .venv/bin/python scripts/bench_plan.py [--runs 5] [--json]

The machines are invented: NVSwitched GPUs, four on each NUMA node, a NIC beside every one, in workers of eight (of two
where there are eight GPUs). `ratio` is the time over that of the row above; the GPUs' own ratio is beside it. Medians.
plan() is CPU time; the command's is wall-clock time, mostly Python's imports, so that a busy machine shows in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from dynctl.hardware.values import Gpu, Hardware, Nic, NicPort, NumaNode
from dynctl.plan.facts import EngineFacts, Facts, ModelFacts
from dynctl.plan.resolve import resolve
from dynctl.topology.load import parse

SIZES = (8, 64, 256, 1024)
PER_NODE, CORES = 4, 32
LIMITS_S = {8: 0.3, 1024: 2.0}
NODES, NODES_LIMIT_S = 64, 2.0
GIB = 1 << 30


def machine(count: int) -> Hardware:
    """So many GPUs in one machine."""
    nodes = -(-count // PER_NODE)
    return Hardware(
        hostname=f"gpus-{count}",
        source="snapshot",
        gpus=tuple(
            Gpu(
                index=at,
                uuid=f"GPU-{at:08x}-0000-0000-0000-000000000000",
                name="NVIDIA H200",
                memory_bytes=141 * GIB,
                pci=f"{at:04x}:01:00.0",
                pci_path=_path(at, 0),
                numa=at // PER_NODE,
                nvswitch_links=18,
            )
            for at in range(count)
        ),
        nics=tuple(
            Nic(
                name=f"mlx5_{at}",
                pci=f"{at:04x}:02:00.0",
                pci_path=_path(at, 1),
                numa=at // PER_NODE,
                ports=(NicPort(number=1, state="ACTIVE", phys_state="LinkUp", rate_gigabits_per_s=400.0),),
            )
            for at in range(count)
        ),
        numa_nodes=tuple(
            NumaNode(index=node, cores=tuple(range(node * CORES, (node + 1) * CORES)), memory_bytes=512 * GIB)
            for node in range(nodes)
        ),
        cores=tuple(range(nodes * CORES)),
    )


def _path(at: int, slot: int) -> tuple[str, ...]:
    root = f"{at:04x}"
    return (f"pci{root}:00", f"{root}:00:01.0", f"{root}:10:00.0", f"{root}:11:0{slot}.0", f"{root}:0{slot + 1}:00.0")


def topology(count: int) -> str:
    """Half of the GPUs prefill, half decode."""
    tp = 2 if count == SIZES[0] else 8
    role = f"{{workers: {count // tp // 2}, tp: {tp}}}"
    return f"schema: 1\nname: bench\nmodel: a/b\nroles:\n  prefill: {role}\n  decode: {role}\n"


def median_s(work: Callable[[], object], runs: int, clock: Callable[[], float]) -> float:
    """Median time of one call."""
    times = []
    for _ in range(runs):
        begun = clock()
        work()
        times.append(clock() - begun)
    return statistics.median(times)


def measure(count: int, runs: int, folder: Path) -> dict[str, Any]:
    """One row."""
    hardware, text = machine(count), topology(count)
    facts = Facts(
        hardware=hardware,
        engine=EngineFacts(python="python3", vllm="0", nixl="0", torch="0"),
        model=ModelFacts(model="a/b"),
        run_dir="/run",
    )
    parsed = parse(text, source="bench")
    snapshot, file = folder / f"{count}.json", folder / f"{count}.yaml"
    snapshot.write_bytes(msgspec.json.encode(hardware))
    file.write_text(text)
    command = [sys.executable, "-m", "dynctl", "plan", str(file), "--hardware", str(snapshot), "--json"]
    return {
        "gpus": count,
        "workers": len(parsed.roles.present()) * parsed.role("prefill").workers,
        "plan_s": median_s(lambda: resolve(parsed, facts), runs, time.process_time),
        "command_s": median_s(
            lambda: subprocess.run(command, check=True, capture_output=True), runs, time.perf_counter
        ),
    }


def many_nodes(count: int, runs: int, folder: Path) -> float:
    """Wall-clock seconds of `dynctl plan` over so many nodes of eight GPUs each, from their snapshots."""
    (folder / "node.json").write_bytes(msgspec.json.encode(machine(8)))
    names = [f"n{at}" for at in range(count)]
    nodes = "".join(f"  {name}: {{address: 10.0.1.{at + 1}, hardware: node.json}}\n" for at, name in enumerate(names))
    roles = "".join(
        f"  {role}: {{workers: {2 * count}, tp: 2, on: [{', '.join(on)}]}}\n"
        for role, on in (("prefill", names[: count // 2]), ("decode", names[count // 2 :]))
    )
    file = folder / "nodes.yaml"
    file.write_text(f"schema: 1\nname: bench\nmodel: a/b\nnodes:\n{nodes}roles:\n{roles}")
    command = [sys.executable, "-m", "dynctl", "plan", str(file), "--json"]
    return median_s(lambda: subprocess.run(command, check=True, capture_output=True), runs, time.perf_counter)


def main() -> None:
    """The table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(count, chosen.runs, Path(folder)) for count in SIZES]
        over_nodes_s = many_nodes(NODES, chosen.runs, Path(folder))
    if chosen.json:
        document = {"schema": 1, "rows": rows, "nodes": {"nodes": NODES, "command_s": over_nodes_s}}
        print(json.dumps(document, indent=1))
    else:
        print("  GPUs  workers  plan() ms   ratio  of GPUs   command ms   limit ms")
        for before, row in zip([None, *rows], rows, strict=False):
            grown = (
                f"{row['plan_s'] / before['plan_s']:7.1f} {row['gpus'] / before['gpus']:8.0f}" if before else " " * 16
            )
            limit = f"{LIMITS_S[row['gpus']] * 1e3:10.0f}" if row["gpus"] in LIMITS_S else " " * 10
            times = f"{row['plan_s'] * 1e3:10.1f} {grown} {row['command_s'] * 1e3:12.0f} {limit}"
            print(f"{row['gpus']:6} {row['workers']:8} {times}")
        took = f"command {over_nodes_s * 1e3:.0f} ms, limit {NODES_LIMIT_S * 1e3:.0f} ms"
        print(f"{NODES} nodes of 8 GPUs: {4 * NODES} workers, {took}")


if __name__ == "__main__":
    main()
