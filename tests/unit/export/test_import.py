"""What `dynctl import` reads, and what it says of files that it can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dynctl.errors import UsageError
from dynctl.export.k8s_settings import settings
from tests.unit.export.crd import check
from tests.unit.export.graphs import exported, imported, main, topology, written

DATA = Path(__file__).parents[2] / "data/dgd"
EXAMPLE = (DATA / "rdma-example.yaml").read_text()
BETA = exported(topology(transport={"require": "tcp"}))


def changed(text: str, old: str, new: str, count: int = -1) -> str:
    """The text with something else in it; the test is wrong where that is not there."""
    assert old in text
    return text.replace(old, new, count)


def test_the_example_is_read_whole() -> None:
    made, left = imported(EXAMPLE)
    assert left == []
    assert (made.name, made.model, made.engine) == ("dynamo-disagg", "Qwen/Qwen3-32B-FP8", "dynamo-vllm")
    prefill, decode = made.role("prefill"), made.role("decode")
    assert (prefill.workers, prefill.tp, decode.workers, decode.tp) == (2, 2, 1, 4)
    assert prefill.args == {"kv-cache-dtype": "fp8", "max-num-seqs": 1}
    assert made.transport.require == "rdma"
    assert made.transport.env["UCX_RNDV_SCHEME"] == "get_zcopy"


def test_the_example_round_trips() -> None:
    """Written again it says the same, and names besides what Dynamo would otherwise assume."""
    made, _ = imported(EXAMPLE)
    again, was = written(made, "v1alpha1"), yaml.safe_load(EXAMPLE)
    assert main(again, "Frontend").pop("command") == ["python3", "-m", "dynamo.frontend"]
    for name, role in (("VLLMPrefillWorker", "kv_producer"), ("VLLMDecodeWorker", "kv_consumer")):
        container = main(again, name)
        *container["args"], flag, config = container["args"]
        assert (flag, yaml.safe_load(config)) == (
            "--kv-transfer-config",
            {"kv_connector": "NixlConnector", "kv_role": role},
        )
    assert again == was


def test_the_example_in_the_other_version_says_the_same() -> None:
    made, _ = imported(EXAMPLE)
    again, left = imported(exported(made, "v1beta1"))
    assert left == []
    assert written(again, "v1alpha1") == written(made, "v1alpha1")


def test_what_is_left_out_is_named_with_its_line() -> None:
    text = changed(EXAMPLE, "      replicas: 2\n", "      replicas: 2\n      livenessProbe: {httpGet: {port: 1}}\n")
    text = changed(text, '          image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.2.0\n          imagePullPolicy',
                   '          tty: true\n          image: i:1\n          imagePullPolicy', 1)  # fmt: skip
    _, left = imported(text)
    assert {one.path: one.place.line for one in left} == {
        "spec.services.Frontend.extraPodSpec.mainContainer.tty": 24,
        "spec.services.VLLMPrefillWorker.livenessProbe": 33,
    }


@pytest.mark.parametrize(
    ("old", "new", "path", "why"),
    [
        ("- --model\n", "- --model\n", "", ""),
        ("            - prefill\n", "            - prefill\n            - more\n", "args[10]", "further value"),
        ('"--max-num-seqs"', '"--host"', "args[6]", "dynctl sets it"),
        ('"--max-num-seqs"', '"--kv-cache-dtype"', "args[6]", "given twice"),
        ('gpu: "2"', 'gpu: "8"', "resources.limits.gpu", "tp*pp*dp"),
        ('rdma/ib: "4"', 'rdma/ib: "1"', "limits.rdma/ib", "one for each GPU"),
        ('            add: ["IPC_LOCK"]', '            add: ["IPC_LOCK", SYS_PTRACE]', "add[1]", "no key"),
        ("create: false", "create: true", "pvcs[0].create", "no key"),
        ('value: "0"', "valueFrom: {secretKeyRef: {name: a, key: b}}", "envs[3]", "no key"),
        ("name: UCX_RNDV_THRESH", "name: HF_TOKEN", "envs[3]", "a secret"),
    ],
)
def test_left_out(old: str, new: str, path: str, why: str) -> None:
    _, left = imported(changed(EXAMPLE, old, new))
    assert [one for one in left if path in one.path and why in one.why] or not path


@pytest.mark.parametrize("text", [EXAMPLE, BETA], ids=["v1alpha1", "v1beta1"])
def test_multinode_without_a_count_is_two_pods(text: str) -> None:
    """The API's default, where the field itself is there."""
    made, left = imported(changed(text, "replicas: 2\n", "replicas: 2\n      multinode: {}\n"))
    assert settings(made).components.prefill.nodes == 2
    assert "multinode" not in " ".join(one.path for one in left)


