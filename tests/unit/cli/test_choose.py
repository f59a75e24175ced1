"""Which file and which run is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.cli import choose
from dynctl.cli.app import run as run_command
from dynctl.errors import RunStateError, UsageError
from dynctl.hardware import discover
from dynctl.hardware.values import Hardware
from dynctl.runtime import recall
from dynctl.store import paths, run
from dynctl.store.run import RunStore
from dynctl.topology.load import load
from tests.unit.plan.machines import cpu, gpus, made


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(paths, "runtime_dir", lambda: tmp_path)
    monkeypatch.setattr(paths, "SOCKET_PATH_BYTES", 1000)
    monkeypatch.chdir(tmp_path)


def on(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "discover", lambda **_: machine)


@pytest.mark.parametrize(
    ("count", "name", "roles"),
    [
        (0, "cpu-1p1d", {"prefill": 1, "decode": 1}),
        (2, "1p1d", {"prefill": 1, "decode": 1}),
        (3, "2p1d", {"prefill": 2, "decode": 1}),
        (8, "4p4d", {"prefill": 4, "decode": 4}),
    ],
)
def test_what_fits_the_machine(
    count: int, name: str, roles: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on(gpus(count) if count else cpu(), monkeypatch)
    chosen = choose.topology(None, [])
    assert chosen.name == name
    assert {role: spec.workers for role, spec in chosen.roles.present()} == roles


def test_without_a_gpu_it_is_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    on(cpu(), monkeypatch)
    assert choose.topology(None, []) == load(choose.profiles_dir() / "cpu-1p1d.yaml")


def test_one_gpu_has_a_layout_too(monkeypatch: pytest.MonkeyPatch) -> None:
    on(gpus(1), monkeypatch)
    assert choose.topology(None, [])


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_init_writes_what_up_would_start(count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on(gpus(count) if count else cpu(), monkeypatch)
    chosen = choose.topology(None, [])
    assert run_command(["init", "mine.yaml"]) == 0
    written = load(tmp_path / "mine.yaml")
    assert (written.name, written.model, written.roles) == (chosen.name, chosen.model, chosen.roles)


def test_overrides_apply_to_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    on(gpus(8), monkeypatch)
    assert choose.topology(None, ["roles.decode.workers=1"]).role("decode").workers == 1


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
