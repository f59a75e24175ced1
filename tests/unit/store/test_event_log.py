"""The event log on a disk that does not always take what is written."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from dynctl.store.log import EventLog
from dynctl.store.run import RunStore


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond that size are cut off, as on a disk that fills up; none goes through after that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


Open = Callable[[Path], EventLog]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens logs that are closed afterwards."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(closing(EventLog(path, lambda: 1.0)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def said(path: Path) -> list[tuple[int, str]]:
    return [(event.seq, event.message) for event in RunStore("x", path.parent).events()]


def test_what_a_full_disk_does_not_take_is_written_later_in_order(path: Path, opened: Open) -> None:
    log = opened(path)
    log.add("warning", "before")
    with largest_file(path.stat().st_size + 20):  # the next line is torn
        log.add("warning", "torn")
        log.add("warning", "lost")
        assert log.trouble is not None
        assert said(path) == [(1, "before")]
        assert [event.message for event in log.recent] == ["before", "torn", "lost"]
    log.flush()
    assert log.trouble is None
    assert said(path) == [(1, "before"), (2, "torn"), (3, "lost")]


def test_a_later_log_counts_on_behind_a_torn_line(path: Path, opened: Open) -> None:
    first = opened(path)
    first.add("warning", "one")
    first.add("warning", "two")
    first.close()
    with path.open("ab") as file:
        file.write(b'{"seq":3,"at":1.0,"ki')
    later = opened(path)
    later.add("warning", "three")
    assert said(path) == [(1, "one"), (2, "two"), (3, "three")]


def test_a_removed_file_is_begun_anew_with_what_is_remembered(path: Path, opened: Open) -> None:
    log = opened(path)
    log.add("warning", "one")
    path.unlink()
    log.reopen()
    log.add("warning", "two")
    assert said(path) == [(1, "one"), (2, "two")]


def test_the_trouble_is_told_in_words(path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(path)
    with open("/dev/full", "ab", buffering=0) as full, monkeypatch.context() as patch:
        patch.setattr(log, "_file", full)
        log.add("warning", "one")
    assert log.trouble == "No space left on device"
