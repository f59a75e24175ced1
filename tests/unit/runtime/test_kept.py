"""The run's files are written anew when they are lost or cut short, and left alone when they were replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynctl.runtime import kept
from dynctl.runtime.kept import Kept
from dynctl.store.log import EventLog
from dynctl.store.run import RunStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    store = RunStore("a", tmp_path / "a")
    for directory in (store.dir, store.logs, store.ucx):
        directory.mkdir()
    (store.dir / "plan.json").write_text('{"whole": 1}')
    (store.dir / "spawned.jsonl").write_text("1\n")
    monkeypatch.chdir(tmp_path)
    return store


@pytest.fixture
def events(store: RunStore) -> Iterator[EventLog]:
    log = EventLog(store.dir / "events.jsonl", lambda: 1.0)
    yield log
    log.close()


def said(events: EventLog) -> list[str]:
    return [event.message for event in events.recent]


def test_a_removed_directory_is_laid_again(store: RunStore, events: EventLog) -> None:
    keeps = Kept(store, events)
    keeps.look()
    with (store.dir / "spawned.jsonl").open("a") as file:
        file.write("2\n")
    keeps.look()
    events.add("gate", "from before")
    shutil.rmtree(store.dir)
    keeps.look()
    assert (store.dir / "plan.json").read_text() == '{"whole": 1}'
    assert (store.dir / "spawned.jsonl").read_text() == "1\n2\n"
    assert store.logs.is_dir()
    assert [event.message for event in store.events()] == said(events), "those from before, too"
    assert said(events)[-1].startswith("plan.json, spawned.jsonl lost or cut short: written anew; what its processes")
    assert Path.cwd() == store.dir
    keeps.look()
    assert len(said(events)) == 2, "nothing more to do"


def test_what_is_cut_short_is_whole_again_and_what_is_replaced_stays(store: RunStore, events: EventLog) -> None:
    keeps = Kept(store, events)
    keeps.look()
    os.truncate(store.dir / "plan.json", 5)
    (store.dir / "spawned.jsonl").write_text("another\n")
    keeps.look()
    assert (store.dir / "plan.json").read_text() == '{"whole": 1}'
    assert (store.dir / "spawned.jsonl").read_text() == "another\n"
    assert said(events) == ["plan.json lost or cut short: written anew"]


def test_a_disk_that_takes_nothing_is_told_once_and_tried_again(
    store: RunStore, events: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps = Kept(store, events)
    keeps.look()
    (store.dir / "plan.json").unlink()
    whole = kept.write_private

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_private", full)
    keeps.look()
    keeps.look()
    assert said(events) == ["files of the run are lost and can't be written anew"]
    monkeypatch.setattr(kept, "write_private", whole)
    keeps.look()
    assert (store.dir / "plan.json").exists()
