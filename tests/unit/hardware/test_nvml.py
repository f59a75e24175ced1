"""GPUs through a stand-in for the `pynvml` module."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from dynctl.hardware.holders import HOST_PID_NAMESPACE
from dynctl.hardware.nvml import NvmlView, discover, has_driver, used_bytes

GIB = 1 << 30
PEER = types.SimpleNamespace


class NVMLError(Exception):
    """What every call of the stand-in raises where the driver would refuse."""


class Slice(str):
    """Handle of a MIG slice: its profile."""


class Driver:
    """So many GPUs. `links` maps a GPU to the remote bus ids of its active links; None: the link ends in a switch."""

    NVMLError = NVMLError
    NVML_NVLINK_MAX_LINKS = 4
    NVML_FEATURE_ENABLED = 1
    NVML_NVLINK_DEVICE_TYPE_GPU = 0
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, count: int = 2, **changes: Any) -> None:
        self.count = count
        self.links: dict[int, list[str | None]] = {}
        self.lost: set[int] = set()
        self.refused: set[str] = set()
        self.pids: dict[int, list[int]] = {}
        self.slices: dict[int, dict[int, str]] = {}
        self.open = 0
        vars(self).update(changes)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "refused"):

            def refuse(*args: Any) -> Any:
                raise NVMLError(name)

            return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names, here and below
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 13020

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.lost:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"MIG-{handle}" if isinstance(handle, Slice) else f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return f"NVIDIA H200 MIG {handle}" if isinstance(handle, Slice) else "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if isinstance(handle, Slice):
            return PEER(total=int(handle.partition(".")[2][:-2]) * GIB, used=0)
        return PEER(total=141 * GIB, used=(handle + 1) * GIB)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return 9, 0

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:  # noqa: N802
        return PEER(busId=f"00000000:{handle + 0x18:02X}:00.0")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [PEER(pid=pid) for pid in self.pids.get(handle, ())]

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        if handle not in self.slices:
            raise NVMLError("not supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, slot: int) -> Any:  # noqa: N802
        if slot not in self.slices[handle]:
            raise NVMLError("not found")
        return Slice(self.slices[handle][slot])

    def nvmlDeviceGetNvLinkState(self, handle: int, link: int) -> int:  # noqa: N802
        if link >= len(self.links.get(handle, ())):
            raise NVMLError("not supported")
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: int, link: int) -> int:  # noqa: N802
        return 2 if self.links[handle][link] is None else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: int, link: int) -> Any:  # noqa: N802
        return PEER(busId=(self.links[handle][link] or "00000000:C3:00.0").encode())


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(driver: Driver) -> Driver:
        monkeypatch.setitem(sys.modules, "pynvml", driver)  # type: ignore[arg-type]
        return driver

    return put


def test_what_a_driver_reports(install: Any, tmp_path: Path) -> None:
    driver = install(Driver(2, pids={1: [77, 78]}))
    for pid in (77, 78):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to(HOST_PID_NAMESPACE)
    found = discover(tmp_path)
    assert (found.driver, found.cuda) == ("580.65.06", "13.2")
    first, second = found.gpus
    assert (first.index, first.uuid, first.name, first.memory_bytes) == (0, "GPU-0", "NVIDIA H200", 141 * GIB)
    assert (first.pci, second.pci) == ("0000:18:00.0", "0000:19:00.0")
    assert (first.compute_capability, first.nvlinks, first.holders) == ("9.0", {}, ())
    assert [holder.pid for holder in second.holders] == [77, 78]
    assert driver.open == 0


def test_links_between_two_gpus(install: Any) -> None:
    install(Driver(3, links={0: ["00000000:19:00.0"] * 2, 1: ["00000000:18:00.0"] * 2}))
    assert [gpu.nvlinks for gpu in discover().gpus] == [{1: 2}, {0: 2}, {}]


def test_links_into_a_switch_reach_every_gpu(install: Any) -> None:
    install(Driver(4, links={index: [None, None] for index in range(4)}))
    assert [(gpu.nvlinks, gpu.nvswitch_links) for gpu in discover().gpus] == [({}, 2)] * 4


def test_a_gpu_that_fell_off_the_bus_is_named_lost(install: Any) -> None:
    install(Driver(3, lost={1}))
    found = discover().gpus
    assert [(gpu.index, gpu.lost) for gpu in found] == [(0, None), (1, "GPU is lost"), (2, None)]
    assert found[1].memory_bytes == 0


def test_links_to_a_lost_gpu_are_no_links_to_a_switch(install: Any) -> None:
    """Else the two that remain would look like peers by that switch."""
    install(Driver(3, lost={2}, links={0: ["00000000:1A:00.0"] * 2, 1: ["00000000:1A:00.0"] * 2}))
    assert [(gpu.nvlinks, gpu.nvswitch_links) for gpu in discover().gpus] == [({}, 0)] * 3


def test_a_driver_that_does_not_tell_what_a_link_ends_in(install: Any) -> None:
    install(Driver(1, refused={"nvmlDeviceGetNvLinkRemoteDeviceType"}, links={0: [None]}))
    assert discover().gpus[0].nvswitch_links == 1


@pytest.mark.parametrize("call", [
    "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetNvLinkState", "nvmlSystemGetDriverVersion",
    "nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetPciInfo",
])  # fmt: skip
def test_what_a_driver_does_not_know_is_left_open(install: Any, call: str) -> None:
    install(Driver(2, refused={call}, links={0: [None]}))
    assert [gpu.uuid for gpu in discover().gpus] == ["GPU-0", "GPU-1"]


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_driver_that_does_not_answer_has_no_gpus(install: Any, call: str) -> None:
    driver = install(Driver(2, refused={call}))
    assert discover().gpus == ()
    assert driver.open == 0


@pytest.mark.parametrize("call", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"])
def test_a_driver_that_knows_no_gpu_any_more_has_lost_them(install: Any, call: str) -> None:
    driver = install(Driver(2, refused={call}))
    assert [gpu.lost for gpu in discover().gpus] == [call, call]
    assert driver.open == 0


def test_slices_of_a_gpu(install: Any) -> None:
    install(Driver(2, slices={1: {0: "3g.71gb", 2: "1g.18gb"}}))
    whole, sliced = discover().gpus
    assert (whole.mig_enabled, whole.mig) == (False, ())
    assert sliced.mig_enabled
    assert [(slice_.index, slice_.uuid, slice_.profile, slice_.memory_bytes) for slice_ in sliced.mig] == [
        (0, "MIG-3g.71gb", "3g.71gb", 71 * GIB),
        (2, "MIG-1g.18gb", "1g.18gb", 18 * GIB),
    ]


def test_a_gpus_place_is_read_from_sysfs(install: Any, tmp_path: Path) -> None:
    install(Driver(1))
    real = tmp_path / "sys/devices/pci0000:15/0000:15:01.0/0000:18:00.0"
    real.mkdir(parents=True)
    (real / "numa_node").write_text("1\n")
    (real / "local_cpulist").write_text("0-3,8\n")
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:18:00.0").symlink_to(real)
    (gpu,) = discover(tmp_path).gpus
    assert gpu.pci_path == ("pci0000:15", "0000:15:01.0", "0000:18:00.0")
    assert (gpu.numa, gpu.cores) == (1, (0, 1, 2, 3, 8))


@pytest.mark.parametrize(("file", "there"), [("dev/nvidiactl", True), ("dev/dxg", True), ("dev/null", False)])
def test_a_loaded_driver_shows_in_files(tmp_path: Path, file: str, there: bool) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / file).touch()
    assert has_driver(tmp_path) is there


def test_no_module_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert discover() == NvmlView()
    assert used_bytes(("GPU-0",)) == 0


def test_memory_in_use(install: Any) -> None:
    driver = install(Driver(4))
    assert used_bytes(("GPU-1", "GPU-3")) == 6 * GIB
    assert used_bytes(()) == 0
    assert driver.open == 0


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetMemoryInfo"])
def test_memory_in_use_that_is_not_told(install: Any, call: str) -> None:
    install(Driver(4, refused={call}))
    assert used_bytes(("GPU-1",)) == 0


def test_the_first_gpu_counts_too(install: Any) -> None:
    """A handle may be anything, even what is false."""
    install(Driver(1))
    assert used_bytes(("GPU-0",)) == GIB
