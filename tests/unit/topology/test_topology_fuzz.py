"""Whatever is thrown at it, `parse` answers with a Topology or a complete UsageError."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.errors import UsageError
from dynctl.topology.durations import parse_duration
from dynctl.topology.load import parse
from dynctl.topology.schema import Topology
from dynctl.topology.suggest import _all_keys

KEYS = [*sorted({name for _, name in _all_keys(Topology, "")}), "<<", "x-a", "worker ", "0"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["vllm", "30s", "auto", "builtin:tiny", "x", "0.0.0.0", "~/m", "yes"]),
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
    max_leaves=12,
)
YAMLISH = st.text(alphabet="abx-1:0 \n\t[]{}&*#!|>'\"%@,.?~\\\x00\ud800é", max_size=80)
BASE: dict[str, Any] = {"schema": 1, "name": "x", "model": "builtin:tiny", "roles": {"prefill": {}, "decode": {}}}


def answer(text: str, overrides: tuple[str, ...] = ()) -> None:
    result: Topology | UsageError
    try:
        result = parse(text, source="f.yaml", overrides=overrides)
    except UsageError as error:
        result = error
    if isinstance(result, UsageError):
        assert result.cause
        assert result.where
        assert result.why
        assert result.fix
        assert all(line.isprintable() and len(line) < 2000 for line in result.lines())


@settings(max_examples=100, deadline=None)
@given(YAMLISH)
def test_any_text(text: str) -> None:
    answer(text)
    answer("schema: 1\n" + text)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5))
def test_any_tree_over_a_good_base(tree: dict[str, Any]) -> None:
    answer(yaml.safe_dump({**BASE, **tree}, allow_unicode=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*KEYS, "roles", "decode"]), min_size=1, max_size=4), YAMLISH)
def test_any_override(path: list[str], value: str) -> None:
    answer(yaml.safe_dump(BASE), (".".join(path) + "=" + value,))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("300ms", 0.3), ("1h30m", 5400), ("1.5s", 1.5), (" 2s ", 2), ("1m30s500ms", 90.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1d", "0s", "1e3s", "s30", "721h", "٣s", "1s" * 40])
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)
