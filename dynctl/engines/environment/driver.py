"""Which build of the engine this machine's driver can run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dynctl.errors import HostError
from dynctl.hardware.nvml import has_driver

CUDA_MAJOR = 13
# The first driver that runs every CUDA 13.x program ("minor version compatibility"): CUDA Toolkit 13 release notes,
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ (for CUDA 12.x the same table says 525.60.13).
OLDEST_DRIVER = "580.65.06"
NVIDIA_PCI_VENDOR = "0x10de"


class Driver(msgspec.Struct, frozen=True):
    """What NVML says of the driver: its version, the newest CUDA it runs (1000 * major + 10 * minor), GPUs it sees."""

    version: str
    cuda: int
    gpus: int


def read_driver() -> Driver | None:
    """The NVIDIA driver by NVML; None where there is no NVML, or it does not answer."""
    if not has_driver():
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        # The v2 call asks the CUDA library that programs would load, so a forward-compatibility package counts.
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return Driver(str(pynvml.nvmlSystemGetDriverVersion()), cuda, int(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def flavour_for(driver: Driver | None) -> str:
    """`cpu`, or `cuda13` where NVML finds a GPU. Raises HostError where the driver is too old for that."""
    if driver is None or driver.gpus == 0:
        return "cpu"
    if driver.cuda >= CUDA_MAJOR * 1000:
        return f"cuda{CUDA_MAJOR}"
    raise HostError(
        f"the NVIDIA driver {driver.version} is too old for the engine: it needs {OLDEST_DRIVER} or newer",
        why=f"this driver runs CUDA {driver.cuda // 1000}.{driver.cuda % 1000 // 10}; "
        f"the engine's build is for CUDA {CUDA_MAJOR}",
        fix=f"install driver {OLDEST_DRIVER} or newer, "
        "or name an interpreter with an engine built for this driver (python: in the topology)",
    )


def cuda_major(flavour: str) -> int | None:
    """13 for `cuda13`, None for `cpu`."""
    return int(flavour.removeprefix("cuda")) if flavour.startswith("cuda") else None


def unheard_gpus(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """NVIDIA display and 3D controllers on the PCI bus: more than none while NVML is silent means a missing driver."""
    found = 0
    for device in devices.glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        found += vendor == NVIDIA_PCI_VENDOR and kind.startswith("0x03")
    return found
