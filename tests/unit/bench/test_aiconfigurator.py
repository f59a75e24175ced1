"""AIConfigurator in the place of our arithmetic: its tables are read, its words are told, its split is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dynctl.bench.aiconfigurator_rows import advice
from dynctl.cli.size_answer import Asked, answer
from dynctl.errors import DynctlError, HostError, RuntimeFailure, UsageError
from dynctl.topology.load import load

TABLES = Path(__file__).parents[2] / "data" / "aiconfigurator"
"""Of version 0.12.0: Qwen3-32B-FP8 on 8 h200_sxm, 4000 and 500 tokens, TTFT 600 ms, TPOT 50 ms, vLLM 0.24."""
STAND_IN = """
import json, pathlib, shutil, sys
argv = sys.argv[1:]
if "unknown" in argv:
    sys.exit("no such system")
for kind in ("agg", "disagg"):
    folder = pathlib.Path(argv[argv.index("--save-dir") + 1]) / "result" / kind
    folder.mkdir(parents=True)
    shutil.copy(pathlib.Path(TABLES) / f"{kind}.csv", folder / "best_config_topn.csv")
pathlib.Path(SEEN).write_text(json.dumps(argv))
"""


def asked(**changes: object) -> Asked:
    base = {"from_bench": None, "prefill_tok_s": None, "decode_tok_s": None, "isl": "4000", "osl": "500", "gpus": 8}
    base |= {"prefill_gpus": 1, "decode_gpus": 1, "slo": "ttft=600ms,itl=50ms", "hit": 0.0, "model": "org/m"}
    return Asked(**{**base, "aiconfigurator": True, "system": "h200_sxm", **changes})  # type: ignore[arg-type]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the command, which leaves its arguments there."""
    command, path = tmp_path / "aiconfigurator", tmp_path / "seen.json"
    code = STAND_IN.replace("TABLES", repr(str(TABLES))).replace("SEEN", repr(str(path)))
    command.write_text(f"#!{sys.executable}\n{code}")
    command.chmod(0o755)
    monkeypatch.setenv("AICONFIGURATOR", str(command))
    return path


def test_its_tables() -> None:
    """Four replicas of one prefill and one decode worker on eight GPUs, 1.22 times its best aggregated layout."""
    found, shape = advice((TABLES / "disagg.csv").read_text(), (TABLES / "agg.csv").read_text(), 8)
    assert found.best is not None
    assert (found.best.prefill, found.best.decode, found.best.gpus, found.best.limited_by) == (4, 4, 8, "prefill")
    assert found.best.requests_per_s == pytest.approx(4 * 3.182)
    assert found.of_ideal == pytest.approx(1.591 / 1.309)
    assert (shape.prefill_gpus, shape.decode_gpus) == (1, 1)
    assert "122% of its best aggregated layout" in found.says[1]


def test_an_empty_table_is_no_configuration() -> None:
    header = (TABLES / "disagg.csv").read_text().splitlines()[0]
    found, _ = advice(header, (TABLES / "agg.csv").read_text(), 8)
    assert found.best is None
    assert "no disaggregated layout" in found.says[0]


def test_size_asks_it_and_writes_its_split(seen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "split.yaml"
    assert answer(asked(output=path), as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["source"], document["best"]["prefill"]) == ("AIConfigurator", 4)
    argv = json.loads(seen.read_text())
    for name, value in {"--ttft": "600", "--tpot": "50", "--isl": "4000", "--system": "h200_sxm"}.items():
        assert argv[argv.index(name) + 1] == value
    assert {name: role.workers for name, role in load(path).roles.present()} == {"prefill": 4, "decode": 4}


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"system": None}, UsageError, "needs a model and a kind of GPU"),
        ({"isl": None}, UsageError, "not known: --isl"),
        ({"system": "unknown"}, RuntimeFailure, "failed with exit code 1"),
    ],
)
def test_what_is_missing_or_fails(seen: Path, changed: dict[str, object], kind: type[DynctlError], said: str) -> None:
    with pytest.raises(kind, match=said):
        answer(asked(**changed), as_json=True)


def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AICONFIGURATOR", "/nowhere/aiconfigurator")
    with pytest.raises(HostError, match="not installed") as error:
        answer(asked(), as_json=True)
    assert "pip install aiconfigurator" in str(error.value.fix)
