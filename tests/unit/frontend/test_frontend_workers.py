"""The workers of a table: whose turn it is, who is avoided or went out of service, and the health that follows."""

from __future__ import annotations

import pytest
from worker_tables import known, table

from dynctl.frontend.health import NO_DECODE, NO_PREFILL, NO_WORKER
from dynctl.frontend.messages import WorkerEntry, WorkerTable
from dynctl.frontend.routing import Snapshot, Worker, round_robin
from dynctl.frontend.workers import Workers
from dynctl.http.origin import Origin


def worker(name: str) -> Worker:
    return Worker(id=name, role="decode", origin=Origin("h", 1), state="ready")


def test_round_robin() -> None:
    three = (worker("a"), worker("b"), worker("c"))
    chosen = [round_robin(Snapshot(candidates=three, turn=turn)) for turn in range(6)]
    assert [w.id for w in chosen if w] == ["a", "b", "c", "a", "b", "c"]
    assert round_robin(Snapshot(candidates=(), turn=3)) is None


def test_only_ready_workers_are_picked() -> None:
    subject = known("decode-0=ready", "decode-1=proving", "decode-2=draining", "decode-3=down")
    assert {w.id for _ in range(8) if (w := subject.pick("decode"))} == {"decode-0"}
    assert subject.pick("decode", ["decode-0"]) is None
    assert subject.pick("prefill") is None


def test_pools_take_turns_of_their_own() -> None:
    subject = known("prefill-0=ready", "prefill-1=ready", "decode-0=ready", "decode-1=ready")
    picked = [w.id for _ in range(2) for role in ("prefill", "decode") if (w := subject.pick(role))]
    assert picked == ["prefill-0", "decode-0", "prefill-1", "decode-1"]


def test_a_suspect_is_avoided_for_a_while_unless_it_is_all_there_is() -> None:
    now = 0.0
    subject = Workers(clock=lambda: now)
    subject.update(table("decode-0=ready", "decode-1=ready"))
    zero = subject.get("decode-0")
    assert zero is not None
    subject.suspect(zero)
    assert {w.id for _ in range(4) if (w := subject.pick("decode"))} == {"decode-1"}
    assert subject.pick("decode", ["decode-1"]) == zero
    now = 2.5
    assert {w.id for _ in range(4) if (w := subject.pick("decode"))} == {"decode-0", "decode-1"}


def test_update_says_who_went_out_of_service() -> None:
    subject = known("prefill-0=ready", "decode-0=ready", "decode-1=proving")
    assert [w.id for w in subject.update(table("prefill-0=ready", "decode-0=down"))] == ["decode-0", "decode-1"]
    assert subject.update(table("prefill-0=ready", "decode-0=down")) == []
    moved = WorkerTable(workers=(WorkerEntry(id="prefill-0", role="prefill", url="http://h:9", state="ready"),))
    assert [w.id for w in subject.update(moved)] == ["prefill-0", "decode-0"]


HEALTH = [
    (["prefill-0=ready", "decode-0=ready"], {}, "ok", None),
    (["prefill-0=down", "decode-0=ready"], {}, "degraded", NO_PREFILL),
    (["decode-0=ready"], {"prefill": 1, "decode": 1}, "degraded", NO_PREFILL),
    (["decode-0=ready"], {}, "ok", None),
    (["prefill-0=ready", "decode-0=proving"], {}, "down", NO_DECODE),
    (["prefill-0=ready"], {"prefill": 1, "decode": 1}, "down", NO_DECODE),
    (["worker-0=ready", "worker-1=down"], {}, "ok", None),
    (["worker-0=down"], {}, "down", NO_WORKER),
    ([], {}, "down", NO_DECODE),
]


@pytest.mark.parametrize(("workers", "expected", "status", "reason"), HEALTH)
def test_health(workers: list[str], expected: dict[str, int], status: str, reason: str | None) -> None:
    health = known(*workers, expected=expected).health()
    assert (health.status, health.reason) == (status, reason)


def test_health_before_the_supervisor_spoke() -> None:
    health = Workers().health()
    assert health.status == "down"
    assert "supervisor" in (health.reason or "")
