"""What `dynctl export k8s` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dynctl.errors import UsageError
from dynctl.export.graph import unversioned
from dynctl.export.to_graph import to_graph
from dynctl.export.yaml_text import dump
from dynctl.topology.load import load
from tests.unit.export.crd import SCHEMAS, check
from tests.unit.export.graphs import BASE, IMAGE, WRITERS, main, topology, written

PROFILES = Path(__file__).parents[3] / "profiles"
APIS = ("v1beta1", "v1alpha1")


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"engine": "dynamo-vllm", "frontend": {"routing": "cache-aware"}},
        {"engine": "dynamo-mocker"},
        {"engine": "sglang", "transport": {"require": "tcp"}},
        {"engine": "dynamo-trtllm", "roles": {"worker": {"tp": 4}}},
        {"x-k8s": {"image": IMAGE, "shared_memory": "0", "secret": "s", "volumes": {"a": "/a"}, "namespace": "n"}},
        {"x-k8s": {"image": IMAGE, "components": {"decode": {"nodes": 2, "name": "VLLMDecodeWorker"}}}},
    ],
)
def test_it_keeps_to_the_schema(api: str, changes: dict[str, Any]) -> None:
    check(written(topology(**changes), api), api)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("profile", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_keeps_to_the_schema(api: str, profile: Path) -> None:
    """Those of a model that is made on the spot with another in its place."""
    made = load(profile, ("model=Qwen/Qwen3-0.6B",)) if "builtin:" in profile.read_text() else load(profile)
    check(yaml.safe_load(dump(WRITERS[api](to_graph(made, IMAGE)[0]))), api)


@pytest.mark.parametrize("size", ["0", "0Gi", "0.0", "00e9"])
def test_no_shared_memory_is_spelled_as_each_version_takes_it(size: str) -> None:
    made = topology(**{"x-k8s": {"image": IMAGE, "shared_memory": size}})
    alpha, beta = (written(made, api) for api in ("v1alpha1", "v1beta1"))
    check(alpha, "v1alpha1")
    assert alpha["spec"]["services"]["DecodeWorker"]["sharedMemory"] == {"disabled": True}
    assert beta["spec"]["components"][2]["sharedMemorySize"] == "0"


@pytest.mark.parametrize("api", APIS)
def test_the_runtimes_version_is_said_where_the_image_does_not(api: str) -> None:
    k8s = {"image": "i@sha256:ab", "runtime_version": "1.6.1", "components": {"decode": {"runtime_version": "1.5.0"}}}
    document = written(topology(**{"x-k8s": k8s}), api)
    check(document, api)
    spec = document["spec"]
    parts = list(spec["services"].values()) if api == "v1alpha1" else spec["components"]
    assert [one["runtimeVersionOverride"] for one in parts] == ["1.6.1", "1.6.1", "1.5.0"]


@pytest.mark.parametrize(
    ("image", "version"),
    [
        (IMAGE, True),
        ("i:v1.2.3", True),
        ("r:5000/i:1.2.3-rc1@sha256:ab", True),
        ("i", False),
        ("i:latest", False),
        ("i:1.2", False),
        ("r:5000/i", False),
        ("i@sha256:ab", False),
    ],
)
def test_it_is_known_which_images_say_no_version(image: str, version: bool) -> None:
    graph, _ = to_graph(topology(**{"x-k8s": {"image": image}}))
    assert unversioned(graph) == (() if version else ("Frontend", "PrefillWorker", "DecodeWorker"))
    graph, _ = to_graph(topology(**{"x-k8s": {"image": image, "runtime_version": "1.6.1"}}))
    assert unversioned(graph) == ()


def test_the_schema_refuses_what_the_operator_does_not_know() -> None:
    document = written(topology())
    document["spec"]["components"][0]["componentType"] = "frontend"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMAS["v1beta1"])


@pytest.mark.parametrize("api", APIS)
def test_rdma_fields_follow_tensor_parallelism(api: str) -> None:
    document = written(topology(transport={"require": "rdma"}), api)
    for name, tp in (("PrefillWorker", "2"), ("DecodeWorker", "4")):
        container = main(document, name)
        assert container["resources"]["limits"]["rdma/ib"] == tp
        assert container["resources"]["requests"]["rdma/ib"] == tp
        assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    worker = document["spec"].get("services", {}).get("DecodeWorker") or document["spec"]["components"][2]
    variables = worker.get("envs") or worker["podTemplate"]["spec"]["containers"][0]["env"]
    assert {"name": "UCX_TLS", "value": "rc_x,rc,dc_x,dc,cuda_copy,cuda_ipc"} in variables
    assert (worker.get("sharedMemory") or {"size": worker.get("sharedMemorySize")})["size"] == "16Gi"


def test_alpha_counts_gpus_beside_the_pod_and_beta_within() -> None:
    alpha, beta = (written(topology(), api) for api in ("v1alpha1", "v1beta1"))
    assert alpha["spec"]["services"]["DecodeWorker"]["resources"] == {"limits": {"gpu": "4"}}
    assert main(beta, "DecodeWorker")["resources"]["limits"]["nvidia.com/gpu"] == "4"


@pytest.mark.parametrize("require", ["tcp", "shm"])
def test_without_rdma_nothing_asks_for_it(require: str) -> None:
    container = main(written(topology(transport={"require": require})), "DecodeWorker")
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "4"}}
    assert "securityContext" not in container
    assert "env" not in container


def test_the_transport_becomes_the_engines_flag() -> None:
    transport = {"direction": "push", "backend": "libfabric", "lease": "90s", "connector": {"num_threads": 4}}
    args = main(written(topology(transport=transport)), "PrefillWorker")["args"]
    assert args[args.index("--kv-transfer-config") + 1] == (
        '{"kv_connector": "NixlPushConnector", "kv_role": "kv_producer", "kv_connector_extra_config": '
        '{"kv_lease_duration": 90, "backends": ["LIBFABRIC"], "num_threads": 4}}'
    )


def test_a_router_that_follows_caches_is_told_of_them() -> None:
    document = written(topology(frontend={"routing": "cache-aware"}))
    assert main(document, "Frontend")["args"] == ["--router-mode", "kv"]
    assert "--kv-events-config" in main(document, "PrefillWorker")["args"]
    assert "--kv-events-config" not in main(document, "DecodeWorker")["args"]


def test_the_routers_own_settings_go_with_it() -> None:
    made = topology(engine="dynamo-vllm", frontend={"migration_limit": 2, "args": {"router_ttl_secs": 9}})
    graph, left = to_graph(made)
    assert graph.components[0].args == ("--migration-limit", "2", "--router-ttl-secs", "9")
    assert left == ()
    assert to_graph(topology(engine="dynamo-vllm", control={"discovery": "etcd"}))[1] == ("control",)


def test_settings_of_one_component_go_before_those_of_all() -> None:
    k8s = {"image": IMAGE, "env": {"A": "1", "B": "1"}, "components": {"decode": {"image": "i:2", "env": {"B": "2"}}}}
    document = written(topology(**{"x-k8s": k8s, "transport": {"require": "tcp"}}))
    assert main(document, "PrefillWorker")["image"] == IMAGE
    decode = main(document, "DecodeWorker")
    assert (decode["image"], decode["env"]) == ("i:2", [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])


def test_a_worker_over_several_pods_shares_its_gpus_out() -> None:
    document = written(topology(**{"x-k8s": {"image": IMAGE, "components": {"decode": {"nodes": 2}}}}))
    decode = document["spec"]["components"][2]
    assert decode["multinode"] == {"nodeCount": 2}
    assert main(document, "DecodeWorker")["resources"]["limits"] == {"nvidia.com/gpu": "2", "rdma/ib": "2"}


def test_what_has_no_place_is_named() -> None:
    roles = {"prefill": {"restart": {"max": 1}}, "decode": {"env": {"HF_TOKEN": "hf_secret"}}}
    made = topology(roles=roles, frontend={"port": 9000, "routing": "session"}, ready={"timeout": "1m"})
    graph, left = to_graph(made)
    assert set(left) == {
        "ready", "frontend.port", "frontend.routing", "roles.prefill.restart", "roles.decode.env.HF_TOKEN",
    }  # fmt: skip
    assert "hf_secret" not in str(graph)


def test_nothing_is_named_where_nothing_is_left_out() -> None:
    assert to_graph(topology(frontend={"port": 8000, "routing": "round-robin"}))[1] == ()


@pytest.mark.parametrize(
    ("changes", "cause", "where"),
    [
        ({"x-k8s": None}, "no image for Frontend", "t.yaml"),
        ({"model": "builtin:tiny"}, "can't be exported", "t.yaml:3 model"),
        (
            {"x-k8s": {"image": IMAGE, "sharedmemory": "1Gi"}},
            "`x-k8s.sharedmemory` is wrong",
            "t.yaml:12",
        ),
        ({"x-k8s": {"image": IMAGE, "shared_memory": "many"}}, "`x-k8s.shared_memory` is wrong", "t.yaml:12"),
        ({"x-k8s": {"image": IMAGE, "shared_memory": "16K"}}, "`x-k8s.shared_memory` is wrong", "t.yaml:12"),
        ({"x-k8s": {"image": IMAGE, "namespace": "a.b"}}, "`x-k8s.namespace` is wrong", "t.yaml:12"),
        ({"x-k8s": {"image": IMAGE, "name": "a..b"}}, "`x-k8s.name` is wrong", "t.yaml:12"),
        ({"x-k8s": {"image": IMAGE, "volumes": {"a.b": "/a"}}}, "`x-k8s.volumes.a.b` is wrong", "t.yaml:13"),
        ({"x-k8s": {"image": IMAGE, "runtime_version": "1.6"}}, "`x-k8s.runtime_version` is wrong", "t.yaml:12"),
        (
            {"name": "a-long-name", "x-k8s": {"image": IMAGE, "components": {"decode": {"name": "x" * 38}}}},
            f"`{'x' * 38}` is too long",
            "components.decode.name",
        ),
        (
            {
                "name": "a-long-name",
                "x-k8s": {"image": IMAGE, "components": {"decode": {"name": "VLLMDecodeWorkers", "nodes": 2}}},
            },
            "`VLLMDecodeWorkers` is too long",
            "components.decode.name",
        ),
        ({"x-k8s": [1]}, "`x-k8s` is wrong", "t.yaml:10 x-k8s"),
        ({"x-k8s": {"image": IMAGE, "components": {"decode": {"nodes": 3}}}}, "over 3 pods", "components.decode.nodes"),
        (
            {"x-k8s": {"image": IMAGE, "components": {"decode": {"name": "frontend"}}}},
            "two components are named `frontend`",
            "components.decode",
        ),
        (
            {"x-k8s": {"image": IMAGE, "volumes": {"a": "/m"}, "components": {"decode": {"volumes": {"b": "/m"}}}}},
            "DecodeWorker mounts two volumes at /m",
            "components.decode",
        ),
        (
            {"engine": "dynamo-vllm", "frontend": {"args": {"router-mode": "kv"}}},
            "`router-mode` is set by dynctl",
            "frontend.args.router-mode",
        ),
        ({"roles": {"worker": {"args": {"kv-transfer-config": "{}"}}}}, "set by dynctl", "roles.worker.args"),
        ({"roles": {"worker": {"args": {"disaggregation-mode": "agg"}}}}, "set by dynctl", "roles.worker.args"),
        ({"engine": "trtllm", "roles": {"worker": {"dp": 2}}}, "has no flag for", "roles.worker.dp"),
    ],
)
def test_what_can_not_be_written_is_refused(changes: dict[str, Any], cause: str, where: str) -> None:
    with pytest.raises(UsageError) as refused:
        to_graph(topology(**changes))
    assert cause in refused.value.cause
    assert where in (refused.value.where or "")
    assert refused.value.fix


@pytest.mark.parametrize("decode", [{"name": "x" * 37}, {"name": "x" * 16, "nodes": 2}])
def test_the_longest_names_that_the_operator_takes(decode: dict[str, Any]) -> None:
    made = topology(name="n" * 40, **{"x-k8s": {"image": IMAGE, "components": {"decode": decode}}})
    assert to_graph(made)[0].components[2].name == decode["name"]


def test_the_command_lines_image_is_that_of_all() -> None:
    graph, _ = to_graph(topology(**{"x-k8s": None}), "i:1")
    assert {component.image for component in graph.components} == {"i:1"}
    assert BASE["x-k8s"] == {"image": IMAGE}
