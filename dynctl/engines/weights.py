"""Weights from a hub, fetched with the engine's interpreter before any GPU is taken."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynctl.engines.environment.child import run_child
from dynctl.engines.environment.progress import megabytes
from dynctl.errors import DynctlError, HostError, RuntimeFailure, UsageError

SCRIPT = Path(__file__).with_name("weights_fetch.py")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
EVERY_S = 5.0


def is_local(model: str) -> bool:
    """Whether nothing has to be fetched: `builtin:...` or a path. To the engine, a folder of that name is a path."""
    return model.startswith(("builtin:", "/", ".", "~")) or Path(model).is_dir()


def ensure_weights(
    model: str, python: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> str:
    """Returns `model` once its files are on this machine; fetches what a hub id's cache is missing.

    HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT count as they do for the engine. Raises UsageError for a model
    that the hub does not have, HostError where this machine can't fetch it.
    """
    if is_local(model):
        return model
    if not HUB_ID.fullmatch(model):
        raise explain(model, python, {"error": "bad-id", "detail": "a hub id is `owner/name`"}, [])
    fetch = _Fetch(model, say, clock)
    try:
        run_child([python, "-I", str(SCRIPT), model], on_line=fetch.hear)
    except OSError as error:
        raise HostError("the engine's interpreter can't be run", where=python, why=str(error)) from None
    if not fetch.done:
        raise explain(model, python, fetch.error, fetch.other)
    return model


class _Fetch:
    """What the child has said so far."""

    def __init__(self, model: str, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.done = False
        self.error: dict[str, Any] = {}
        self.other: list[str] = []
        self._model = model
        self._say = say
        self._clock = clock
        self._began = clock()
        self._said: float | None = None
        self._first_bytes = 0

    def hear(self, line: str) -> None:
        try:
            heard = json.loads(line)
        except ValueError:
            heard = None
        if not isinstance(heard, dict):
            self.other.append(line)
        elif "error" in heard:
            self.error = heard
        elif "phase" in heard:
            self._say(f"{self._model}: {heard['phase']}")
        elif "bytes" in heard:
            self._progress(int(heard["bytes"]), int(heard["total"]))
        elif "done" in heard:
            self.done = True
            if self._said is not None:
                self._say(f"{self._model}: fetched in {self._clock() - self._began:.0f} s")

    def _progress(self, count: int, total: int) -> None:
        now = self._clock()
        if self._said is None:
            self._began, self._first_bytes = now, count
            self._say(f"fetching {self._model}: {megabytes(total - count)} of {megabytes(total)} to go")
        elif now - self._said < EVERY_S:
            return
        else:
            elapsed = now - self._began
            rate = (count - self._first_bytes) / elapsed
            done = f"{megabytes(count)} of {megabytes(total)}"
            self._say(f"fetching {self._model}: {done}, {megabytes(rate)}/s, {elapsed:.0f} s")
        self._said = now


def explain(model: str, python: str, error: dict[str, Any], other: list[str]) -> DynctlError:
    """The error for a fetch that failed: `error` is the child's last word, `other` what else it printed."""
    detail = str(error.get("detail", ""))
    match error.get("error"):
        case "not-found" | "bad-id":
            return UsageError(
                f"the hub has no model {model!r}",
                where="model",
                why=detail,
                fix="check the spelling; for a private model set HF_TOKEN; for a folder give its path",
            )
        case "gated":
            return HostError(
                f"the model {model} is gated and this machine may not fetch it",
                why=detail,
                fix=f"accept its terms at https://huggingface.co/{model} and set HF_TOKEN to a token of that account",
            )
        case "offline":
            return HostError(
                f"the model {model} is not in the cache, and HF_HUB_OFFLINE forbids fetching it",
                why=detail,
                fix="unset HF_HUB_OFFLINE, copy the model into HF_HOME, or give the path of a folder",
            )
        case "network":
            return HostError(
                f"the model {model} is not in the cache, and its hub could not be reached",
                why=detail,
                fix="check the network and proxies, set HF_ENDPOINT to a mirror, or give the path of a folder",
            )
        case "disk":
            return HostError(
                f"the disk is full: the model {model} could not be stored",
                why=detail,
                fix="free some space, or set HF_HOME to a directory on a larger disk",
            )
        case "no-hub":
            return HostError(
                "the engine's interpreter can't fetch models: it has no huggingface_hub",
                where=python,
                why=detail,
                fix="run `make engine`, or name an interpreter with vLLM (python: in the topology)",
            )
    return RuntimeFailure(f"the model {model} could not be fetched", where=python, why=detail or None, tail=other[-6:])
