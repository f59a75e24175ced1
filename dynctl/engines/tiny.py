"""`builtin:tiny`: the seeded tiny model, made once in the user's cache with the engine's interpreter."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dynctl.engines.environment.cache import cache_root, exclusive, make_folder
from dynctl.engines.environment.child import run_child
from dynctl.errors import HostError, RuntimeFailure

SCRIPT = Path(__file__).with_name("tiny_model.py")


def tiny_model_dir() -> Path:
    """Where the model is, or will be: a new folder for each change of the script that makes it."""
    key = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:12]
    return cache_root() / "models" / f"tiny-{key}"


def ensure_tiny_model(python: str, say: Callable[[str], None]) -> Path:
    """The model's folder; made first where it is missing, which takes some seconds.

    Raises HostError where the interpreter can't make it, RuntimeFailure where making it fails.
    """
    folder = tiny_model_dir()
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    lock = folder.with_name(f"{folder.name}.lock")

    def waiting(turn: int) -> None:
        if turn == 0:
            say("waiting for another process that is making the tiny model")

    with exclusive(lock, waiting) as held:
        if folder.is_dir():
            return folder
        say(f"making the tiny model in {folder}")
        for left in folder.parent.glob(f"{folder.name}.partial-*"):
            shutil.rmtree(left, ignore_errors=True)
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        partial.mkdir()
        try:
            _make(python, partial, held)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _make(python: str, partial: Path, held: int) -> None:
    said: list[str] = []
    try:
        code = run_child([python, "-I", str(SCRIPT), str(partial)], on_line=said.append, keep=(held,))
    except OSError as error:
        raise HostError("the engine's interpreter can't be run", where=python, why=str(error)) from None
    if code == 0:
        return
    last = next((line for line in reversed(said) if line.strip()), "")
    if last.startswith("ModuleNotFoundError"):
        raise HostError(
            "the engine's interpreter can't make the tiny model: it has no engine",
            where=python,
            why=last,
            fix="run `make engine`, or name an interpreter with vLLM (python: in the topology)",
        )
    raise RuntimeFailure(f"the tiny model could not be made (exit code {code})", where=python, tail=said[-6:])
