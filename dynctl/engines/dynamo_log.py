"""Dynamo's log lines worth knowing: which start-up phase each opens, and which ones explain a death."""

from __future__ import annotations

FRONTEND_PHASES: tuple[tuple[str, str], ...] = (
    (r"dynamo_runtime", "joining its planes"),
    (r"(?i)starting http(?:\(s\))? service|listening", "serving"),
)
WORKER_PHASES: tuple[tuple[str, str], ...] = (
    (r"dynamo_runtime", "joining its planes"),
    (r"(?i)system status server (?:started|listening)|System HTTP listener started", "starting its engine"),
    (r"(?i)register(?:ed|ing) (?:model|endpoint)|added model", "registering"),
)

CAUSES: tuple[tuple[str, str, str | None], ...] = (
    (
        r"(?i)(?:failed|unable) to connect to etcd|etcd.*(?:connection refused|transport error|unavailable)",
        "etcd does not answer",
        "start it, correct `control.etcd`, or leave `etcd` out to have one started with the run",
    ),
    (
        r"(?i)nats.*(?:connection refused|timed out|IO error)|failed to connect to NATS",
        "NATS does not answer",
        "start it, correct `control.nats`, or leave `nats` out to have one started with the run",
    ),
    (
        r"No module named 'torchvision'",
        "dynamo.vllm imports torchvision, which the engine's interpreter does not have",
        "install the torchvision that goes with its torch",
    ),
    (
        r"No module named 'dynamo",
        "the interpreter has no Dynamo",
        "`make engine ENGINE=dynamo` builds an environment that has it",
    ),
    (
        r"(?i)unrecognized arguments|error: argument",
        "Dynamo refused a flag",
        "check roles.*.args and frontend.args against this version of it",
    ),
)
