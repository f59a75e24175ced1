"""Models that are made or fetched with the engine's interpreter; a shell script stands in for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.engines.tiny import ensure_tiny_model, tiny_model_dir
from dynctl.engines.weights import ensure_weights
from dynctl.errors import DynctlError, HostError, RuntimeFailure, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dynctl" / "models"


def interpreter(folder: Path, text: str) -> str:
    """An executable called as `python -I SCRIPT ARGUMENT`."""
    made = folder / "python"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return str(made)


def test_the_model_is_made_once(tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    python = interpreter(tmp_path, 'echo made >> "$0.calls"; echo "{}" > "$3/config.json"')
    folder = ensure_tiny_model(python, said.append)
    assert folder == tiny_model_dir() == ensure_tiny_model(python, said.append)
    assert folder.parent == cache
    assert (folder / "config.json").is_file()
    assert Path(f"{python}.calls").read_text() == "made\n"
    assert len(said) == 1


def test_a_model_that_was_not_finished_is_made_again(tmp_path: Path, cache: Path) -> None:
    (cache / f"{tiny_model_dir().name}.partial-1").mkdir(parents=True)
    ensure_tiny_model(interpreter(tmp_path, 'echo "{}" > "$3/config.json"'), lambda text: None)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [tiny_model_dir().name]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("echo \"ModuleNotFoundError: No module named 'tokenizers'\" >&2; exit 1", HostError, "no engine"),
        ("echo MemoryError >&2; exit 1", RuntimeFailure, "exit code 1"),
    ],
)
def test_a_failure_leaves_nothing_and_is_explained(
    tmp_path: Path, cache: Path, text: str, kind: type[DynctlError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        ensure_tiny_model(interpreter(tmp_path, text), lambda said: None)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_an_interpreter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="can't be run"):
        ensure_tiny_model(str(tmp_path / "none"), lambda said: None)
    with pytest.raises(HostError, match="can't be run"):
        ensure_weights("a/b", str(tmp_path / "none"), lambda said: None)


def test_progress_of_a_fetch_is_said_at_most_every_five_seconds(tmp_path: Path) -> None:
    lines = "".join(f'echo \'{{"bytes": {gb * 10**9}, "total": 9000000000}}\'\n' for gb in range(10))
    ticks = iter(range(100))
    said: list[str] = []
    python = interpreter(tmp_path, lines + 'echo "noise"; echo \'{"done": "/x"}\'')
    assert ensure_weights("a/b", python, said.append, clock=lambda: float(next(ticks))) == "a/b"
    assert said == [
        "fetching a/b: 9.0 GB of 9.0 GB to go",
        "fetching a/b: 5.0 GB of 9.0 GB, 1.0 GB/s, 5 s",
        "a/b: fetched in 10 s",
    ]


def test_a_model_in_the_cache_is_not_talked_about(tmp_path: Path) -> None:
    said: list[str] = []
    ensure_weights("a/b", interpreter(tmp_path, 'echo \'{"done": "/x"}\''), said.append)
    assert said == []


@pytest.mark.parametrize("model", ["builtin:tiny", "/models/x", "./x", "~/x"])
def test_what_is_local_needs_no_interpreter(model: str) -> None:
    assert ensure_weights(model, "/nowhere/python", print) == model


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("not-found", UsageError, "no model"),
        ("bad-id", UsageError, "no model"),
        ("gated", HostError, "gated"),
        ("offline", HostError, "HF_HUB_OFFLINE"),
        ("network", HostError, "could not be reached"),
        ("disk", HostError, "disk is full"),
        ("no-hub", HostError, "huggingface_hub"),
        ("other", RuntimeFailure, "could not be fetched"),
    ],
)
def test_a_failed_fetch_has_a_cause_and_mostly_a_fix(
    tmp_path: Path, kind: str, error: type[DynctlError], words: str
) -> None:
    python = interpreter(tmp_path, f'echo \'{{"error": "{kind}", "detail": "the reason"}}\'; exit 1')
    with pytest.raises(error, match=words) as caught:
        ensure_weights("a/b", python, lambda said: None)
    assert caught.value.why == ("the reason",)
    assert caught.value.fix or kind == "other"


def test_a_fetch_that_crashes_shows_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        ensure_weights("a/b", interpreter(tmp_path, "echo Killed >&2; exit 137"), lambda said: None)
    assert caught.value.tail == ("Killed",)


def test_words_that_are_no_hub_id_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no model"):
        ensure_weights("two words", "/nowhere/python", print)
