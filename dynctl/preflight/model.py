"""The model: what the engines are told, its configuration, and its weights on this machine before any GPU is taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from dynctl.errors import UsageError
from dynctl.plan.facts import ModelFacts
from dynctl.plan.resolve import TINY

MAX_CONFIG_BYTES = 4 << 20
MAX_INDEX_BYTES = 64 << 20
INDEX = "model.safetensors.index.json"


def is_path(model: str) -> bool:
    """Whether the topology names a directory rather than a hub id."""
    return model.startswith(("/", "./", "../", "~"))


def exists(model: str) -> bool:
    """Whether a model directory is on this machine."""
    return Path(os.path.expanduser(model)).exists()


def look_up(model: str) -> ModelFacts:
    """What can be known without fetching or making anything. UsageError for a path that is no model."""
    if model == TINY:
        from dynctl.engines.tiny import tiny_model_dir

        directory = tiny_model_dir()
        return ModelFacts(model=str(directory), config=_config(directory / "config.json"))
    if is_path(model):
        directory = Path(os.path.expanduser(model))
        if not (directory / "config.json").is_file():
            why = "there is no such directory" if not directory.exists() else "it has no config.json"
            raise UsageError(f"no model at {model}", where="model", why=why, fix="give a model directory or a hub id")
        return ModelFacts(model=str(directory), config=_config(directory / "config.json"))
    return ModelFacts(model=model, config=_config(_cached_config(model)))


def stored_bytes(model: str) -> int | None:
    """What the checkpoint's index says its weights take; None where it is not on this machine or does not say."""
    config = Path(os.path.expanduser(model)) / "config.json" if is_path(model) else _cached_config(model)
    about = _json(config.with_name(INDEX), MAX_INDEX_BYTES).get("metadata") if config else None
    size = about.get("total_size") if isinstance(about, dict) else None
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 60 else None


def prepare(model: str, python: str, say: Callable[[str], None]) -> None:
    """Makes the tiny model or fetches a hub model's weights, with progress."""
    if model == TINY:
        from dynctl.engines.tiny import ensure_tiny_model

        ensure_tiny_model(python, say)
    elif not is_path(model):
        from dynctl.engines.weights import ensure_weights

        ensure_weights(model, python, say)


def _cached_config(model: str) -> Path | None:
    """config.json of a hub model that is in the cache already (layout of huggingface_hub: models--org--name)."""
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    repository = hub / f"models--{model.replace('/', '--')}"
    try:
        revision = (repository / "refs/main").read_text().strip()
    except OSError:
        return None
    return repository / "snapshots" / revision / "config.json"


def _config(path: Path | None) -> dict[str, object]:
    return _json(path, MAX_CONFIG_BYTES) if path else {}


def _json(path: Path, most_bytes: int) -> dict[str, object]:
    """The object in that file; empty where it can't be read, is too large or is none."""
    try:
        if path.stat().st_size > most_bytes:
            return {}
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
