"""Environment variables that several rooms know, and what an engine's process inherits. Pure."""

from __future__ import annotations

from collections.abc import Mapping

RUN_ID_VARIABLE = "DYNCTL_RUN_ID"
"""The run a process belongs to: how every process of a run is found again."""
PROCESS_VARIABLE = "DYNCTL_PROCESS"
"""The planned process that a process belongs to."""
RUN_DIR_VARIABLE = "DYNCTL_RUN_DIR"
"""The run's directory: its name is the run's, its parent the state directory that the run was started under."""
SUPERVISES_VARIABLE = "DYNCTL_SUPERVISES"
"""In a supervisor's own environment alone: the id of the run that it supervises."""
SOCKETS_VARIABLE = "DYNCTL_SOCKETS"
"""The run's directory for the unix sockets of its engines, told to the frontend where that listens to them."""
SECRET_VARIABLE = "DYNCTL_SECRET"  # noqa: S105 - its name
"""The secret that the nodes of a run share, where no file holds it."""
NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
"""Set for dynctl itself, never for its workers."""

STEERING_PREFIXES = ("UCX_", "NIXL_", "VLLM_NIXL_", "VLLM_GPU_NIC_", "VLLM_NIC_", "DYN_", "ETCD_", "NATS_")


def is_steering(name: str) -> bool:
    """Whether an inherited variable would steer the KV path or Dynamo behind the plan's back."""
    return name.startswith(STEERING_PREFIXES)


def engine_environment(own: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """What a process of the engine gets: what is inherited less what steers the KV path, then its own."""
    kept = {name: value for name, value in inherited.items() if not is_steering(name) and name != NO_PLUGINS}
    # engines rename their processes; setproctitle would write over the environment by which they are found
    always = {"PYTHONUNBUFFERED": "1", "SPT_NOENV": "1"}
    return {**kept, **always, **own}
