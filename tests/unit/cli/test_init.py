"""`dynctl init`, through the command: what it writes loads and plans, and what it must not do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dynctl.cli.app import run
from dynctl.hardware import discover
from dynctl.hardware.values import Hardware, Holder, MigDevice
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan
from dynctl.topology.load import load
from tests.unit.plan.machines import GIB, cpu, facts, gpus
from tests.unit.plan.test_plan_sizing import DEEPSEEK_V3, FP8, LLAMA_70B, QWEN3_8B, QWEN3_32B

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("HF_HOME", "HF_HUB_CACHE", "DYNCTL_ENGINE_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda machine: monkeypatch.setattr(discover, "discover", lambda **_: machine)


def of(count: int, memory_gib: int = 141, **changes: Any) -> Hardware:
    """A machine of GPUs with so much memory."""
    made = gpus(count, **changes)
    smaller = tuple(msgspec.structs.replace(gpu, memory_bytes=memory_gib * GIB) for gpu in made.gpus)
    return msgspec.structs.replace(made, gpus=smaller)


def without(machine: Hardware, index: int, **changes: Any) -> Hardware:
    """One of its GPUs is changed."""
    changed = tuple(msgspec.structs.replace(gpu, **changes) if gpu.index == index else gpu for gpu in machine.gpus)
    return msgspec.structs.replace(machine, gpus=changed)


def model_dir(path: Path, config: dict[str, Any], total_size: object = None) -> str:
    path.mkdir()
    (path / "config.json").write_bytes(msgspec.json.encode(config))
    if total_size is not None:
        index = {"metadata": {"total_size": total_size}, "weight_map": {}}
        (path / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))
    return str(path)


def planned(file: Path, machine: Hardware) -> Plan:
    return resolve(load(file), facts(machine))


def pools(file: Path) -> dict[str, tuple[int, int]]:
    return {role: (spec.workers, spec.tp) for role, spec in load(file).roles.present()}


@pytest.mark.parametrize(
    ("config", "machine", "expected"),
    [
        (QWEN3_8B, of(2, 80), {"prefill": (1, 1), "decode": (1, 1)}),
        (QWEN3_8B, of(8, 80), {"prefill": (4, 1), "decode": (4, 1)}),
        (QWEN3_8B, of(3, 80), {"prefill": (2, 1), "decode": (1, 1)}),
        (QWEN3_32B, of(8, 80), {"prefill": (2, 2), "decode": (1, 4)}),
        (QWEN3_32B, of(8, 141), {"prefill": (4, 1), "decode": (4, 1)}),
        ({**QWEN3_32B, **FP8}, of(4, 80), {"prefill": (2, 1), "decode": (2, 1)}),
        (QWEN3_32B, of(2, 80), {"worker": (1, 2)}),
        (QWEN3_32B, of(7, 80), {"prefill": (2, 2), "decode": (1, 2)}),
        (LLAMA_70B, of(8, 80), {"prefill": (1, 4), "decode": (1, 4)}),
        (LLAMA_70B, of(8, 141), {"prefill": (2, 2), "decode": (1, 4)}),
        (DEEPSEEK_V3, of(8, 141), {"worker": (1, 8)}),
    ],
)
def test_the_layout_by_model_and_machine(
    config: dict[str, Any], machine: Hardware, expected: dict[str, tuple[int, int]], tmp_path: Path, on: Any
) -> None:
    on(machine)
    assert run(["init", "--model", model_dir(tmp_path / "m", config)]) == 0
    assert pools(Path("topology.yaml")) == expected
    made = planned(Path("topology.yaml"), machine)
    taken = [gpu for process in made.processes for gpu in process.gpus]
    assert len(taken) == len(set(taken)) == sum(workers * tp for workers, tp in expected.values())


@pytest.mark.parametrize("count", range(17))
@pytest.mark.parametrize("memory_gib", [0, 16, 80])
@pytest.mark.parametrize("nvlink", [True, False])
def test_whatever_the_machine_what_is_written_plans(count: int, memory_gib: int, nvlink: bool, on: Any) -> None:
    machine = of(count, memory_gib, nvlink=nvlink) if count else cpu(memory_gib + 1)
    on(machine)
    assert run(["init"]) == 0
    assert planned(Path("topology.yaml"), machine).workers()


@pytest.mark.parametrize(
    ("config", "memory_gib", "roles"),
    [(QWEN3_8B, 80, ["prefill", "decode"]), (QWEN3_8B, 24, ["worker"]), (QWEN3_32B, 141, ["worker"])],
)
def test_one_gpu_is_shared_where_two_copies_fit(
    config: dict[str, Any], memory_gib: int, roles: list[str], tmp_path: Path, on: Any, capsys: Capture
) -> None:
    machine = of(1, memory_gib)
    on(machine)
    assert run(["init", "--model", model_dir(tmp_path / "m", config)]) == 0
    chosen = load(Path("topology.yaml")).roles.present()
    assert [role for role, _ in chosen] == roles
    assert {spec.share for _, spec in chosen} == ({0.45} if len(roles) == 2 else {None})
    assert [worker.gpus for worker in planned(Path("topology.yaml"), machine).workers()] == [(0,)] * len(roles)
    assert ("for development" if len(roles) == 2 else "no KV moves") in capsys.readouterr().err


def test_gpus_that_are_held_lost_small_or_sliced_do_not_count(on: Any, capsys: Capture) -> None:
    machine = without(of(8, 80), 0, holders=(Holder(pid=77, command="train.py"),))
    machine = without(without(machine, 1, lost="fell off the bus"), 2, memory_bytes=8 * GIB)
    machine = without(machine, 3, mig_enabled=True, mig=(MigDevice(index=0, uuid="MIG-1", memory_bytes=9 * GIB),))
    on(machine)
    assert run(["init"]) == 0
    assert pools(Path("topology.yaml")) == {"prefill": (2, 1), "decode": (2, 1)}
    err = capsys.readouterr().err
    assert "4 of 8 GPUs are free" in err
    assert "GPU 0 is held by pid 77" in err
    assert "GPU 1 is lost: fell off the bus" in err


def test_it_says_why_and_prints_the_path(tmp_path: Path, on: Any, capsys: Capture) -> None:
    on(of(8, 80))
    assert run(["init", "mine.yaml", "--model", model_dir(tmp_path / "m", QWEN3_32B, 65_524_246_528)]) == 0
    out, err = capsys.readouterr()
    assert out == "mine.yaml\n"
    assert "32.8 B parameters, 61.0 GiB of weights (model.safetensors.index.json)" in err
    assert "tp 2: 30.5 GiB on each GPU of 80.0 GiB, 39.5 GiB left for KV" in err
    assert "2P(tp2) 1D(tp4) on 8 GPUs" in err
    assert "next: `dynctl plan mine.yaml`" in err
    text = Path("mine.yaml").read_text()
    assert "# - 2P(tp2) 1D(tp4) on 8 GPUs" in text
    assert load(Path("mine.yaml")).name == "m-2p1d"


@pytest.mark.parametrize("total", [-1, True, "many", 0, 1 << 70])
def test_an_index_that_makes_no_sense_is_passed_over(total: object, tmp_path: Path, on: Any, capsys: Capture) -> None:
    on(of(8, 80))
    assert run(["init", "--model", model_dir(tmp_path / "m", QWEN3_32B, total)]) == 0
    assert "61.0 GiB of weights (config.json)" in capsys.readouterr().err


def test_a_model_nobody_knows_is_a_guess_and_says_how_to_know(on: Any, capsys: Capture) -> None:
    on(of(4, 80))
    assert run(["init", "--model", "some/model"]) == 0
    err = capsys.readouterr().err
    assert "tp 1 is a guess" in err
    assert "`hf download some/model config.json`" in err
    assert load(Path("topology.yaml")).name == "model-2p2d"


def test_a_cached_hub_model_is_known(tmp_path: Path, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "hub/models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots").mkdir()
    model_dir(repository / "snapshots/abc", LLAMA_70B)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    on(of(8, 141))
    assert run(["init", "--model", "some/model"]) == 0
    assert pools(Path("topology.yaml")) == {"prefill": (2, 2), "decode": (1, 4)}


def test_for_another_machine(on: Any, tmp_path: Path, capsys: Capture) -> None:
    on(cpu())
    (tmp_path / "there.json").write_bytes(msgspec.json.encode(of(8, 80)))
    assert run(["init", "--hardware", "there.json", "--model", "/models/over-there", "--name", "there"]) == 0
    made = load(Path("topology.yaml"))
    assert (made.name, made.model, made.role("prefill").workers) == ("there", "/models/over-there", 4)
    assert "--hardware there.json" in capsys.readouterr().err
    assert run(["validate", "topology.yaml", "--hardware", "there.json"]) == 0


# what it refuses


def test_it_never_overwrites_without_force(on: Any, capsys: Capture) -> None:
    on(of(2))
    Path("topology.yaml").write_text("mine")
    assert run(["init"]) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("topology.yaml").read_text() == "mine"
    assert run(["init", "--force"]) == 0
    assert load(Path("topology.yaml"))
    assert os.listdir(".") == ["topology.yaml"]


def test_a_link_that_leads_nowhere_is_a_file_too(on: Any) -> None:
    on(of(2))
    Path("topology.yaml").symlink_to("elsewhere.yaml")
    assert run(["init"]) == 2
    assert not Path("elsewhere.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "./nowhere"], "no model at"),
        (["--model", "a b"], "must be a hub id"),
        (["--model", "builtin:huge"], "built-in model"),
        (["--name", "Not A Name"], "a-z, 0-9"),
        (["no/such/directory/t.yaml"], "no such directory"),
        (["."], "directory"),
        (["--hardware", "missing.json"], "missing.json"),
    ],
)
def test_what_is_wrong_on_the_command_line(arguments: list[str], words: str, on: Any, capsys: Capture) -> None:
    on(of(2))
    assert run(["init", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "  fix " in err
    assert os.listdir(".") == []


@pytest.mark.parametrize(
    ("config", "machine", "words"),
    [
        (LLAMA_70B, of(2, 80), "it needs 4 such GPUs"),
        (DEEPSEEK_V3, of(8, 80), "16 such GPUs"),
        (QWEN3_8B, gpus(2, busy=(0, 1)), "GPU 0 is held by pid 4000"),
        (QWEN3_8B, without(gpus(1), 0, lost="fell off the bus"), "fell off the bus"),
        (QWEN3_8B, without(gpus(1), 0, mig_enabled=True), "has no free slice"),
    ],
)
def test_what_does_not_fit_exits_3(
    config: dict[str, Any], machine: Hardware, words: str, tmp_path: Path, on: Any, capsys: Capture
) -> None:
    on(machine)
    assert run(["init", "--model", model_dir(tmp_path / "m", config)]) == 3
    err = capsys.readouterr().err
    assert words in err
    assert "  fix " in err
    assert not Path("topology.yaml").exists()


def test_a_directory_nobody_may_write(on: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    on(of(2))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "link", refuse)
    assert run(["init"]) == 3
    assert "can't be written" in capsys.readouterr().err
    assert os.listdir(".") == []


def test_a_file_that_appears_meanwhile_stays(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on(of(2))
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert run(["init"]) == 2
    assert Path("topology.yaml").read_text() == "theirs"


def test_odd_names_end_no_comment(on: Any) -> None:
    machine = without(of(3), 0, holders=(Holder(pid=1, command="x\nroles: {}\u2028y"),))
    on(msgspec.structs.replace(machine, hostname="h\nschema: 7"))
    assert run(["init"]) == 0
    assert planned(Path("topology.yaml"), machine)
