"""`dynctl hardware --json` beside `nvidia-smi -q -x`, field by field, on a machine that has a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]

SAMPLE = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
  <driver_version>580.65.06</driver_version><cuda_version>13.0</cuda_version>
  <gpu id="00000000:18:00.0">
    <product_name>NVIDIA H200</product_name><uuid>GPU-aaaa</uuid>
    <mig_mode><current_mig>Enabled</current_mig></mig_mode>
    <mig_devices><mig_device><index>0</index><fb_memory_usage><total>40448 MiB</total></fb_memory_usage></mig_device>
    </mig_devices>
    <fb_memory_usage><total>143771 MiB</total></fb_memory_usage>
    <processes>
      <process_info><pid>77</pid><type>C</type></process_info><process_info><pid>9</pid><type>G</type></process_info>
    </processes>
  </gpu>
</nvidia_smi_log>"""
GPU: dict[str, Any] = {
    **{"index": 0, "uuid": "GPU-aaaa", "name": "NVIDIA H200", "memory_bytes": 143771 * MIB, "pci": "0000:18:00.0"},
    **{"mig_enabled": True, "mig": [{"index": 0, "uuid": "MIG-b", "memory_bytes": 40448 * MIB}]},
    "holders": [{"pid": 77, "command": "python", "kind": "other"}],
}
HARDWARE: dict[str, Any] = {"driver": "580.65.06", "cuda": "13.0", "gpus": [GPU]}


def by_smi(text: str) -> dict[str, Any]:
    """What nvidia-smi says of the fields that a snapshot has too."""
    root = ET.fromstring(text)  # noqa: S314 - the driver's own tool
    gpus = [_gpu(index, element) for index, element in enumerate(root.findall("gpu"))]
    return {"driver": root.findtext("driver_version"), "cuda": root.findtext("cuda_version"), "gpus": gpus}


def _gpu(index: int, gpu: ET.Element) -> dict[str, Any]:
    domain, _, rest = gpu.get("id", "").lower().partition(":")
    slices = gpu.findall("mig_devices/mig_device")
    return {
        "index": index,
        "uuid": gpu.findtext("uuid"),
        "name": gpu.findtext("product_name"),
        "mib": _mib(gpu),
        "pci": f"{domain[-4:]}:{rest}",
        "mig_enabled": gpu.findtext("mig_mode/current_mig") == "Enabled",
        "mig": [(int(part.findtext("index", "")), _mib(part)) for part in slices],
        "pids": sorted(
            int(process.findtext("pid", ""))
            for process in gpu.findall("processes/process_info")
            if "C" in process.findtext("type", "")
        ),
    }


def _mib(element: ET.Element) -> int:
    return int(element.findtext("fb_memory_usage/total", "").removesuffix(" MiB"))


def by_snapshot(document: dict[str, Any]) -> dict[str, Any]:
    """The same fields of `hardware --json`; GPUs that NVML lost are not in nvidia-smi's list either."""
    gpus = [
        {
            **{name: gpu[name] for name in ("index", "uuid", "name", "pci", "mig_enabled")},
            "mib": gpu["memory_bytes"] // MIB,
            "mig": [(part["index"], part["memory_bytes"] // MIB) for part in gpu["mig"]],
            "pids": sorted(holder["pid"] for holder in gpu["holders"] if holder["pid"] is not None),
        }
        for gpu in document["gpus"]
        if not gpu.get("lost")
    ]
    return {"driver": document["driver"], "cuda": document["cuda"], "gpus": gpus}


def test_what_is_compared_agrees_on_a_sample() -> None:
    assert by_snapshot(HARDWARE) == by_smi(SAMPLE)


@pytest.mark.parametrize(("field", "value"), [
    ("uuid", "GPU-bbbb"), ("name", "NVIDIA H100"), ("memory_bytes", 1), ("pci", "0000:19:00.0"), ("index", 1),
    ("mig_enabled", False), ("mig", []), ("holders", []),
])  # fmt: skip
def test_each_field_that_differs_is_noticed(field: str, value: object) -> None:
    assert by_snapshot({**HARDWARE, "gpus": [{**GPU, field: value}]}) != by_smi(SAMPLE)


@pytest.mark.gpu
def test_the_snapshot_agrees_with_nvidia_smi() -> None:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        pytest.skip("no nvidia-smi: this machine has no NVIDIA driver")
    asked = subprocess.run([smi, "-q", "-x"], capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode != 0 or "<gpu " not in asked.stdout:
        pytest.skip(f"nvidia-smi shows no GPU: {(asked.stdout + asked.stderr).strip()[:200]}")
    command = [sys.executable, "-m", "dynctl", "hardware", "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    found, expected = by_snapshot(json.loads(shown.stdout)), by_smi(asked.stdout)
    holders = [holder for gpu in json.loads(shown.stdout)["gpus"] for holder in gpu["holders"]]
    if any(holder["pid"] is None for holder in holders):  # the pids of another namespace can't be compared
        for gpu in (*found["gpus"], *expected["gpus"]):
            gpu.pop("pids")
    assert found == expected