@pytest.mark.parametrize("api", ["v1alpha1", "v1beta1"])
def test_the_runtimes_version_comes_back(api: str) -> None:
    made = topology(**{"x-k8s": {"image": "i@sha256:ab", "runtime_version": "1.6.1"}})
    again, left = imported(exported(made, api))
    assert left == []
    assert written(again, api) == written(made, api)


@pytest.mark.parametrize("size", ["17179869184", "1e9", "+1Gi", ".5Gi", "2.E", "1e+9"])
def test_amounts_of_shared_memory_are_read_as_kubernetes_spells_them(size: str) -> None:
    made, _ = imported(changed(BETA, "16Gi", size))
    assert settings(made).of("decode").shared_memory == size
    for api in ("v1beta1", "v1alpha1"):
        check(written(made, api), api)


def test_a_planner_beside_it_is_left_out() -> None:
    text = EXAMPLE + "    Planner: {componentType: planner, replicas: 1}\n"
    _, left = imported(text)
    assert [(one.path, one.place.line) for one in left] == [("spec.services.Planner", EXAMPLE.count("\n") + 1)]


def test_other_documents_are_left_out_and_anchors_are_followed() -> None:
    text = f"kind: Secret\nmetadata: {{name: hf}}\n---\n{EXAMPLE}---\n"
    text = changed(text, 'gpu: "2"', 'gpu: &tp "2"')
    text = changed(
        text,
        '            - "--tensor-parallel-size"\n            - "2"',
        '            - "--tensor-parallel-size"\n            - *tp',
    )
    made, left = imported(text)
    assert made.role("prefill").tp == 2
    assert [one.path for one in left] == ["Secret hf"]


def test_a_shell_around_one_command_is_looked_through() -> None:
    document = yaml.safe_load(BETA)
    container = main(document, "PrefillWorker")
    container["args"] = ["exec python3 -m dynamo.vllm --model Qwen/Qwen3-32B-FP8 --disaggregation-mode prefill "
                         "--hf-overrides '{\"a\": 1}' \\\n --tensor-parallel-size 2"]  # fmt: skip
    container["command"] = ["/bin/sh", "-c"]
    made, left = imported(yaml.safe_dump(document))
    assert left == []
    assert made.role("prefill").args == {"hf-overrides": '{"a": 1}'}


def test_workers_of_older_graphs_are_told_apart() -> None:
    text = changed(BETA, "type: prefill", "type: worker")
    text = changed(text, "type: decode", "type: worker")
    text = changed(
        text,
        "                - --disaggregation-mode\n                - prefill\n",
        "                - --is-prefill-worker\n",
    )
    text = changed(text, "                - --disaggregation-mode\n                - decode\n", "")
    made, left = imported(text)
    assert left == []
    assert made.role("decode").tp == 4


def test_routing_comes_from_flags_or_the_environment() -> None:
    flag = imported(exported(topology(frontend={"routing": "cache-aware"})))[0]
    document = written(topology())
    main(document, "Frontend")["env"] = [
        {"name": "DYN_ROUTER_MODE", "value": "kv"},
        {"name": "DYN_HTTP_PORT", "value": "8080"},
    ]
    variable = imported(yaml.safe_dump(document))[0]
    assert flag.frontend.routing == variable.frontend.routing == "kv"
    assert variable.frontend.port == 8080


