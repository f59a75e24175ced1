"""Reading another machine from a file, and planning for it: through the command, with exit codes."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import msgspec
import pytest

from dynctl.cli.app import run
from dynctl.errors import UsageError
from dynctl.hardware import imports
from tests.unit.hardware.matrices import HGX, PAIRS, TOPOLOGIES, matrix
from tests.unit.hardware.test_matrix import BAD as BAD_MATRICES
from tests.unit.hardware.test_nccl_xml import BAD as BAD_XML
from tests.unit.hardware.test_snapshot import BAD as BAD_SNAPSHOTS
from tests.unit.plan.machines import gpus

TOPOLOGY = (
    "schema: 1\nname: remote\nmodel: /models/there\npython: /opt/there/bin/python\n"
    "roles: {prefill: {workers: 2, tp: 2}, decode: {tp: 4}}\n"
)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop: no engine, no model, and nothing of the tester's own."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("DYNCTL_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")  # noqa: S108 - a socket's path must be short
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.yaml").write_text(TOPOLOGY)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(arguments)
    out, err = capsys.readouterr()
    assert (out, err[:7]) == ("", "error: ")
    assert "Traceback" not in err
    return code, err


@pytest.mark.parametrize("file", sorted(TOPOLOGIES.iterdir()), ids=lambda path: path.name)
def test_the_format_is_told_from_the_content(file: Path) -> None:
    found = imports.load(file)
    assert found.source == ("nccl xml" if file.suffix == ".xml" else "nvidia-smi topo -m")
    again = imports.parse(b"\xef\xbb\xbf" + file.read_bytes(), str(file))
    assert again == found
    assert imports.parse(b"\n " + msgspec.json.encode(found), "x") == found


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HGX.read_bytes())))
    assert imports.load(Path("-")) == imports.load(HGX)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is empty"), (b"  \n", "is empty"), (b"\xff\xfeG\x00P\x00", "not text"), (b"\x1f\x8b\x08", "not text"),
])  # fmt: skip
def test_no_text_at_all(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        imports.load(tmp_path / "m")


def test_a_file_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MAX_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        imports.load(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["nowhere.txt", "."])
@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_file_that_can_not_be_read(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = refused([command, "t.yaml", "--hardware", name], capsys)
    assert code == 2
    assert "  why " in err
    assert "  fix " in err


WRONG = {
    **{f"matrix: {case}": text.encode() for case, (text, _, _) in BAD_MATRICES.items()},
    **{f"XML: {case}": data for case, (data, _, _) in BAD_XML.items()},
    **{f"snapshot: {case}": data for case, (data, _) in BAD_SNAPSHOTS.items()},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_exits_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m").write_bytes(WRONG[case])
    code, err = refused(["plan", "t.yaml", "--hardware", "m"], capsys)
    assert code == 2
    assert "  at  m" in err


def test_a_plan_for_another_machine_needs_neither_its_engine_nor_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "t.yaml", "--hardware", str(HGX), "--json"]) == 0
    plan = msgspec.json.decode(capsys.readouterr().out)
    workers = plan["processes"][:3]
    assert sorted(gpu for worker in workers for gpu in worker["gpus"]) == list(range(8))
    assert workers[0]["gpu_uuids"][0].startswith("GPU-unknown-")
    assert {worker["argv"][0] for worker in workers} == {"/opt/there/bin/python"}
    assert {pair["path"] for pair in plan["transport"]["pairs"]} == {"nvlink"}
    said = "\n".join(plan["warnings"])
    for words in (
        "another machine",
        "`/opt/there/bin/python` stands",
        "/models/there is not on this",
        "GPU-unknown-0",
        "ACTIVE",
    ):
        assert words in said


def test_without_python_the_interpreter_is_a_placeholder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.yaml").write_text(TOPOLOGY.replace("python: /opt/there/bin/python\n", ""))
    assert run(["plan", "t.yaml", "--hardware", str(HGX), "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["processes"][0]["argv"][0] == "python3"


def test_ports_taken_here_do_not_matter_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a port of this host was looked at")

    monkeypatch.setattr("dynctl.preflight.ports.holder", refuse)
    assert run(["plan", "t.yaml", "--hardware", str(PAIRS)]) == 0


def test_the_same_file_gives_the_same_plan(capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    for _ in range(2):
        assert run(["plan", "t.yaml", "--hardware", str(TOPOLOGIES / "hgx-h200-dump.xml"), "--json"]) == 0
        plans.append(capsys.readouterr().out)
    assert plans[0] == plans[1]


def test_validate_says_whether_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "t.yaml", "--hardware", str(HGX)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"remote: valid; fits {HGX}: 3 workers on 8 GPUs, KV over nvlink\n" in err
    (tmp_path / "small.txt").write_text(matrix(2, [], lambda a, b: "NV4"))
    code, err = refused(["validate", "t.yaml", "--hardware", "small.txt"], capsys)
    assert code == 3
    code, _ = refused(["validate", "t.yaml", "--hardware", "small.txt", "--set", "roles.decode.tp=0"], capsys)
    assert code == 2


def test_a_floor_that_the_other_machine_can_not_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flat.txt").write_text(matrix(8, [], lambda a, b: "NODE"))
    code, _ = refused(["plan", "t.yaml", "--hardware", "flat.txt", "--set", "transport.require=nvlink"], capsys)
    assert code == 4


def test_what_fits_the_other_machine_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(gpus(2)))
    assert run(["plan", "--hardware", "a.json", "--json"]) == 0
    plan = msgspec.json.decode(capsys.readouterr().out)
    assert [process["gpus"] for process in plan["processes"]][:2] == [[0], [1]]


def test_the_command_prints_that_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["hardware", "--hardware", str(HGX)]) == 0
    assert "GPU-unknown-7" in capsys.readouterr().out
    assert run(["hardware", "--hardware", str(HGX), "--json"]) == 0
    assert imports.parse(capsys.readouterr().out.encode(), "x") == imports.load(HGX)
    code, err = refused(["hardware", "--hardware", "t.yaml"], capsys)
    assert code == 2
    assert "no topology matrix" in err


def test_the_commands_snapshot_of_this_machine_can_be_planned_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["hardware", "--json"]) == 0
    Path("here.json").write_text(capsys.readouterr().out)
    assert run(["hardware", "--hardware", "here.json"]) == 0
    assert imports.load(Path("here.json")).source == "snapshot"
