"""aiperf in the place of bench's own loader: it runs the same jobs, and what it measured is read back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from dynctl.bench.aiperf_rows import arguments, dataset, samples
from dynctl.bench.job import Job, Progress, Result
from dynctl.errors import RuntimeFailure, UsageError
from dynctl.preflight import peer_tool

EXPORT = "profile_export.jsonl"
LOOK_S, END_S = 0.2, 10.0
SHOWN_LINES = 12


def find() -> str:
    """The command: $AIPERF, or the one on $PATH. HostError where there is none."""
    return peer_tool.find(
        "aiperf",
        command="aiperf",
        option="--backend aiperf",
        install="`pip install aiperf==0.13.0` into an environment of its own (1.2 GB)",
    )


def refuse_keys(headers: object) -> None:
    """UsageError where headers would have to be sent."""
    if headers:
        raise UsageError(
            "no keys with --backend aiperf", why="aiperf takes keys on its command line, which everybody can read"
        )


class Aiperf:
    """Runs a job as a process of aiperf's. `tokenizer`: a folder or hub name; None is the model's own."""

    def __init__(self, command: str, tokenizer: str | None = None) -> None:
        self._command, self._tokenizer = command, tokenizer

    def run(self, job: Job, tell: Callable[[Progress], None], stopped: Callable[[], bool] = lambda: False) -> Result:
        """As `Crew.run`. RuntimeFailure, with aiperf's last words, where it fails."""
        refuse_keys(job.headers)
        with tempfile.TemporaryDirectory(prefix="dynctl-aiperf-") as name:
            folder = Path(name)
            rows, export = folder / "rows.jsonl", folder / EXPORT
            rows.write_bytes(dataset(job))
            argv = [self._command, *arguments(job, str(rows), name, self._tokenizer)]
            with (folder / "said").open("wb") as said:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, env=_environ()
                )
            try:
                while process.poll() is None and not stopped():
                    time.sleep(LOOK_S)
                    tell(Progress(done=_lines(export), total=len(job.sessions)))
                interrupted = process.poll() is None
            finally:
                _end(process)
            lines = export.read_bytes().splitlines() if export.exists() else []
            if process.returncode and not lines and not interrupted:  # where all requests failed it is 1, too
                text = (folder / "said").read_text(errors="replace").splitlines()
                raise RuntimeFailure(
                    f"aiperf failed with exit code {process.returncode}",
                    why=[line.rstrip() for line in text if line.strip()][-SHOWN_LINES:],
                    fix="--tokenizer names a folder or hub name for it; its own options are in `aiperf profile --help`",
                )
        try:
            found = tuple(samples(lines, job))
        except msgspec.DecodeError as error:
            raise RuntimeFailure("aiperf's export can't be read", why=str(error), fix="use aiperf 0.13") from error
        return Result(samples=found, health=None, interrupted=interrupted)


def _environ() -> dict[str, str]:
    """Offline it refuses a tokenizer's folder (aiperf 0.13)."""
    return {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: it is a session of its own."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            if number == signal.SIGKILL:
                return
