"""What tests read afterwards: the command an engine was started with, and each request it got.

Under the directory `FAKE_ENGINE_RECORD`: `<role>-<port>.json` and `<role>-<port>.jsonl`, whose lines are
`{"event": "arrived", "number", "path", "headers", "body"}` and `{"event": "finished", "number", "path", "request_id",
"status", "aborted", "output_tokens", "kv_bytes", "seconds"}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from .config import EngineConfig
from .control import PREFIX

_MAX_LINES = 20_000
_MAX_BODY_BYTES = 256 << 10
_SHOWN = ("VLLM_", "UCX_", "NIXL_", "HF_", "OMP_", "MKL_", "CUDA_", "NCCL_", "TRANSFORMERS_", "DYNCTL_", PREFIX)


class Recorder:
    """Writes the two files; does nothing where no test asked."""

    def __init__(self, config: EngineConfig) -> None:
        directory = os.environ.get(PREFIX + "RECORD")
        self._path = Path(directory) / f"{config.role}-{config.port}" if directory else None
        self._lines = 0

    def command(self, pids: dict[str, int]) -> None:
        """Argv, chosen environment, cores and pids of this engine."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        command = {
            "argv": sys.argv[1:],
            "executable": sys.executable,
            "env": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_SHOWN)},
            "cwd": os.getcwd(),
            "cores": sorted(os.sched_getaffinity(0)),
            "sid": os.getsid(0),
            "pids": pids,
        }
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(command, indent=2) + "\n")
        partial.rename(self._path.with_suffix(".json"))

    def arrived(self, number: int, path: str, headers: dict[str, str], raw: bytes) -> None:
        """A request, before anything is done with it."""
        try:
            body = json.loads(raw) if len(raw) <= _MAX_BODY_BYTES else {"too_large_bytes": len(raw)}
        except ValueError:
            body = None
        self._write({"event": "arrived", "number": number, "path": path, "headers": headers, "body": body})

    def finished(self, number: int, path: str, **facts: Any) -> None:
        """The same request, when it is over."""
        self._write({"event": "finished", "number": number, "path": path, **facts})

    def _write(self, line: dict[str, Any]) -> None:
        self._lines += 1
        if self._path is None or self._lines > _MAX_LINES:
            return
        # the record is the test's: where a test lets every write fail, no request must
        with contextlib.suppress(OSError), self._path.with_suffix(".jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
