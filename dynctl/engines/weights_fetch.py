"""Fetches a model from its hub: run by the engine's interpreter as `python weights_fetch.py MODEL`; needs no dynctl.

Prints JSON lines: {"phase": ...}, {"bytes": done, "total": all} while it fetches, and last {"done": folder} or
{"error": kind, "detail": text}. Kinds: no-hub, bad-id, not-found, gated, offline, network, disk, other.
"""

# The engine's packages are not installed where types are checked.
# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import errno
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

# What vLLM does not read where there are safetensors.
OTHERS = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.tflite", "*.ot"]
NEVER = ["original/*", "metal/*"]
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")
NAMES = {
    "not-found": {"RepositoryNotFoundError", "RevisionNotFoundError"},
    "gated": {"GatedRepoError"},
    "bad-id": {"HFValidationError"},
    "offline": {"OfflineModeIsEnabled"},
    "network": {"ConnectionError", "ConnectError", "TimeoutException", "Timeout", "TransportError", "ProxyError"},
}


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)  # noqa: T201  the answer, to a parent that reads it


def complete(folder: Path) -> bool:
    """Whether a cached snapshot has its configuration, a tokenizer and every shard that its index names."""
    if not (folder / "config.json").exists() and not (folder / "params.json").exists():
        return False
    if not any((folder / name).exists() for name in TOKENIZERS):
        return False
    for index in folder.glob("*.index.json"):
        shards = set(json.loads(index.read_text()).get("weight_map", {}).values())
        if index.name.endswith(".safetensors.index.json") or not any(folder.glob("*.safetensors")):
            return bool(shards) and all((folder / shard).exists() for shard in shards)
    return any(file.suffix in WEIGHTS and file.exists() for file in folder.iterdir())


def kind_of(error: BaseException) -> str:
    """The kind of a failure, by the names of its class and their bases: these have moved between hub versions."""
    seen: BaseException | None = error
    while seen is not None:
        names = {base.__name__ for base in type(seen).__mro__}
        if isinstance(seen, OSError) and seen.errno == errno.ENOSPC:
            return "disk"
        for kind in ("gated", "not-found", "bad-id", "offline", "network"):
            if names & NAMES[kind]:
                return kind
        seen = seen.__cause__ or seen.__context__
    return "other"


def bytes_in(folder: Path) -> int:
    """Bytes of every file below, those still being written included."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += 0 if file.is_symlink() or not file.is_file() else file.stat().st_size
        except OSError:
            continue
    return total


def fetch(model: str) -> str:
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        folder = Path(snapshot_download(model, local_files_only=True, ignore_patterns=NEVER + OTHERS))
        if complete(folder):
            return str(folder)
    except Exception as error:
        if kind_of(error) == "bad-id":
            raise
    say(phase="asking the hub")
    files = HfApi().model_info(model, files_metadata=True).siblings or []
    ignore = NEVER + (OTHERS if any(file.rfilename.endswith(".safetensors") for file in files) else [])
    wanted = [file for file in files if not any(fnmatch(file.rfilename, pattern) for pattern in ignore)]
    total = sum(file.size or 0 for file in wanted)
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "blobs"
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(1.0):
            say(bytes=min(bytes_in(blobs), total), total=total)

    say(bytes=min(bytes_in(blobs), total), total=total)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return str(snapshot_download(model, ignore_patterns=ignore))
    finally:
        finished.set()
        watcher.join()


def main(model: str) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        say(done=fetch(model))
    except ImportError as error:
        say(error="no-hub", detail=str(error))
    except Exception as error:
        say(error=kind_of(error), detail=(str(error).strip().splitlines() or [type(error).__name__])[0][:500])
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
