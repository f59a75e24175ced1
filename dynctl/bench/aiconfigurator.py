"""AIConfigurator in the place of dynctl's own arithmetic, where it is installed."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from dynctl.bench.aiconfigurator_rows import advice, arguments
from dynctl.bench.sizing import Advice, Demand
from dynctl.errors import RuntimeFailure
from dynctl.preflight import peer_tool

TABLE = "best_config_topn.csv"
LIMIT_S = 1800.0
SHOWN_LINES = 8


def find() -> str:
    """The command: $AICONFIGURATOR, or the one on $PATH. HostError where there is none."""
    return peer_tool.find(
        "AIConfigurator",
        command="aiconfigurator",
        option="--aiconfigurator",
        install="`pip install aiconfigurator==0.12.0` into an environment of its own",
    )


def simulate(
    command: str, demand: Demand, *, model: str, system: str, itl_ms: float | None = None
) -> tuple[Advice, Demand]:
    """Advice for a model on GPUs of a kind (`h200_sxm`), and its workers' shape. RuntimeFailure as it says it."""
    with tempfile.TemporaryDirectory(prefix="dynctl-aiconfigurator-") as folder:
        argv = [command, *arguments(demand, model, system, itl_ms, folder)]
        try:
            done = subprocess.run(
                argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S, cwd=folder
            )
        except subprocess.TimeoutExpired:
            raise RuntimeFailure(f"AIConfigurator did not end within {LIMIT_S / 60:g} min") from None
        tables = {path.parent.name: path.read_text() for path in Path(folder).rglob(TABLE)}
        if done.returncode or not tables:
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise RuntimeFailure(
                f"AIConfigurator failed with exit code {done.returncode}",
                why=lines[-SHOWN_LINES:],
                fix="`aiconfigurator cli support` tells which models and systems it knows",
            )
    try:
        return advice(tables.get("disagg", ""), tables.get("agg", ""), demand.gpus)
    except (KeyError, ValueError) as error:
        raise RuntimeFailure("AIConfigurator's table can't be read", why=repr(error), fix="use 0.12") from error
