"""`dynctl init`: writes a topology that fits a machine, planned on it before it is written."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from dynctl.cli.choose import DEFAULT_FILE
from dynctl.counted import counted
from dynctl.errors import HostError, UsageError
from dynctl.hardware.values import Hardware
from dynctl.plan.values import CLASS_ORDER, Plan
from dynctl.replacing import replace


def init(file: Path | None, *, model: str | None, hardware: Path | None, name: str | None, force: bool) -> int:
    """Writes the file and prints its path; why it says what it says goes to stderr."""
    from dynctl.hardware.discover import discover
    from dynctl.preflight.fitting import fitting

    target = file or DEFAULT_FILE
    _refuse_existing(target, force=force)
    _check_words(model, name)
    if hardware is not None:
        from dynctl.hardware import imports

    machine = imports.load(hardware) if hardware is not None else discover()
    model = _absolute(model, elsewhere=hardware is not None)
    found = fitting(machine, model, name, elsewhere=hardware is not None)
    made, warnings = _planned(found.text, target, machine)
    _say(f"{found.model} on {machine.hostname or hardware or 'this machine'}:")
    for reason in found.layout.reasons:
        _say(f"  {reason}")
    paths = [pair.path for pair in made.transport.pairs]
    over = f", KV over {max(paths, key=CLASS_ORDER.index)}" if paths else ""
    _say(f"  planned: {counted(len(made.workers()), 'worker')}{over}")
    for warning in (*found.notes, *warnings):
        _say(f"warning: {warning}")
    _write(target, found.text, force=force)
    print(target)  # noqa: T201
    there = f" --hardware {hardware}" if hardware else ""
    _say(f"next: `dynctl plan {target}{there}` shows every process, `dynctl up {target}` starts them")
    return 0


def _planned(text: str, target: Path, machine: Hardware) -> tuple[Plan, list[str]]:
    """The plan of that text on that machine, and what it warns of: what does not plan is not written."""
    from dynctl.plan.resolve import resolve
    from dynctl.preflight.gather import gather
    from dynctl.topology.load import load_text

    topology = load_text(text, target)
    facts = gather(topology, machine)  # as for another machine: the engine need not be installed yet, nor the port free
    made = resolve(topology, facts)
    return made, [warning for warning in made.warnings if warning not in facts.notes]


def _check_words(model: str | None, name: str | None) -> None:
    """UsageError for a model or name that no topology may have, naming the command line rather than a file."""
    from dynctl.topology.load import parse

    said = {"model": model or "builtin:tiny", "name": name or "x"}
    keys = "\n".join(f"{key}: {json.dumps(value)}" for key, value in said.items())
    parse(f"{keys}\nschema: 1\nroles: {{worker: {{}}}}\n", source="--model and --name")


def _absolute(model: str | None, *, elsewhere: bool) -> str | None:
    """A path as the file may say it wherever it lies; one of another machine as it is."""
    from dynctl.preflight.model import exists, is_path

    if model is None or not is_path(model) or (elsewhere and not exists(model)):
        return model
    return os.path.abspath(os.path.expanduser(model))


def _refuse_existing(target: Path, *, force: bool) -> None:
    if target.is_dir():
        raise UsageError("this is a directory", where=str(target), fix=f"name a file: `{target / DEFAULT_FILE}`")
    if not target.parent.is_dir():
        raise UsageError("there is no such directory", where=str(target.parent), fix="make it, or name another file")
    if not force and os.path.lexists(target):
        raise _exists(target)


def _exists(target: Path) -> UsageError:
    return UsageError(
        "there is a file of that name already",
        where=str(target),
        why="`init` never overwrites what somebody may have changed",
        fix="`--force` overwrites it; or name another file: `dynctl init FILE`",
    )


def _write(target: Path, text: str, *, force: bool) -> None:
    """Whole or not at all. Without `force`, a file that appeared in the meantime stays as it is."""
    try:
        replace(target, text.encode(), fresh=not force)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        raise HostError("the topology can't be written", where=str(target), why=error.strerror or str(error)) from None


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201
