"""What a worker's command line says, in the words of a topology's role."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dynctl.errors import UsageError
from dynctl.export import dialect
from dynctl.export.dialect import DIALECTS, Dialect
from dynctl.export.reading import Part
from dynctl.export.words import Flag, flags_of, module_of

_FLAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_DIRECTIONS = {connector: direction for direction, connector in dialect.CONNECTORS.items()}


class Worker:
    """One worker pool: `mode` (prefill, decode, or None where the flags don't say), model, sizes, `args`, `transport`.

    Flags that a topology has no words for are marked as left out.
    """

    def __init__(self, part: Part, framework: str | None) -> None:
        self.part = part
        self.speech = _dialect(part, framework)
        self.mode: str | None = None
        self.model: str | None = None
        self.served: str | None = None
        self.sizes: dict[str, int] = {}
        self.args: dict[str, Any] = {}
        self.transport: dict[str, Any] = {}
        self.kv_events: Flag | None = None
        owner = dialect.adapter_of(self.speech)
        self._owned = owner.owned_flags if owner else {}
        for flag in flags_of(part.container.words):
            self._take(flag)
        if self.model is None:
            raise part.at.wrong(
                f"names no model: its command line has no --{self.speech.model[0]}",
                f"add `--{self.speech.model[0]}` and the model to its args",
            )

    @property
    def gpus(self) -> int:
        """Of one worker."""
        return self.sizes.get("tp", 1) * self.sizes.get("pp", 1) * self.sizes.get("dp", 1)

    def _take(self, flag: Flag) -> None:
        speech, value = self.speech, flag.value
        size = next((key for key, spellings in speech.sizes.items() if flag.name in spellings), None)
        if size and value and value.isascii() and value.isdigit() and int(value[:6]) > 0:
            self.sizes[size] = int(value)
        elif flag.name in speech.model and value:
            self.model = value
        elif flag.name == speech.served and value:
            self.served = value
        elif flag.name == dialect.MODE_FLAG and value in ("prefill", "decode", "agg", "pd"):
            self.mode = value if value in ("prefill", "decode") else "worker"
        elif flag.name in dialect.OLD_MODES and value is None:
            self.mode = dialect.OLD_MODES[flag.name]
        elif flag.name == dialect.KV_EVENTS_FLAG:
            self.kv_events = flag
            return
        elif flag.name == dialect.KV_TRANSFER_FLAG:
            self._kv_transfer(flag)
            return
        elif speech.fixed.get(flag.name) != value or value is None:
            take(flag, self.args, self._owned)
            return
        flag.done()

    def _kv_transfer(self, flag: Flag) -> None:
        """vLLM's connector, as far as it is NIXL's."""
        try:
            config = json.loads(flag.value or "")
            direction = _DIRECTIONS[config.pop("kv_connector")]
            extra = dict(config.pop("kv_connector_extra_config", {}))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            flag.leave("not a NIXL connector, which is what dynctl sets up")
            return
        self.transport = {"direction": direction} if direction != "pull" else {}
        backends = extra.pop("backends", None)
        if backends in (["UCX"], ["LIBFABRIC"]):
            self.transport["backend"] = backends[0].lower()
        elif backends is not None:
            config["backends"] = backends
        lease = extra.pop("kv_lease_duration", None)
        if isinstance(lease, int) and not isinstance(lease, bool):
            self.transport["lease"] = f"{lease}s"
        if extra:
            self.transport["connector"] = extra
        config.pop("kv_role", None)  # it follows from the role
        if config:
            flag.leave(f"its {', '.join(config)}: dynctl sets what there is to set")
        flag.done()


def take(flag: Flag, args: dict[str, Any], owned: Mapping[str, str]) -> None:
    """Adds the flag to a topology's `args`, or marks why it is left out. `owned`: what to use instead, by flag."""
    if use := owned.get(flag.name):
        flag.leave(f"dynctl sets it: {use}")
    elif flag.name in args or not _FLAG_NAME.fullmatch(flag.name):
        flag.leave("given twice" if flag.name in args else "not the name of a flag")
    else:
        args[flag.name] = True if flag.value is None else _number(flag.value)
        flag.done()


def _number(value: str) -> int | str:
    """A whole number as one, so that the file reads well; everything else as it is spelled."""
    return int(value) if value.isascii() and value.isdigit() and str(int(value[:18])) == value else value


def _dialect(part: Part, framework: str | None) -> Dialect:
    module = module_of(part.container.words)
    for speech in DIALECTS:
        if speech.module == module or (module is None and framework and speech.framework == framework):
            return speech
    known = ", ".join(speech.module for speech in DIALECTS)
    raise UsageError(
        f"`{part.name}` runs `{module}`, which dynctl does not know" if module else f"`{part.name}` runs no engine",
        where=part.at.where,
        why="its command should be `python3 -m` and one of " + known,
        fix="name the module in `command`, or give `backendFramework`",
    )
