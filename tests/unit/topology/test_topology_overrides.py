"""`--set path=value` over a file."""

from __future__ import annotations

import pytest

from dynctl.errors import UsageError
from dynctl.topology.load import parse
from dynctl.topology.schema import Topology

TEXT = """\
schema: 1
name: x
model: builtin:tiny
x-env: &env {A: "1"}
transport: {env: *env}
roles:
  prefill: {env: *env}
  decode: {pin: [{nics: [mlx5_0]}]}
"""


def with_set(*overrides: str) -> Topology:
    return parse(TEXT, source="t.yaml", overrides=overrides)


def test_values_are_yaml() -> None:
    topology = with_set(
        "roles.prefill.workers=2", "transport.require=shm", "roles.decode.args={a: [1, true]}", "slo.ttft=1s"
    )
    assert topology.role("prefill").workers == 2
    assert topology.transport.require == "shm"
    assert topology.role("decode").args == {"a": [1, True]}
    assert topology.slo is not None
    assert topology.slo.ttft_ms == 1000.0


def test_missing_mappings_are_made_and_the_last_one_wins() -> None:
    topology = with_set("ready.timeout=1m", "frontend.port=1", "frontend.port=2")
    assert (topology.ready.timeout_s, topology.frontend.port) == (60.0, 2)


def test_a_value_may_contain_an_equals_sign_and_nothing_means_default() -> None:
    assert with_set("transport.env.X=a=b").transport.env == {"A": "1", "X": "a=b"}
    assert with_set("frontend.port=").frontend.port == 8000


def test_an_alias_is_changed_in_one_place_only() -> None:
    topology = with_set("transport.env.A=no")
    assert topology.transport.env == {"A": "no"}
    assert topology.role("prefill").env == {"A": "1"}


def test_items_of_a_list() -> None:
    pin = with_set("roles.decode.pin.0.nics=[mlx5_7]").role("decode").pin
    assert pin is not None
    assert pin[0].nics == ("mlx5_7",)


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        ("workers", "not of the form path=value"),
        ("=1", "not of the form path=value"),
        ("a..b=1", "not of the form path=value"),
        (".".join("a" * 50) + "=1", "not of the form path=value"),
        ("roles.decode.workers=0", "`roles.decode.workers` must be from 1 to 1024, not 0"),
        ("roles.decode.wokers=1", "`roles.decode.wokers` is not a known key"),
        ("name=../x", "`name` must be 1 to 40 characters"),
        ("model.x=1", "`model.x` can't be set"),
        ("roles.decode.pin.1.nics=[a]", "`roles.decode.pin.1` can't be set"),
        ("roles.decode.pin.x=1", "`roles.decode.pin.x` can't be set"),
        ("served_name=[", "not valid YAML"),
        ("served_name=*a", "has no anchor"),
        ("served_name=\udc80", "control character"),
        ("roles=[]", "`roles` must be a mapping"),
        ("frontend.kind=dynamo", "does not go with the engine"),
    ],
)
def test_errors_name_the_override(override: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_set(override)
    assert cause in caught.value.cause
    assert str(caught.value.where).startswith(f"--set {override[:200]}".replace("\udc80", "\\udc80"))
    assert caught.value.why
    assert caught.value.fix
