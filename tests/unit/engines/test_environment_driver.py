"""The NVIDIA driver: how it is read, and which build of the engine environment it can run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dynctl.engines.environment.driver import OLDEST_DRIVER, Driver, flavour_for, read_driver, unheard_gpus
from dynctl.errors import HostError

GPU = Driver(version="580.65.06", cuda=13000, gpus=8)


@pytest.mark.parametrize(
    ("driver", "flavour"),
    [
        (None, "cpu"),
        (Driver(version="580.65.06", cuda=13000, gpus=0), "cpu"),
        (GPU, "cuda13"),
        (Driver(version="550.54.15", cuda=13010, gpus=1), "cuda13"),  # with a forward-compatibility package
    ],
)
def test_flavour_follows_the_driver(driver: Driver | None, flavour: str) -> None:
    assert flavour_for(driver) == flavour


def test_an_old_driver_is_refused_with_the_minimum() -> None:
    with pytest.raises(HostError, match=OLDEST_DRIVER) as caught:
        flavour_for(Driver(version="535.104.05", cuda=12020, gpus=1))
    assert caught.value.exit_code == 3
    assert "CUDA 12.2" in caught.value.why[0]
    assert caught.value.fix


def test_driver_is_read_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynctl.engines.environment.driver.has_driver", lambda: True)
    nvml = ModuleType("pynvml")
    closed: list[bool] = []
    answers: dict[str, Callable[[], object]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: closed.append(True),
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlSystemGetDriverVersion": lambda: "580.65.06",
        "nvmlDeviceGetCount": lambda: 8,
    }
    for name, answer in answers.items():
        setattr(nvml, name, answer)
    nvml.NVMLError = OSError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert read_driver() == GPU
    assert closed == [True]

    def no_library() -> None:
        raise OSError

    nvml.nvmlInit = no_library  # type: ignore[attr-defined]
    assert read_driver() is None


def test_gpus_that_nvml_does_not_hear_are_counted(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x1002", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert unheard_gpus(tmp_path) == 1
