"""Any topology that can be written as a graph is read back from it with the same meaning, in both versions."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.errors import UsageError
from dynctl.export import dialect
from dynctl.export.from_graph import from_documents
from dynctl.export.to_graph import to_graph
from dynctl.export.yaml_text import dump
from dynctl.topology.yaml_source import compose_documents
from tests.unit.export.crd import check
from tests.unit.export.graphs import WRITERS, exported, imported, topology

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text
)
ODD = st.sampled_from(
    ["0.90", "1e3", "0x10", "yes", "null", "~", "-1", "--x", "", "a b", "a=b", '{"a": [1]}', "007", "#", "'"]
)
VALUES = st.one_of(ODD, TEXT, st.booleans(), st.none(), st.integers(0, 10**20), st.just({"a": [1]}))
ARGS = st.dictionaries(
    st.sampled_from(["max-num-seqs", "enforce_eager", "no-x", "rope.b", "gpu-memory-utilization"]), VALUES
)
NAMES = st.sampled_from(["UCX_TLS", "NIXL_LOG_LEVEL", "DYN_LOG", "HF_HOME", "A"])
ENV = st.dictionaries(NAMES, st.one_of(ODD, TEXT), max_size=3)
POD = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["i:1", "r.example/i@sha256:ab"]),
        "runtime_version": st.just("1.6.1"),
        "pull_policy": st.sampled_from(["Always", "Never"]),
        "working_dir": st.just("/w"),
        "secret": st.just("s"),
        "shared_memory": st.sampled_from(["0", "16Gi", "1.5Gi"]),
        "volumes": st.sampled_from([{}, {"a": "/a"}, {"b": "/b/c"}]),  # no two at one path
        "env": ENV,
    },
)


ROUTINGS = st.sampled_from(["round-robin", "least-loaded", "power-of-two", "cache-aware", "kv", "random", "direct"])
FRONTENDS = st.fixed_dictionaries(
    {"routing": ROUTINGS},
    optional={
        "migration_limit": st.integers(0, 9),
        "args": st.dictionaries(st.sampled_from(["router-ttl-secs", "router_conditional_disagg"]), VALUES),
    },
)


def role(sizes: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """One role; few engines have every size."""
    return st.fixed_dictionaries(
        {"workers": st.integers(1, 9), "args": ARGS, "env": ENV, **{size: st.integers(1, 4) for size in sizes}}
    )


@st.composite
def topologies(draw: st.DrawFn) -> dict[str, Any]:
    """The sections of one."""
    engine = draw(st.sampled_from(["vllm", "dynamo-vllm", "dynamo-sglang", "trtllm", "dynamo-mocker"]))
    sizes = tuple(size for size in dialect.of_engine(engine).sizes if size != "pp")
    roles = draw(
        st.one_of(
            st.fixed_dictionaries({"worker": role(sizes)}),
            st.fixed_dictionaries({"prefill": role(sizes), "decode": role(sizes)}),
        )
    )
    transport = st.fixed_dictionaries(
        {"env": ENV},
        optional={
            "require": st.sampled_from(["auto", "rdma", "tcp"]),
            "direction": st.sampled_from(["pull", "push"]),
            "backend": st.sampled_from(["ucx", "libfabric"]),
            "lease": st.sampled_from(["30s", "2m"]),
            "connector": st.just({"num_threads": 4}),
        },
    )
    components = {name: draw(POD) for name in ("frontend", *roles)}
    k8s = {"image": "i:0", **draw(POD), "components": components, "namespace": draw(st.sampled_from(["n", None]))}
    return {
        "engine": engine,
        "name": draw(st.sampled_from(["a", "a-b", "0"])),
        "model": draw(st.sampled_from(["Qwen/Qwen3-8B", "/models/a b", "1e3"])),
        "served_name": draw(st.one_of(st.none(), st.sampled_from(["served", "0x10"]))),
        "frontend": draw(FRONTENDS if engine.startswith("dynamo-") else st.just({"routing": "cache-aware"})),
        "transport": draw(transport),
        "roles": roles,
        "x-k8s": k8s,
    }


@pytest.mark.parametrize("api", WRITERS)
@settings(max_examples=20, deadline=None)
@given(sections=topologies())
def test_topology_to_graph_and_back(api: str, sections: dict[str, Any]) -> None:
    made = topology(**sections)
    graph, _ = to_graph(made)
    text = exported(made, api)
    check(yaml.safe_load(text), api)
    again, left = imported(text)
    assert left == []
    assert to_graph(again)[0] == graph
    assert (again.name, again.model, again.served_name) == (made.name, made.model, made.served_name)
    for name, spec in made.roles.present():
        other = again.role(name)
        assert (other.workers, other.tp, other.dp) == (spec.workers, spec.tp, spec.dp)
        assert list(dialect.flags(other.args)) == list(dialect.flags(spec.args))


KEYS = st.sampled_from(["name", "value", "args", "resources", "limits", "main", "replicas", "componentType"])
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT, ODD),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner),
    ),
    max_leaves=8,
)
BETA = yaml.safe_load(exported(topology()))
ALPHA = yaml.safe_load(exported(topology(), "v1alpha1"))


@settings(max_examples=60, deadline=None)
@given(document=st.sampled_from([ALPHA, BETA]), at=st.lists(st.integers(0, 20), min_size=1, max_size=9), tree=TREES)
def test_whatever_is_in_a_graph_it_is_read_or_refused_in_words(document: Any, at: list[int], tree: Any) -> None:
    """One part of a good file is something else."""
    text = dump(_replaced(document, at, tree))
    try:
        data, left = from_documents(compose_documents(text, "f.yaml"), "f.yaml")
    except UsageError as refused:
        said = refused
    else:
        assert data["roles"]
        assert all(one.path and one.why and one.place.line for one in left)
        return
    assert said.cause
    assert said.where
    assert said.fix


def _replaced(node: Any, at: list[int], tree: Any) -> Any:
    if not at or not isinstance(node, (dict, list)) or not node:
        return tree
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    key = keys[at[0] % len(keys)]
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[key] = _replaced(node[key], at[1:], tree)
    return copy
