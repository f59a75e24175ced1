"""Logs that are rotated while they are written and read: nothing lost, nothing twice, a bounded number kept."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.store import log as event_log
from dynctl.store import rotation
from dynctl.store.follow import Follower
from dynctl.store.log import EventLog
from dynctl.store.rotation import KEPT, generations, rotate, rotated, swap
from dynctl.store.run import RunStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decode-0.log"


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def read(follower: Follower) -> list[str]:
    return [line.decode() for line in follower.lines()]


def test_a_writer_goes_on_at_the_beginning(path: Path) -> None:
    with path.open("ab", buffering=0) as held:
        held.write(b"old\n")
        rotate(path)
        held.write(b"new\n")
    assert (rotated(path, 1).read_text(), path.read_text()) == ("old\n", "new\n")
    assert rotated(path, 1).stat().st_mode & 0o077 == 0
    assert sorted(p.name for p in path.parent.iterdir()) == ["decode-0.log", "decode-0.log.1"]


def test_no_more_than_asked_for_are_kept(path: Path) -> None:
    for number in range(6):
        write(path, f"{number}\n")
        rotate(path)
    assert [older.read_text() for older in generations(path)] == ["5\n", "4\n", "3\n"][:KEPT]


def test_the_oldest_makes_room_where_the_disk_has_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk: room for one log more where the oldest is gone."""
    for number in range(KEPT):
        rotated(path, number + 1).write_text(f"{number}\n")
    write(path, "now\n")
    free = os.statvfs(path.parent)

    def measured(where: Path) -> os.statvfs_result:
        blocks = 1 << 20 if not rotated(path, KEPT).exists() else 0
        return os.statvfs_result((free.f_bsize, 4096, free.f_blocks, blocks, blocks, *tuple(free)[5:]))

    monkeypatch.setattr(os, "statvfs", measured)
    rotate(path)
    assert [older.read_text() for older in generations(path)] == ["now\n", "0\n", "1\n"]


def test_a_copy_that_fails_leaves_the_log_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, "kept\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rotation, "_copy", full)
    with pytest.raises(OSError, match="No space"):
        rotate(path)
    assert path.read_text() == "kept\n"
    assert [p.name for p in path.parent.iterdir()] == ["decode-0.log"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["write", "half", "rotate", "read"]), max_size=25))
def test_any_order_of_writing_rotating_and_reading(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    path = tmp_path_factory.mktemp("logs") / "x.log"
    path.touch()
    follower, seen, number, unread = Follower(path), [], itertools.count(), 0
    written = ""
    for step in steps:
        if step == "rotate":
            if unread < KEPT:  # what was dropped can't be read
                rotate(path)
                unread += 1
        elif step == "read":
            seen += read(follower)
            unread = 0
        else:
            text = f"line {next(number)}" + ("\n" if step == "write" else "")
            write(path, text)
            written += text
    seen += read(follower)
    assert seen == written.split("\n")[:-1]


def test_a_reader_waits_while_a_copy_takes_its_place(path: Path) -> None:
    write(path, "one\n")
    follower = Follower(path)
    swap(path).write_text("one\n")
    assert read(follower) == []
    swap(path).rename(rotated(path, 1))
    path.write_text("")
    assert read(follower) == ["one"]


def test_a_copy_that_was_left_behind_holds_nobody_up(path: Path) -> None:
    write(path, "one\n")
    swap(path).write_text("left by a rotation that was killed")
    follower = Follower(path)
    assert read(follower) == []
    assert read(follower) == ["one"]
    rotate(path)
    write(path, "two\n")
    assert read(follower) == ["two"]


def test_a_reader_at_the_end_sees_only_what_comes(path: Path) -> None:
    write(path, "old\n")
    rotate(path)
    write(path, "older than the reader\n")
    follower = Follower(path)
    follower.skip_to_end()
    rotate(path)
    write(path, "new\n")
    assert read(follower) == ["new"]


@pytest.mark.parametrize("read_before", [True, False])
def test_a_write_that_is_half_there_goes_whole(path: Path, read_before: bool) -> None:
    """A write over two pages of a file is seen half for a moment; its other half goes with the truncation."""
    whole = "a line\n" * 580
    write(path, whole + "b" * (4096 - len(whole)))
    follower = Follower(path)
    seen = read(follower) if read_before else []
    rotate(path)
    write(path, "next\n")
    assert seen + read(follower) == ["a line"] * 580 + ["next"]


def test_rotation_under_a_steady_writer(path: Path) -> None:
    """A reader beside a writer and rotations, each in its own thread: every line in order, none twice."""
    path.touch()
    over, rotations = threading.Event(), 0

    def writing() -> None:
        with path.open("ab", buffering=0) as file:
            for number in range(20_000):
                file.write(b"%d\n" % number)
        over.set()

    follower, seen = Follower(path), []
    writer = threading.Thread(target=writing)
    writer.start()
    while not over.is_set() or rotations < 2:
        rotate(path)
        rotations += 1
        seen += read(follower)
    writer.join()
    numbers = [int(line) for line in seen + read(follower)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 10_000


def test_events_survive_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LIMIT_BYTES", 2000)
    store = RunStore("x", tmp_path)
    log = EventLog(tmp_path / "events.jsonl", time.time)
    for number in range(60):
        log.add("warning", f"number {number}")
    log.close()
    assert 1 <= len(generations(tmp_path / "events.jsonl")) <= KEPT
    found = store.events()
    assert [event.seq for event in found] == list(range(found[0].seq, 61))
    assert os.path.getsize(tmp_path / "events.jsonl") < 2500
