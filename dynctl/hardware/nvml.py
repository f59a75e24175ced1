"""GPUs by NVML, their place by sysfs. A machine without NVML, or whose driver does not answer, has none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from dynctl.hardware import sysfs
from dynctl.hardware.holders import HolderLookup, no_runs
from dynctl.hardware.values import Gpu, Holder, MigDevice


class NvmlView(NamedTuple):
    """What NVML reports: GPUs, the driver's version and the newest CUDA it supports ("13.0")."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None


DRIVER_FILES = ("dev/nvidiactl", "proc/driver/nvidia", "dev/dxg", "proc/driver/nvgpu")


def has_driver(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver is loaded: without one NVML need not be asked (importing its binding takes a while)."""
    return any((root / name).exists() for name in DRIVER_FILES)


def discover(root: Path = Path("/"), holders: HolderLookup | None = None) -> NvmlView:
    """GPUs in NVML order, those that NVML lost included. Never raises."""
    try:
        import pynvml
    except ImportError:
        return NvmlView()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return NvmlView()
    try:
        return _Reader(pynvml, root, holders or HolderLookup(root, no_runs)).view()
    except pynvml.NVMLError:
        return NvmlView()
    finally:
        pynvml.nvmlShutdown()


class _Reader:
    """One look at all GPUs, with NVML open."""

    def __init__(self, nvml: Any, root: Path, holders: HolderLookup) -> None:
        self._nvml, self._root, self._holders = nvml, root, holders
        self._addresses: dict[str, int] = {}

    def view(self) -> NvmlView:
        nvml = self._nvml
        handles = {index: self._handle(index) for index in range(nvml.nvmlDeviceGetCount())}
        self._addresses = {
            _pci(nvml, handle): index for index, handle in handles.items() if not isinstance(handle, _Lost)
        }
        cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion)
        return NvmlView(
            gpus=tuple(self._gpu(index, handle) for index, handle in handles.items()),
            driver=_ask(nvml, nvml.nvmlSystemGetDriverVersion),
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        )

    def _handle(self, index: int) -> Any:
        """The device's handle, or why there is none: a GPU that fell off the bus still counts."""
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            self._nvml.nvmlDeviceGetUUID(handle)
        except self._nvml.NVMLError as error:
            return _Lost(str(error))
        return handle

    def _gpu(self, index: int, handle: Any) -> Gpu:
        nvml = self._nvml
        if isinstance(handle, _Lost):
            return Gpu(index=index, uuid=f"GPU-lost-{index}", name="lost GPU", memory_bytes=0, lost=handle.why)
        capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
        memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        links, switched = _nvlinks(nvml, handle, self._addresses)
        device = self._root / "sys/bus/pci/devices" / _pci(nvml, handle)
        place = sysfs.pci_device(self._root, device)
        mig_enabled, mig = self._mig(handle)
        return Gpu(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=_ask(nvml, nvml.nvmlDeviceGetName, handle) or "unknown GPU",
            memory_bytes=int(memory.total) if memory else 0,
            pci=_pci(nvml, handle),
            pci_path=place.path,
            numa=place.numa,
            cores=sysfs.cores(sysfs.text(device / "local_cpulist")),
            compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
            nvlinks=links,
            nvswitch_links=switched,
            mig_enabled=mig_enabled,
            mig=mig,
            holders=self._held_by(handle),
        )

    def _held_by(self, handle: Any) -> tuple[Holder, ...]:
        found = _ask(self._nvml, self._nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        return tuple(self._holders.holder(process.pid) for process in found)

    def _mig(self, handle: Any) -> tuple[bool, tuple[MigDevice, ...]]:
        """Whether MIG is on, and the slices there are: their slots may have gaps."""
        nvml = self._nvml
        mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
        if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return False, ()
        slots = _ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
        handles = ((slot, _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)) for slot in range(slots))
        return True, tuple(self._mig_device(slot, slice_) for slot, slice_ in handles if slice_ is not None)

    def _mig_device(self, slot: int, handle: Any) -> MigDevice:
        nvml = self._nvml
        memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        profile = re.search(r"MIG (\S+)", _ask(nvml, nvml.nvmlDeviceGetName, handle) or "")
        return MigDevice(
            index=slot,
            uuid=_ask(nvml, nvml.nvmlDeviceGetUUID, handle) or "",
            profile=profile[1] if profile else None,
            memory_bytes=int(memory.total) if memory else 0,
            holders=self._held_by(handle),
        )


class _Lost(NamedTuple):
    why: str


def _nvlinks(nvml: Any, handle: Any, addresses: dict[str, int]) -> tuple[dict[int, int], int]:
    """Active links by peer, and how many end in a switch. A link to a GPU that is lost is neither."""
    peers: dict[int, int] = {}
    switched = 0
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        if _ask(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link) != nvml.NVML_FEATURE_ENABLED:
            continue
        remote = _ask(nvml, nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        index = addresses.get(_address(remote.busId)) if remote else None
        if index is not None:
            peers[index] = peers.get(index, 0) + 1
        elif _ask(nvml, nvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link) != nvml.NVML_NVLINK_DEVICE_TYPE_GPU:
            switched += 1
    return peers, switched


def _pci(nvml: Any, handle: Any) -> str:
    info = _ask(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    return _address(info.busId) if info else ""


def _address(bus_id: str | bytes) -> str:
    """NVML's "00000000:18:00.0" as sysfs spells it, "0000:18:00.0"."""
    text = (bus_id.decode() if isinstance(bus_id, bytes) else bus_id).lower()
    domain, _, rest = text.partition(":")
    return f"{domain[-4:]}:{rest}"


def _ask(nvml: Any, call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except nvml.NVMLError:
        return None


def used_bytes(uuids: tuple[str, ...]) -> int:
    """Memory in use on these GPUs, all of it; 0 where NVML does not answer."""
    try:
        import pynvml
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        handles = (_ask(pynvml, pynvml.nvmlDeviceGetHandleByUUID, uuid) for uuid in uuids)
        infos = (_ask(pynvml, pynvml.nvmlDeviceGetMemoryInfo, handle) for handle in handles if handle is not None)
        return sum(int(info.used) for info in infos if info)
    finally:
        pynvml.nvmlShutdown()
