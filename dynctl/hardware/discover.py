"""Looks up what this machine has: NVML, sysfs, cgroups, limits, and the rules UCX applies to CMA."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from dynctl.hardware import nvml
from dynctl.hardware.cma import cma
from dynctl.hardware.holders import HolderLookup, Runs, no_runs
from dynctl.hardware.limits import limits
from dynctl.hardware.nic_use import assign_uses
from dynctl.hardware.numa import allowed_cores, numa_nodes
from dynctl.hardware.rdma import rdma_devices
from dynctl.hardware.routes import default_route
from dynctl.hardware.values import Hardware


def discover(root: Path = Path("/"), runs: Runs = no_runs) -> Hardware:
    """The machine as it is now. Never raises: what can't be read is absent. Files are read below `root`.

    `runs` tells which dynctl runs there are, so that who holds a GPU can be named.
    """
    gpus = nvml.discover(root, HolderLookup(root, runs)) if nvml.has_driver(root) else nvml.NvmlView()
    cores = allowed_cores(root)
    return Hardware(
        hostname=socket.gethostname(),
        gpus=gpus.gpus,
        nics=assign_uses(rdma_devices(root), gpus.gpus, default_route(root)),
        numa_nodes=numa_nodes(root, cores),
        cores=cores,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        limits=limits(root),
        cma=cma(root),
        driver=gpus.driver,
        cuda=gpus.cuda,
    )
