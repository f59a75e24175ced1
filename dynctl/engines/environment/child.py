"""Runs a helper process to its end, line by line, and never leaves it behind."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO

# What would make another Python, or its pip, use something that is not its own.
FOREIGN = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PIP_CONSTRAINT",
    "PIP_PREFIX",
    "PIP_REQUIREMENT",
    "PIP_ROOT",
    "PIP_TARGET",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
)


def child_env(**more: str) -> dict[str, str]:
    """This process's environment for another interpreter: without what would mix the two up."""
    env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    return {**env, "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", **more}


def run_child(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None],
    on_tick: Callable[[], None] = lambda: None,
    tick_s: float = 0.5,
    env: dict[str, str] | None = None,
    keep: Sequence[int] = (),
) -> int:
    """Runs `argv` in a session of its own and returns its exit code; raises OSError where it can't be started.

    `on_line` gets each line of stdout and stderr, `on_tick` is called every `tick_s` seconds. Whatever ends this call
    (Ctrl-C, an exception in a callback) ends the child and all that it started. It inherits the descriptors in `keep`.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=child_env() if env is None else env,
        start_new_session=True,
        pass_fds=tuple(keep),
    )
    assert process.stdout is not None  # noqa: S101  asked for above
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        _relay(lines, on_line, on_tick, tick_s)
        return process.wait()
    finally:
        _end(process)
        reader.join(timeout=5)
        if not reader.is_alive():
            process.stdout.close()


def _relay(
    lines: queue.SimpleQueue[str | None], on_line: Callable[[str], None], on_tick: Callable[[], None], tick_s: float
) -> None:
    while True:
        try:
            line = lines.get(timeout=tick_s)
        except queue.Empty:
            on_tick()
            continue
        if line is None:
            return
        on_line(line)


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the child's whole group: asked first, then killed. Nothing is left to do after an ordinary end."""
    if process.poll() is not None:
        return
    for ask, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, ask)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return
