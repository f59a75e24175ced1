"""A run's files: created, read again, half written, locked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from dynctl.errors import HostError, RunStateError
from dynctl.store import paths
from dynctl.store.event import Event
from dynctl.store.log import KEPT_EVENTS, EventLog
from dynctl.store.run import RunStore, is_supervised, known_runs, planning_lock, try_lock, write_private
from tests.unit.plan.machines import made

pytestmark = pytest.mark.usefixtures("places")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# create and read


def test_a_run_is_laid_and_read_again() -> None:
    store, plan = RunStore("cpu-1p1d"), made()
    record = store.create(plan, "1.2.3")
    assert store.plan() == plan
    assert store.record() == record
    assert (record.name, record.boot_id, record.dynctl_version) == ("cpu-1p1d", paths.boot_id(), "1.2.3")
    assert len(record.run_id) == 32
    assert len(store.token()) >= 32
    assert store.exists()
    assert [known.name for known in known_runs()] == ["cpu-1p1d"]


def test_only_its_owner_can_read_it() -> None:
    store = RunStore("x")
    store.create(made(), "1")
    assert [mode(path) for path in (store.dir, store.logs, store.ucx)] == [0o700] * 3
    assert [mode(store.dir / name) for name in ("token", "plan.json", "run.json")] == [0o600] * 3


def test_a_second_run_of_the_name_begins_afresh() -> None:
    store = RunStore("x")
    first = store.create(made(), "1")
    token = store.token()
    store.log_path("decode-0").write_text("old")
    (store.ucx / "decode-0.log").write_text("old")
    (store.dir / "events.jsonl").write_text('{"seq":1,"at":1,"kind":"gate","message":"old"}\n')
    (store.dir / "notes.txt").write_text("the user's own")
    second = store.create(made(), "1")
    assert second.run_id != first.run_id
    assert store.token() != token
    assert store.events() == []
    assert list(store.logs.iterdir()) == list(store.ucx.iterdir()) == []
    assert (store.dir / "notes.txt").exists()


def test_what_was_never_there() -> None:
    store = RunStore("ghost")
    assert not store.exists()
    assert store.events() == []
    assert known_runs() == []
    with pytest.raises(RunStateError) as caught:
        store.plan()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name":"x"}', b"\xff\xfe"])
def test_a_record_that_was_damaged(content: bytes) -> None:
    store = RunStore("x")
    store.create(made(), "1")
    (store.dir / "run.json").write_bytes(content)
    with pytest.raises(RunStateError, match="can't be read") as caught:
        store.record()
    assert caught.value.where == str(store.dir / "run.json")


def test_a_newer_versions_record_is_understood() -> None:
    store = RunStore("x")
    record = store.create(made(), "1")
    document = msgspec.json.decode((store.dir / "run.json").read_bytes())
    (store.dir / "run.json").write_bytes(msgspec.json.encode({**document, "added_later": {"a": 1}}))
    assert store.record() == record


def test_known_runs_are_those_with_a_record(tmp_path: Path) -> None:
    for name in ("b", "a"):
        RunStore(name).create(made(), "1")
    (paths.state_root() / "stray").mkdir()
    (paths.state_root() / "file").write_text("")
    assert [known.name for known in known_runs()] == ["a", "b"]


# events


def test_events_are_read_back() -> None:
    store = RunStore("x")
    store.create(made(), "1")
    log = EventLog(store.dir / "events.jsonl", iter([10.5, 11.0]).__next__)
    first = log.add("run.state", "starting", state="starting", data={"a": [1]})
    second = log.add("gate", "healthy\nindeed", process="decode-0", who="decode-0", why="because")
    assert store.events() == [first, second]
    assert (first.seq, second.seq, first.at) == (1, 2, 10.5)
    log.close()


def test_a_half_written_last_line_is_left_out() -> None:
    store = RunStore("x")
    store.create(made(), "1")
    whole = msgspec.json.encode(Event(seq=1, at=1.0, kind="gate", message="m"))
    (store.dir / "events.jsonl").write_bytes(whole + b"\n" + whole[:-7])
    assert [event.seq for event in store.events()] == [1]


def test_lines_that_are_no_events_are_left_out() -> None:
    store = RunStore("x")
    store.create(made(), "1")
    whole = msgspec.json.encode(Event(seq=1, at=1.0, kind="gate", message="m"))
    lines = [b"", b"{}", b'{"seq":2,"at":1,"kind":"unheard of","message":""}', b"\xff", whole]
    (store.dir / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert len(store.events()) == 1


def test_a_full_disk_costs_the_record_not_the_run() -> None:
    log = EventLog(Path("/dev/full"), lambda: 1.0)
    heard: list[Event] = []
    log.listeners.append(heard.append)
    event = log.add("warning", "the disk is full")
    assert heard == [event] == list(log.recent)
    log.close()


def test_an_event_after_the_end_is_still_heard(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", lambda: 1.0)
    log.close()
    heard: list[Event] = []
    log.listeners.append(heard.append)
    log.add("process.state", "ended late")
    assert len(heard) == 1


def test_the_newest_events_are_kept_in_memory(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", lambda: 1.0)
    for number in range(KEPT_EVENTS + 3):
        log.add("gate", str(number))
    assert (len(log.recent), log.recent[0].seq, log.recent[-1].seq) == (KEPT_EVENTS, 4, KEPT_EVENTS + 3)
    log.close()


def test_a_listener_may_leave_while_it_is_told(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", lambda: 1.0)
    heard: list[int] = []

    def once(event: Event) -> None:
        heard.append(event.seq)
        log.listeners.remove(once)

    log.listeners += [once, lambda event: heard.append(-event.seq)]
    log.add("gate", "a")
    log.add("gate", "b")
    assert heard == [1, -1, -2]
    log.close()


# files and locks


def test_private_files_are_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("older and longer")
    file.chmod(0o644)
    write_private(file, b"new")
    assert (file.read_bytes(), mode(file)) == (b"new", 0o600)
    assert [path.name for path in tmp_path.iterdir() if "secret" in path.name] == ["secret"]


def test_a_symlink_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("not ours")
    link = tmp_path / "plan.json"
    link.symlink_to(target)
    write_private(link, b"plan")
    assert target.read_text() == "not ours"
    assert not link.is_symlink()


def test_a_disk_that_is_full_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(b"before")
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: real("/dev/full", os.O_WRONLY))
    with pytest.raises(HostError, match="can't write"):
        write_private(file, b"after" * 10_000)
    assert file.read_bytes() == b"before"


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    held = try_lock(tmp_path / "x.lock")
    assert held is not None
    assert try_lock(tmp_path / "x.lock") is None
    held.close()
    again = try_lock(tmp_path / "x.lock")
    assert again is not None
    again.close()


def test_a_run_is_supervised_as_long_as_its_lock_is_held() -> None:
    assert not is_supervised("x")
    held = try_lock(paths.lock_path("x"))
    assert held is not None
    assert is_supervised("x")
    assert not is_supervised("y")
    held.close()
    assert not is_supervised("x")


def test_the_planning_lock_is_given_back() -> None:
    for _ in range(2):
        with planning_lock():
            assert try_lock(paths.runtime_dir() / "planning.lock") is None
