"""`dynctl size --output`: what it writes is a topology that dynctl reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.cli.size_answer import Asked, answer
from dynctl.errors import UsageError
from dynctl.topology.load import load

ASKED = {
    "from_bench": None,
    "prefill_tok_s": 30000.0,
    "decode_tok_s": 1500.0,
    "isl": "3000",
    "osl": "150",
    "gpus": 8,
    "prefill_gpus": 1,
    "decode_gpus": 2,
    "slo": "ttft=300ms",
    "hit": 0.0,
    "model": "org/model-7B",
}


def test_the_split_is_written_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "split.yaml"
    assert answer(Asked(**ASKED, output=path), as_json=False) == 0  # type: ignore[arg-type]
    made = load(path)
    assert made.name == "split"
    assert made.model == "org/model-7B"
    assert made.slo is not None
    assert made.slo.ttft_ms == 300
    roles = dict(made.roles.present())
    said = capsys.readouterr().out
    assert f"{roles['prefill'].workers} prefill and {roles['decode'].workers} decode workers" in " ".join(said.split())
    assert roles["decode"].gpus_per_worker == 2
    with pytest.raises(UsageError, match="already"):
        answer(Asked(**ASKED, output=path), as_json=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"model": None}, "no model"), ({"slo": "ttft=1ms"}, "no split"), ({"gpus": 1}, "no split")],
)
def test_nothing_is_written_where_there_is_nothing_to_write(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        answer(Asked(**{**ASKED, **changed}, output=tmp_path / "x.yaml"), as_json=False)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
