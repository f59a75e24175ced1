"""NUMA nodes, cgroups, containers, and who holds a GPU, from trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.hardware.holders import HOST_PID_NAMESPACE, HolderLookup, KnownRun, no_runs
from dynctl.hardware.limits import container, limits
from dynctl.hardware.numa import allowed_cores, numa_nodes
from dynctl.hardware.values import NumaNode


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_nodes_keep_only_the_cores_this_process_may_use(tmp_path: Path) -> None:
    node = "sys/devices/system/node/node"
    write(tmp_path, {
        f"{node}0/cpulist": "0-3\n", f"{node}0/meminfo": "Node 0 MemTotal:  1024 kB\nNode 0 MemFree: 1 kB\n",
        f"{node}1/cpulist": "4-7\n", f"{node}1/meminfo": "garbage\n",
        f"{node}10/cpulist": "\n", f"{node}10/meminfo": "Node 10 MemTotal: 2048 kB\n",
        "proc/self/status": "Name:\tx\nCpus_allowed_list:\t2-5\n",
    })  # fmt: skip
    assert allowed_cores(tmp_path) == (2, 3, 4, 5)
    assert numa_nodes(tmp_path, (2, 3, 4, 5)) == (
        NumaNode(index=0, cores=(2, 3), memory_bytes=1 << 20),
        NumaNode(index=1, cores=(4, 5)),
        NumaNode(index=10, memory_bytes=2 << 20),
    )


def test_a_kernel_without_numa(tmp_path: Path) -> None:
    assert numa_nodes(tmp_path, (0,)) == ()
    assert allowed_cores(tmp_path) != ()


@pytest.mark.parametrize(("files", "quota", "memory_bytes"), [
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
      "sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/b/memory.max": "1073741824\n"}, 1.5, 1 << 30),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4.0, None),
    ({"proc/self/cgroup": "4:cpu,cpuacct:/x\n7:memory:/x\n", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "200000\n",
      "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
      "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, 2.0, None),
    ({"proc/self/cgroup": "4:cpu:/x\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}, None, None),
    ({"proc/self/cgroup": "0::/../../out\n", "sys/fs/cgroup/cpu.max": "1 0\n"}, None, None),
    ({"proc/self/cgroup": "garbage\n"}, None, None),
    ({}, None, None),
])  # fmt: skip
def test_cgroups(tmp_path: Path, files: dict[str, str], quota: float | None, memory_bytes: int | None) -> None:
    found = limits(write(tmp_path, files))
    assert (found.cpu_quota, found.memory_bytes) == (quota, memory_bytes)


@pytest.mark.parametrize(("files", "kind"), [
    ({".dockerenv": ""}, "docker"), ({"run/.containerenv": ""}, "podman"),
    ({"run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"),
    ({"proc/1/cgroup": "0::/kubepods/burstable/pod1\n"}, "kubepods"), ({"proc/1/cgroup": "0::/init.scope\n"}, None),
])  # fmt: skip
def test_containers(tmp_path: Path, files: dict[str, str], kind: str | None) -> None:
    assert container(write(tmp_path, files)) == kind


# holders


def process(root: Path, pid: int, environ: str = "", *, opens: str | None = None) -> None:
    write(root, {f"proc/{pid}/cmdline": "VLLM::EngineCore\0", f"proc/{pid}/environ": environ})
    if opens:
        (root / f"proc/{pid}/fd").mkdir()
        (root / f"proc/{pid}/fd/7").symlink_to(opens)


def namespace(root: Path, name: str) -> Path:
    (root / "proc/self/ns").mkdir(parents=True)
    (root / "proc/self/ns/pid").symlink_to(name)
    return root


def test_holders_on_a_host(tmp_path: Path) -> None:
    namespace(tmp_path, HOST_PID_NAMESPACE)
    process(tmp_path, 1, "HOME=/\0")
    process(tmp_path, 2, "A=b\0DYNCTL_RUN_ID=live\0")
    process(tmp_path, 3, "DYNCTL_RUN_ID=dead\0")
    process(tmp_path, 4, "DYNCTL_RUN_ID=whose\0")
    look = HolderLookup(tmp_path, lambda: {"live": KnownRun("a", True), "dead": KnownRun("b", False)})
    found = [look.holder(pid) for pid in (1, 2, 3, 4, 5)]
    assert [(h.pid, h.kind, h.run) for h in found] == [
        (1, "other", None), (2, "run", "a"), (3, "orphan", "b"), (4, "unknown", None), (None, "unknown", None),
    ]  # fmt: skip
    assert found[2].text() == "pid 3 (VLLM::EngineCore, orphan of run 'b')"


def test_a_holders_arguments_are_not_shown(tmp_path: Path) -> None:
    namespace(tmp_path, HOST_PID_NAMESPACE)
    write(tmp_path, {"proc/1/cmdline": "/usr/bin/python3\0-m\0vllm\0--api-key\0hush\0", "proc/1/environ": ""})
    write(tmp_path, {"proc/2/cmdline": "", "proc/2/comm": "kworker\n", "proc/2/environ": ""})
    look = HolderLookup(tmp_path, no_runs)
    assert [look.holder(pid).command for pid in (1, 2)] == ["python3 -m vllm", "kworker"]


def test_in_a_container_a_host_pid_is_nobody_here(tmp_path: Path) -> None:
    """The same number is another process: never an orphan, unless it has the device open."""
    namespace(tmp_path, "pid:[4026532001]")
    process(tmp_path, 3, "DYNCTL_RUN_ID=dead\0")
    process(tmp_path, 4, "DYNCTL_RUN_ID=dead\0", opens="/dev/nvidia0")
    look = HolderLookup(tmp_path, lambda: {"dead": KnownRun("b", False)})
    assert [(look.holder(pid).pid, look.holder(pid).kind) for pid in (3, 4)] == [(None, "unknown"), (4, "orphan")]


def test_runs_are_looked_up_only_for_processes_of_a_run(tmp_path: Path) -> None:
    namespace(tmp_path, HOST_PID_NAMESPACE)
    process(tmp_path, 1)

    def refuse() -> dict[str, KnownRun]:
        raise AssertionError("asked")

    assert HolderLookup(tmp_path, refuse).holder(1).kind == "other"
    assert no_runs() == {}
