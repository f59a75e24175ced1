"""A plan as a batch job: the same script as `export bash`, on the nodes that Slurm gives."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dynctl.export.bash import LINT, body
from dynctl.export.launches import launches
from dynctl.hardware.values import parse_cpu_list
from dynctl.plan.values import Plan


def sbatch(plan: Plan, time: str) -> str:
    """The job. `time`: its limit, as Slurm takes it."""
    rest = _nodes(plan) if plan.nodes else _single(plan)
    return "\n".join(["#!/usr/bin/env bash", *_head(plan, time), *LINT, *rest]) + "\n"


def _head(plan: Plan, time: str) -> Iterator[str]:
    own = [launches(plan, node) for node in _names(plan)]
    gpus = max(len({gpu for one in node for gpu in one.gpus}) for node in own)
    cores = max(len({core for one in node if one.cpus for core in parse_cpu_list(one.cpus)}) for node in own)
    grace = max(sum(one.grace_s for one in node) for node in own)
    yield f"#SBATCH --job-name={plan.name}"
    yield f"#SBATCH --nodes={len(own)}"
    if plan.nodes:
        yield f"#SBATCH --nodelist={','.join(node.name for node in plan.nodes)}"
    yield "#SBATCH --ntasks-per-node=1"
    if gpus:
        yield f"#SBATCH --gpus-per-node={gpus}"
    yield f"#SBATCH --cpus-per-task={cores}" if cores else "#SBATCH --cpus-per-task=1"
    yield "#SBATCH --exclusive"
    yield "#SBATCH --mem=0"
    yield f"#SBATCH --time={time}"
    yield f"#SBATCH --signal=B:TERM@{math.ceil(grace) + 30}"
    yield f"#SBATCH --output={plan.name}-%j.out"
    yield f"# {plan.name}, written by `dynctl export slurm`: docs/export.md says what it does and does not do."


def _names(plan: Plan) -> list[str | None]:
    return [node.name for node in plan.nodes] or [None]


def _single(plan: Plan) -> Iterator[str]:
    yield 'export LOGS="${LOGS:-$SLURM_SUBMIT_DIR/' + plan.name + '-$SLURM_JOB_ID.logs}"'
    yield from body(plan, launches(plan), by_index=True)


def _nodes(plan: Plan) -> Iterator[str]:
    """The job's own script starts one task on each node, which runs the part whose address its node has."""
    yield 'export LOGS="${LOGS:-$SLURM_SUBMIT_DIR/' + plan.name + '-$SLURM_JOB_ID.logs}"'
    yield 'export EPOCH="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"'
    yield "trap 'kill -TERM \"$step\" 2>/dev/null' TERM INT"
    yield "srun --kill-on-bad-exit=1 bash -s <<'DYNCTL_NODES' &"
    for node in plan.nodes:
        yield f"part_{_function(node.name)}() {{"
        yield from body(plan, launches(plan, node.name), by_index=True)
        yield "}"
    yield 'case " $(hostname -I) " in'
    for node in plan.nodes:
        yield f"  *' {node.address} '*) part_{_function(node.name)} ;;"
    yield '  *) echo "$(hostname) has none of the topology\'s addresses" >&2; exit 3 ;;'
    yield "esac"
    yield "DYNCTL_NODES"
    yield "step=$!"
    yield 'wait "$step" || wait "$step"'


def _function(name: str) -> str:
    return name.replace("-", "_")
