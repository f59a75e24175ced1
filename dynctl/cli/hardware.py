"""`dynctl hardware`."""

from __future__ import annotations

from pathlib import Path

import msgspec


def hardware(file: Path | None, *, as_json: bool) -> int:
    """This machine, or the one that `file` describes, as tables or as a snapshot."""
    if file is not None:
        from dynctl.hardware import imports

        machine = imports.load(file)
    else:
        from dynctl.preflight.gather import this_machine

        machine = this_machine()
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(machine), indent=1).decode())  # noqa: T201
        return 0
    from dynctl.ui.hardware import hardware_text

    print(hardware_text(machine))  # noqa: T201
    return 0
