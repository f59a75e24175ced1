"""Tools of others that are called where they are installed."""

from __future__ import annotations

import os
import shutil

from dynctl.errors import HostError


def find(tool: str, *, command: str, option: str, install: str, cached: str | None = None) -> str:
    """The command's path: of the one that $COMMAND names, or of `command` on $PATH. HostError where there is none.

    `option`: what asks for it. `install`: what `pip` is told, and what is to be known of it. `cached`: where it may be
    besides.
    """
    variable = command.upper().replace("-", "_")
    named = os.environ.get(variable)
    found = shutil.which(named or command) or (shutil.which(cached) if cached and not named else None)
    if found is None:
        raise HostError(
            f"{tool} is not installed",
            where=option,
            why=f"`{named or command}` is no command here",
            fix=f"{install}, and name it in ${variable}",
        )
    return found
