"""GPUs by NVML. A machine without NVML, or whose driver does not answer, has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dynctl.hardware.values import Gpu, Holder


class NvmlView(NamedTuple):
    """What NVML reports: GPUs, the driver's version and the newest CUDA it supports ("13.0")."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None


DRIVER_FILES = ("dev/nvidiactl", "proc/driver/nvidia", "dev/dxg", "proc/driver/nvgpu")


def has_driver(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver is loaded: without one NVML need not be asked (importing its binding takes a while)."""
    return any((root / name).exists() for name in DRIVER_FILES)


def discover() -> NvmlView:
    """GPUs in NVML order. Never raises."""
    try:
        import pynvml
    except ImportError:
        return NvmlView()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return NvmlView()
    try:
        return _read(pynvml)
    except pynvml.NVMLError:
        return NvmlView()
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any) -> NvmlView:
    handles = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            nvml.nvmlDeviceGetUUID(handle)
            handles.append((index, handle))
        except nvml.NVMLError:
            continue  # a GPU that fell off the bus is not there
    addresses = {_pci(nvml, handle): index for index, handle in handles}
    cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion)
    return NvmlView(
        gpus=tuple(_gpu(nvml, index, handle, addresses) for index, handle in handles),
        driver=_ask(nvml, nvml.nvmlSystemGetDriverVersion),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
    )


def _gpu(nvml: Any, index: int, handle: Any, addresses: dict[str, int]) -> Gpu:
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    links, switched = _nvlinks(nvml, handle, addresses)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=_ask(nvml, nvml.nvmlDeviceGetName, handle) or "unknown GPU",
        memory_bytes=int(memory.total) if memory else 0,
        pci=_pci(nvml, handle),
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        nvlinks=links,
        nvswitch_links=switched,
        holders=tuple(Holder(pid=p.pid) for p in _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()),
    )


def _nvlinks(nvml: Any, handle: Any, addresses: dict[str, int]) -> tuple[dict[int, int], int]:
    """Active links by peer, and how many end in a switch (or in anything else that is no GPU of this machine)."""
    peers: dict[int, int] = {}
    switched = 0
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        if _ask(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link) != nvml.NVML_FEATURE_ENABLED:
            continue
        remote = _ask(nvml, nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        index = addresses.get(_address(remote.busId)) if remote else None
        if index is None:
            switched += 1
        else:
            peers[index] = peers.get(index, 0) + 1
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
