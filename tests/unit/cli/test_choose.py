"""Which file and which run is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.cli import choose
from dynctl.errors import RunStateError, UsageError
from dynctl.hardware import nvml
from dynctl.runtime import recall
from dynctl.store import paths, run
from dynctl.store.run import RunStore
from tests.unit.plan.machines import gpus, made


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(paths, "runtime_dir", lambda: tmp_path)
    monkeypatch.setattr(paths, "SOCKET_PATH_BYTES", 1000)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("count", "profile"), [(0, "cpu-1p1d"), (2, "1p1d"), (8, "1p1d")])
def test_the_profile_that_fits(count: int, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "has_driver", lambda: True)
    monkeypatch.setattr(nvml, "discover", lambda: nvml.NvmlView(gpus=gpus(count).gpus))
    assert choose.default_file().name == f"{profile}.yaml"
    assert choose.topology(None, []).name == profile


def test_one_gpu_has_a_profile_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "has_driver", lambda: True)
    monkeypatch.setattr(nvml, "discover", lambda: nvml.NvmlView(gpus=gpus(1).gpus))
    assert choose.default_file().exists()
    assert choose.topology(None, [])


def test_a_file_in_the_working_directory_comes_first(tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("schema: 1\nname: mine\nmodel: builtin:tiny\nroles: {worker: }\n")
    assert choose.topology(None, []).name == "mine"


def lay(*names: str) -> None:
    for name in names:
        RunStore(name).create(made(), "1")


def alive(monkeypatch: pytest.MonkeyPatch, *, supervised: tuple[str, ...] = (), left: tuple[str, ...] = ()) -> None:
    monkeypatch.setattr(run, "is_supervised", lambda name: name in supervised)
    monkeypatch.setattr(recall, "live_processes", lambda store: [1] if store.name in left else [])


@pytest.mark.parametrize(("laid", "supervised", "left", "chosen"), [
    (("a",), (), (), "a"),  # the only one that is known, though it has ended
    (("a", "b"), ("b",), (), "b"),
    (("a", "b"), (), ("a",), "a"),
    (("a", "b"), ("b",), ("a",), "b"),
])  # fmt: skip
def test_the_run_that_is_meant(
    laid: tuple[str, ...],
    supervised: tuple[str, ...],
    left: tuple[str, ...],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lay(*laid)
    alive(monkeypatch, supervised=supervised, left=left)
    assert choose.run(None).name == chosen


def test_several_runs_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    lay("a", "b", "c")
    alive(monkeypatch, supervised=("a", "c"))
    with pytest.raises(UsageError, match="several runs: name one") as caught:
        choose.run(None)
    assert caught.value.why == ("a, c",)
    assert choose.run("b").name == "b"


def test_several_runs_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    lay("a", "b")
    alive(monkeypatch)
    with pytest.raises(RunStateError, match="nothing is running") as caught:
        choose.run(None)
    assert "a, b" in caught.value.why[0]


def test_a_run_that_nobody_knows() -> None:
    lay("a")
    with pytest.raises(RunStateError, match="there is no run `ghost`") as caught:
        choose.run("ghost")
    assert "a" in caught.value.why[0]