def test_the_routers_flags_come_back_but_for_those_that_dynctl_sets() -> None:
    document = written(topology(engine="dynamo-vllm", frontend={"routing": "direct", "migration_limit": 3}))
    words = main(document, "Frontend")["args"]
    assert words == ["--router-mode", "direct", "--migration-limit", "3"]
    words += ["--router-temperature", "0.5", "--router-conditional-disagg", "--namespace", "mine"]
    made, left = imported(yaml.safe_dump(document))
    assert made.frontend.routing == "direct"
    assert made.frontend.migration_limit == 3
    assert made.frontend.args == {"router-temperature": "0.5", "router-conditional-disagg": True}
    assert ["--namespace" in one.why and "control.namespace" in one.why for one in left] == [True]
    assert main(written(made), "Frontend")["args"] == words[:-2]


BAD: dict[str, tuple[Any, str, str]] = {
    "empty": ("", "no DynamoGraphDeployment", "f.yaml:1"),
    "a list": ("- 1\n", "must be a mapping", "f.yaml:1"),
    "another kind": ("kind: Deployment\n", "no DynamoGraphDeployment", "f.yaml:1"),
    "a request": ("kind: DynamoGraphDeploymentRequest\n", "no DynamoGraphDeployment", "f.yaml:1"),
    "two graphs": (f"{EXAMPLE}---\n{BETA}", "2 graphs in this file: DynamoGraphDeployment dynamo-disagg, "
                   "DynamoGraphDeployment x", f"f.yaml:{EXAMPLE.count(chr(10)) + 2}"),
    "a version to come": (changed(BETA, "v1beta1", "v2"), "is `nvidia.com/v2`", "f.yaml:1 apiVersion"),
    "no name": (changed(BETA, "  name: x\n", "  labels: {}\n"), "has no `name`", "metadata"),
    "no frontend": (changed(BETA, "type: frontend", "type: epp"), "has no frontend", "spec"),
    "no decode": (changed(EXAMPLE, "VLLMDecodeWorker:", "x: &a\n").split("    x: &a")[0], "no decode worker", "spec"),
    "no workers": (EXAMPLE.split("    VLLMPrefillWorker")[0], "has no worker", "spec"),
    "no model": (changed(BETA, "--model", "--other"), "names no model", "components[1]"),
    "two models": (changed(BETA, "Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-8B", 1), "differ in their model", "components[2]"),
    "two pools": (changed(changed(BETA, "type: decode", "type: prefill"), "- decode\n", "- prefill\n"),
                  "second pool of prefill", "components[2]"),
    "an unknown type": (changed(BETA, "type: decode", "type: encoder"), "`encoder`", "components[2].type"),
    "an unknown engine": (changed(BETA, "dynamo.vllm", "dynamo.other"), "runs `dynamo.other`", "components[1]"),
    "no container": (changed(BETA, "name: main", "name: other"), "no container named `main`", "podTemplate.spec"),
    "no replicas": (changed(BETA, "replicas: 2", "replicas: 0"), "is 0", "replicas"),
    "half a replica": (changed(BETA, "replicas: 2", "replicas: 1.5"), "whole number", "replicas"),
    "a script": (changed(BETA, "- python3\n", "- sh\n").replace("- -m\n", "- -c\n"), "starts a shell", "command[1]"),
    "text for a mapping": ("apiVersion: nvidia.com/v1alpha1\nkind: DynamoGraphDeployment\nspec: {services: a}\n",
                           "must be a mapping", "f.yaml:3 spec.services"),
    "a loop": ("kind: &a [*a]\n", "contains itself", "f.yaml:1"),
    "too deep": ("kind: " + "[" * 60 + "]" * 60, "nested too deeply", "f.yaml:1"),
    "too many": ("a: &a [1,2,3,4,5,6,7,8,9]\n" + "".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
    ), "too big", "f.yaml"),
    "not YAML": ("kind: [\n", "not valid YAML", "f.yaml"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_an_error_with_its_place(name: str) -> None:
    text, cause, where = BAD[name]
    with pytest.raises(UsageError) as refused:
        imported(text)
    assert cause in refused.value.cause
    assert where in (refused.value.where or "")
    assert refused.value.fix
    assert refused.value.exit_code == 2
