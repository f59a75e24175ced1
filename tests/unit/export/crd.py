"""JSON schemas of what dynctl writes of a DynamoGraphDeployment, strict: a field that is not here is a mistake.

Names, types and bounds are those of the operator's published API types and CRD (nvidia.com v1beta1 and v1alpha1; docs/
export.md says which versions they were compared with); of Kubernetes's pods only the fields that a graph of dynctl's
can have.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def obj(required: tuple[str, ...] = (), **fields: Schema) -> Schema:
    """A mapping with these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def list_of(item: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": item, **more}


TEXT: Schema = {"type": "string", "minLength": 1}
BOOL: Schema = {"type": "boolean"}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?|m)?$"}
DNS: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
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
META = obj(("name",), name=DNS, namespace=DNS)
FRAMEWORK: Schema = {"enum": ["vllm", "sglang", "trtllm"]}
NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$", "maxLength": 63}

MAIN = obj(
    ("name", "image"),
    **CONTAINER,
    name={"const": "main"},
    env=ENV,
    envFrom=list_of(obj(secretRef=obj(("name",), name=DNS))),
    volumeMounts=list_of(obj(("name", "mountPath"), name=DNS, mountPath=TEXT)),
)
POD = obj(
    ("containers",),
    containers=list_of(MAIN, minItems=1),
    volumes=list_of(obj(("name",), name=DNS, persistentVolumeClaim=obj(("claimName",), claimName=DNS))),
)
COMPONENT = obj(
    ("name",),
    name=NAME,
    type={"enum": ["frontend", "worker", "prefill", "decode", "planner", "epp"]},
    replicas=REPLICAS,
    multinode=WORKER_NODES,
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
    resources=obj(limits=obj(gpu=QUANTITY), requests=obj(gpu=QUANTITY)),
    sharedMemory={
        "oneOf": [obj(("size",), size=QUANTITY), obj(("disabled",), disabled={"const": True})],
    },
    envs=ENV,
    envFromSecret=DNS,
    volumeMounts=list_of(obj(("name",), name=DNS, mountPoint=TEXT)),
    extraPodSpec=obj(mainContainer=obj(("image",), **CONTAINER)),
)
V1ALPHA1 = obj(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "nvidia.com/v1alpha1"},
    kind={"const": "DynamoGraphDeployment"},
    metadata=META,
    spec=obj(
        backendFramework=FRAMEWORK,
        pvcs=list_of(obj(("name",), name=DNS, create=BOOL), maxItems=100),
        services={"type": "object", "maxProperties": 25, "additionalProperties": SERVICE},
    ),
)
SCHEMAS = {"v1beta1": V1BETA1, "v1alpha1": V1ALPHA1}
