"""`dynctl status`: what is seen of a run from another terminal."""

from __future__ import annotations

import time

import msgspec

from dynctl.cli import choose
from dynctl.errors import RunStateError
from dynctl.runtime.client import ask_status
from dynctl.runtime.recall import remembered_status
from dynctl.store.run import RunStore, is_supervised
from dynctl.telemetry.status import RunStatus

NOT_RUNNING = 5


def current_status(store: RunStore) -> RunStatus:
    """The status by the supervisor, or, where there is none, by what the run left."""
    if is_supervised(store.name):
        try:
            return ask_status(store.record().socket)
        except RunStateError:
            if is_supervised(store.name):
                raise
    return remembered_status(store)


def status(name: str | None, *, as_json: bool, no_color: bool) -> int:
    """Prints the status; exit 5 when the run is not running."""
    found = current_status(choose.run(name))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())  # noqa: T201
    else:
        from dynctl.ui.terminal import console
        from dynctl.ui.view import status_text

        out = console(no_color=no_color)
        out.print(status_text(found, width=out.width, now=time.time()))
    return NOT_RUNNING if found.state in {"stopped", "failed"} else 0
