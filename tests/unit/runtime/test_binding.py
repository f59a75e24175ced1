"""What /proc says of cores and memory, and how it is held against a plan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynctl.runtime import procfs
from dynctl.runtime.binding import ProcessView, allowed, judge, policy_of

STATUS = "Name:\tVLLM::Worker\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,8\nMems_allowed_list:\t0-1\n"


def view(*threads: tuple[int, ...], pid: int = 7, **more: object) -> ProcessView:
    fields = {"name": "engine", "mems": (0, 1), "policy": "default", **more}
    return ProcessView(pid=pid, threads=threads, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("line", "policy"), [
    ("559efcd8a000 default file=/usr/bin/python3 mapped=1 N0=1 kernelpagesize_kB=4", "default"),
    ("559efcd8a000 prefer:0 file=/usr/bin/python3 mapped=1", "prefer:0"),
    ("559efcd8a000 prefer (many):0-1,3 file=/usr/bin/python3", "prefer (many):0-1,3"),
    ("7f00 bind=static:1 anon=3", "bind=static:1"),
    ("7f00 weighted interleave:0-3 heap", "weighted interleave:0-3"),
    ("7f00 interleave=relative|balancing:0,2 stack", "interleave=relative|balancing:0,2"),
    ("7f00 local", "local"),
    ("", None),
    ("no such thing", None),
    ("7f00 ", None),
])  # fmt: skip
def test_policies_of_numa_maps(line: str, policy: str | None) -> None:
    assert policy_of(f"{line}\n7ffe default stack\n") == policy


def test_what_a_status_allows() -> None:
    assert allowed(STATUS, "Cpus_allowed_list") == (0, 1, 2, 3, 8)
    assert allowed(STATUS, "Mems_allowed_list") == (0, 1)
    assert allowed("Name:\tx\n", "Mems_allowed_list") is None
    assert allowed("Mems_allowed_list:\t\nCpus_allowed_list:\t0\n", "Mems_allowed_list") is None
    assert allowed("Mems_allowed_list:\t1,,2\n", "Mems_allowed_list") is None


def test_nothing_planned_is_nothing_to_judge() -> None:
    assert judge(None, (), [view((0, 1))]) is None
    assert judge("0", (), []) is None


def test_threads_within_the_planned_cores_are_well_bound() -> None:
    bound = judge("0-3", (), [view((0, 1, 2, 3), (2,))])
    assert bound is not None
    assert (bound.cpus, bound.memory, bound.ok, bound.note) == ("0-3", "default", True, None)


def test_a_thread_that_may_run_elsewhere_is_named() -> None:
    bound = judge("0-1", (), [view((0, 1)), view((0, 1), (4, 5), (1,), name="VLLM::Worker", pid=12)])
    assert bound is not None
    assert not bound.ok
    assert bound.cpus == "0-1,4-5"
    assert bound.note == "1 of 3 threads of VLLM::Worker (pid 12) may run on cores 4-5, planned are 0-1"


def test_a_process_crowded_onto_one_core_is_named() -> None:
    bound = judge("0-1", (), [view((0, 1)), view((1,), (1,), pid=12)])
    assert bound is not None
    assert bound.note == "engine (pid 12) runs on cores 1 alone, planned are 0-1"


def test_the_same_trouble_of_many_ranks_is_cut_short() -> None:
    bound = judge("0", (), [view((1,), pid=pid) for pid in range(8)])
    assert bound is not None
    assert bound.note is not None
    assert bound.note.count("planned are 0") == 3
    assert bound.note.endswith("; 5 more")


@pytest.mark.parametrize(("nodes", "policy", "ok"), [
    ((0,), "prefer:0", True),
    ((0,), "bind:0", True),  # vLLM's CPU workers bind to the node of their cores
    ((0, 1), "prefer (many):0-1", True),
    ((0, 1), "prefer:0", True),
    ((0,), "prefer:1", False),
    ((0,), "interleave:0-1", False),
    ((0,), "default", False),
    ((0,), "local", False),
])  # fmt: skip
def test_memory_policies(nodes: tuple[int, ...], policy: str, ok: bool) -> None:
    bound = judge(None, nodes, [view((0,), policy=policy)])
    assert bound is not None
    assert (bound.ok, bound.memory) == (ok, policy)
    assert ok or f"has the memory policy {policy}, planned is node 0" in (bound.note or "")


def test_a_refused_policy_is_said_once_for_all_processes() -> None:
    bound = judge("0", (0,), [view((0,)), view((0,), pid=8)], "the kernel refuses")
    assert bound is not None
    assert (bound.ok, bound.note) == (False, "the kernel refuses")


def test_a_node_that_the_cpuset_forbids_is_named() -> None:
    bound = judge(None, (0, 1), [view((0,), mems=(0,), policy="prefer:0")])
    assert bound is not None
    assert bound.note == "engine (pid 7) may not allocate from NUMA node 1 (cpuset)"


def test_what_can_not_be_read_is_said_but_is_no_difference() -> None:
    bound = judge(None, (0,), [view((0,), policy=None, mems=None)])
    assert bound is not None
    assert (bound.ok, bound.memory) == (True, None)
    assert "can't be read" in (bound.note or "")


def test_this_very_process() -> None:
    found = procfs.view(os.getpid())
    assert found is not None
    assert tuple(sorted(os.sched_getaffinity(0))) in found.threads
    assert procfs.view(2**22 + 1) is None


def test_a_process_without_numa_maps(tmp_path: Path) -> None:
    task = tmp_path / "9" / "task" / "9"
    task.mkdir(parents=True)
    (task / "status").write_text(STATUS)
    (tmp_path / "9" / "task" / "10").mkdir()  # ended between listing and reading
    (tmp_path / "9" / "comm").write_text("engine\n")
    expected = ProcessView(pid=9, name="engine", threads=((0, 1, 2, 3, 8),), mems=(0, 1))
    assert procfs.view(9, tmp_path) == expected
