"""`dynctl validate`, `plan`, `schema`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec

from dynctl.cli import choose


def validate(file: Path | None, sets: list[str]) -> int:
    """Checks the file alone; nothing of this machine is looked at."""
    topology = choose.topology(file, sets)
    print(f"{topology.name}: valid", file=sys.stderr)  # noqa: T201
    return 0


def schema() -> int:
    """The topology's JSON schema."""
    from dynctl.topology.load import json_schema

    print(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())  # noqa: T201
    return 0


def plan(file: Path | None, sets: list[str], *, as_json: bool) -> int:
    """What `up` would do."""
    from dynctl.plan import redact
    from dynctl.plan.resolve import resolve
    from dynctl.preflight.gather import gather

    topology = choose.topology(file, sets)
    made, _ = redact.split(resolve(topology, gather(topology)))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(made), indent=1).decode())  # noqa: T201
        return 0
    from dynctl.ui.plan import plan_text

    print(plan_text(made, shutil.get_terminal_size().columns))  # noqa: T201
    return 0
