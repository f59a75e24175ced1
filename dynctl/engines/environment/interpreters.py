"""Python interpreters that an engine environment can be made with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

from dynctl.errors import HostError

# Imports what `python -m venv` needs: Debian splits ensurepip off.
ASK = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.executable)"


def running_python() -> str:
    """This process's Python, as `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def interpreters(supported: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(version, path) of interpreters that can make a virtual environment, the one that runs dynctl first.

    Raises HostError where there is none at all. A name on PATH proves nothing (version managers put stubs there), so
    each is asked.
    """
    seen: set[str] = set()
    own = [] if getattr(sys, "frozen", False) else [getattr(sys, "_base_executable", None) or sys.executable]
    named = [f"python{version}" for version in sorted(supported, key=_minor, reverse=True)]
    for name in [*own, *named, "python3"]:
        answer = _ask(name)
        if answer and answer[0] in supported and answer[0] not in seen:
            seen.add(answer[0])
            yield answer
    if not seen:
        newest = max(supported, key=_minor)
        raise HostError(
            f"no Python that the engine runs on: it needs one of {', '.join(supported)}",
            why=f"dynctl itself runs on {running_python()}, and no other on PATH can make a virtual environment",
            fix=f"install one, with its venv module: apt install python{newest} python{newest}-venv, "
            f"or dnf install python{newest}, or uv python install {newest}",
        )


def _minor(version: str) -> int:
    return int(version.split(".")[1])


def _ask(name: str) -> tuple[str, str] | None:
    path = shutil.which(name)
    if path is None:
        return None
    try:
        reply = subprocess.run([path, "-I", "-c", ASK], capture_output=True, text=True, timeout=20, check=True).stdout
        version, executable = reply.strip().split(" ", 1)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return version, executable
