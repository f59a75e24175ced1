"""RDMA devices and CMA as sysfs and procfs tell them, below a root of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.hardware import cma as cma_module
from dynctl.hardware import discover as module
from dynctl.hardware.cma import cma
from dynctl.hardware.discover import discover
from dynctl.hardware.rdma import rdma_devices
from dynctl.hardware.values import Hardware, Nic, NicPort, cpu_list, parse_cpu_list

ACTIVE, DOWN = ("4: ACTIVE", "5: LinkUp"), ("1: DOWN", "3: Disabled")


def device(root: Path, name: str, *ports: tuple[str, str], numa: str | None = "1") -> Path:
    path = root / "sys/class/infiniband" / name
    (path / "device").mkdir(parents=True)
    if numa is not None:
        (path / "device/numa_node").write_text(f"{numa}\n")
    for number, (state, physical) in enumerate(ports, 1):
        port = path / "ports" / str(number)
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "phys_state").write_text(f"{physical}\n")
    return path


# RDMA


def test_a_machine_without_rdma(tmp_path: Path) -> None:
    assert rdma_devices(tmp_path) == ()
    (tmp_path / "sys/class/infiniband").mkdir(parents=True)
    assert rdma_devices(tmp_path) == ()


def test_ports_that_are_up(tmp_path: Path) -> None:
    device(tmp_path, "mlx5_0", ACTIVE)
    device(tmp_path, "mlx5_1", DOWN, ACTIVE, numa="-1")
    device(tmp_path, "mlx5_2", ("4: ACTIVE", "2: Polling"), numa=None)
    device(tmp_path, "bnxt_re0", ("2: INIT", "5: LinkUp"))
    assert [(nic.name, nic.numa, nic.active_ports) for nic in rdma_devices(tmp_path)] == [
        ("bnxt_re0", 1, ()),
        ("mlx5_0", 1, (1,)),
        ("mlx5_1", None, (2,)),
        ("mlx5_2", None, ()),
    ]


def test_devices_come_in_the_order_people_count_in(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        device(tmp_path, f"mlx5_{number}", ACTIVE)
    device(tmp_path, "hfi")
    assert [nic.name for nic in rdma_devices(tmp_path)] == ["hfi", "mlx5_0", "mlx5_2", "mlx5_10"]


@pytest.mark.parametrize("numa", ["", "none", "\x00"])
def test_what_can_not_be_read_is_absent(tmp_path: Path, numa: str) -> None:
    path = device(tmp_path, "mlx5_0", ACTIVE, numa=numa)
    (path / "ports/1/phys_state").unlink()
    (path / "ports/readme").write_text("")
    assert [(nic.name, nic.numa, nic.active_ports) for nic in rdma_devices(tmp_path)] == [("mlx5_0", None, ())]


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "sys/class").mkdir(parents=True)
    (tmp_path / "sys/class/infiniband").write_text("")
    assert rdma_devices(tmp_path) == ()


# CMA


def yama(root: Path, scope: str | None, capabilities: str = "0000000000000000") -> Path:
    (root / "proc/sys/kernel/yama").mkdir(parents=True)
    (root / "proc/self").mkdir()
    (root / "proc/self/status").write_text(f"Name:\tpython\nCapEff:\t{capabilities}\nSeccomp:\t0\n")
    if scope is not None:
        (root / "proc/sys/kernel/yama/ptrace_scope").write_text(f"{scope}\n")
    return root


@pytest.mark.parametrize(("scope", "capabilities", "allowed", "reason"), [
    (None, "0", True, "no Yama"),
    ("0", "0", True, "ptrace_scope is 0"),
    ("1", "0", True, "ptrace_scope is 1"),
    ("2", "0000000000000000", False, "ptrace_scope is 2"),
    ("2", "0000000000080000", True, "CAP_SYS_PTRACE"),
    ("2", "000001fffff7ffff", False, "ptrace_scope is 2"),
    ("3", "000001ffffffffff", False, "ptrace_scope is 3"),
])  # fmt: skip
def test_yama(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str | None, capabilities: str, allowed: bool, reason: str
) -> None:
    monkeypatch.setattr(cma_module, "_can_write_own_memory", lambda: True)
    found = cma(yama(tmp_path, scope, capabilities))
    assert found.allowed is allowed
    assert reason in found.reason


def test_a_kernel_that_refuses_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cma_module, "_can_write_own_memory", lambda: False)
    found = cma(yama(tmp_path, "0"))
    assert not found.allowed
    assert "process_vm_writev" in found.reason


def test_the_call_itself_gives_an_answer() -> None:
    assert cma_module._can_write_own_memory() in (True, False)


# the whole


def test_this_machine(tmp_path: Path) -> None:
    found = discover(tmp_path)
    assert found.hostname
    assert found.cores == tuple(sorted(found.cores)) != ()
    assert found.memory_bytes > 1 << 20
    assert found.nics == ()
    assert found.cma.reason != "not looked up"


def test_nvml_is_asked_only_where_a_driver_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module.nvml, "discover", lambda *_: asked.append(1) or module.nvml.NvmlView(driver="580"))
    assert discover(tmp_path).driver is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert discover(tmp_path).driver == "580"
    assert asked == [1]


def test_what_counts_as_rdma() -> None:
    assert not Hardware(nics=(Nic(name="mlx5_0"),)).has_rdma()
    up = (NicPort(number=1, state="ACTIVE", phys_state="LinkUp"),)
    assert Hardware(nics=(Nic(name="mlx5_0"), Nic(name="mlx5_1", ports=up))).has_rdma()
    assert not Hardware().has_gpu()


# cpu lists


@pytest.mark.parametrize(("cores", "text"), [
    ((), ""), ((3,), "3"), ((0, 1), "0-1"), ((0, 1, 2, 3, 8), "0-3,8"), ((8, 0, 2), "0,2,8"), ((5, 7, 6), "5-7"),
])  # fmt: skip
def test_cpu_lists(cores: tuple[int, ...], text: str) -> None:
    assert cpu_list(cores) == text


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "0-3;5"])
def test_what_is_no_cpu_list(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - int's own
        parse_cpu_list(text)


@settings(deadline=None)
@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_cpu_list_gives_the_same_cores_again(cores: set[int]) -> None:
    assert parse_cpu_list(cpu_list(tuple(cores))) == tuple(sorted(cores))
