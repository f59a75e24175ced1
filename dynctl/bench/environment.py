"""The machine that a result was measured from."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def environment() -> dict[str, object]:
    """Host, kernel, cores, load and Python: what helps to tell two results apart."""
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "platform": sys.platform,
    }


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
