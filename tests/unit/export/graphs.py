"""From topologies to graphs and back, for tests."""

from __future__ import annotations

from typing import Any

import yaml

from dynctl.export import v1alpha1, v1beta1
from dynctl.export.cursor import Left
from dynctl.export.from_graph import from_documents
from dynctl.export.to_graph import to_graph
from dynctl.export.yaml_text import dump
from dynctl.topology.load import parse
from dynctl.topology.schema import Topology
from dynctl.topology.yaml_source import compose_documents

WRITERS = {"v1beta1": v1beta1.write, "v1alpha1": v1alpha1.write}
IMAGE = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
BASE: dict[str, Any] = {
    "schema": 1,
    "name": "x",
    "model": "Qwen/Qwen3-32B-FP8",
    "roles": {"prefill": {"workers": 2, "tp": 2}, "decode": {"tp": 4}},
    "x-k8s": {"image": IMAGE},
}


def topology(**changes: Any) -> Topology:
    """The base with other sections; None takes one away."""
    data = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    return parse(dump(data), source="t.yaml")


def exported(of: Topology, api: str = "v1beta1") -> str:
    """The file that `dynctl export k8s` writes."""
    return dump(WRITERS[api](to_graph(of)[0]))


def written(of: Topology, api: str = "v1beta1") -> Any:
    """The same as a YAML 1.1 reader sees it."""
    return yaml.safe_load(exported(of, api))


def main(document: Any, name: str) -> Any:
    """The main container of a v1beta1 component, or of a v1alpha1 service."""
    spec = document["spec"]
    if "services" in spec:
        return spec["services"][name]["extraPodSpec"]["mainContainer"]
    (component,) = [one for one in spec["components"] if one["name"] == name]
    return component["podTemplate"]["spec"]["containers"][0]


def imported(text: str) -> tuple[Topology, list[Left]]:
    """What `dynctl import` makes of a file."""
    data, left = from_documents(compose_documents(text, "f.yaml"), "f.yaml")
    return parse(dump(data), source="imported.yaml"), left
