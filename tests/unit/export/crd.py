"""JSON schemas of what dynctl writes of a DynamoGraphDeployment, strict: a field that is not here is a mistake.

Names, types and bounds are those of the operator's published API types and CRD (nvidia.com v1beta1 and v1alpha1; docs/
export.md says which versions they were compared with); of Kubernetes's pods only the fields that a graph of dynctl's
can have. Where DYNCTL_DGD_CRD names a file with the operator's CRD, `check` holds a document against that, too.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.unit.export.structural import Structural, strict

Schema = dict[str, Any]


def obj(required: tuple[str, ...] = (), **fields: Schema) -> Schema:
    """A mapping with these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def list_of(item: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": item, **more}


TEXT: Schema = {"type": "string", "minLength": 1}
BOOL: Schema = {"type": "boolean"}
QUANTITY: Schema = {
    "type": "string",
    "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$",
}
NOT_ZERO: Schema = {"allOf": [QUANTITY, {"pattern": r"^[+0.]*[1-9]"}]}
LABEL: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS: Schema = {"type": "string", "pattern": rf"^{_PART}(\.{_PART})*$", "maxLength": 253}
VERSION: Schema = {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]{0,3})){2}$"}
WORKER_NODES = obj(("nodeCount",), nodeCount={"type": "integer", "minimum": 2})
REPLICAS: Schema = {"type": "integer", "minimum": 0}
VARIABLE: Schema = {"type": "string", "pattern": r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"}
ENV = list_of(obj(("name",), name=VARIABLE, value={"type": "string"}))
AMOUNTS: Schema = {"type": "object", "additionalProperties": QUANTITY}
CONTAINER: dict[str, Schema] = {
    "image": TEXT,
    "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "workingDir": TEXT,
    "command": list_of({"type": "string"}),
    "args": list_of({"type": "string"}),
    "resources": obj(limits=AMOUNTS, requests=AMOUNTS),
    "securityContext": obj(capabilities=obj(add=list_of(TEXT))),
}
META = obj(("name",), name=DNS, namespace=LABEL)
FRAMEWORK: Schema = {"enum": ["vllm", "sglang", "trtllm"]}
NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$", "maxLength": 63}

MAIN = obj(
    ("name", "image"),
    **CONTAINER,
    name={"const": "main"},
    env=ENV,
    envFrom=list_of(obj(secretRef=obj(("name",), name=DNS))),
    volumeMounts=list_of(obj(("name", "mountPath"), name=LABEL, mountPath=TEXT)),
)
POD = obj(
    ("containers",),
    containers=list_of(MAIN, minItems=1),
    volumes=list_of(obj(("name",), name=LABEL, persistentVolumeClaim=obj(("claimName",), claimName=DNS))),
)
COMPONENT = obj(
    ("name",),
    name=NAME,
    type={"enum": ["frontend", "worker", "prefill", "decode", "planner", "epp"]},
    replicas=REPLICAS,
    multinode=WORKER_NODES,
    runtimeVersionOverride=VERSION,
    sharedMemorySize=QUANTITY,
    podTemplate=obj(spec=POD),
)
V1BETA1 = obj(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "nvidia.com/v1beta1"},
    kind={"const": "DynamoGraphDeployment"},
    metadata=META,
    spec=obj(backendFramework=FRAMEWORK, env=ENV, components=list_of(COMPONENT, maxItems=25)),
)

SERVICE = obj(
    componentType=TEXT,
    subComponentType=TEXT,
    replicas=REPLICAS,
    multinode=WORKER_NODES,
    runtimeVersionOverride=VERSION,
    resources=obj(limits=obj(gpu=QUANTITY), requests=obj(gpu=QUANTITY)),
    sharedMemory={
        "oneOf": [obj(("size",), size=NOT_ZERO), obj(("disabled",), disabled={"const": True})],
    },
    envs=ENV,
    envFromSecret=DNS,
    volumeMounts=list_of(obj(("name",), name=LABEL, mountPoint=TEXT)),
    extraPodSpec=obj(mainContainer=obj(("image",), **CONTAINER)),
)
V1ALPHA1 = obj(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "nvidia.com/v1alpha1"},
    kind={"const": "DynamoGraphDeployment"},
    metadata=META,
    spec=obj(
        backendFramework=FRAMEWORK,
        pvcs=list_of(obj(("name",), name=LABEL, create=BOOL), maxItems=100),
        services={"type": "object", "maxProperties": 25, "additionalProperties": SERVICE},
    ),
)
SCHEMAS = {"v1beta1": V1BETA1, "v1alpha1": V1ALPHA1}


CRD = os.environ.get("DYNCTL_DGD_CRD")
"""The operator's CustomResourceDefinition, as YAML; not shipped with dynctl."""


def check(document: Any, api: str) -> None:
    """Fails where the document is not what the operator's API takes."""
    jsonschema.validate(document, SCHEMAS[api])
    if CRD:
        _theirs(CRD)[api].validate(document)


@functools.cache
def _theirs(file: str) -> dict[str, Any]:
    """The CRD's own schemas by version. Of `metadata` they say nothing: the server knows it."""
    definition = yaml.load(Path(file).read_text(), Loader=yaml.CSafeLoader)
    found = {}
    for version in definition["spec"]["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = META
        found[version["name"]] = Structural(schema)
    return found
