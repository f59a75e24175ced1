"""Tools of others that bench calls where they are installed."""

from __future__ import annotations

import os
import shutil

from dynctl.errors import HostError


def find(tool: str, *, command: str, option: str, install: str) -> str:
    """The command's path: of the one that $COMMAND names, or of `command` on $PATH. HostError where there is none.

    `option`: what asks for it. `install`: what `pip` is told, and what is to be known of it.
    """
    variable = command.upper()
    named = os.environ.get(variable) or command
    found = shutil.which(named)
    if found is None:
        raise HostError(
            f"{tool} is not installed",
            where=option,
            why=f"`{named}` is no command here",
            fix=f"{install}, and name it in ${variable}",
        )
    return found
