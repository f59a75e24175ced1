"""Which client proves the pairs of a plan: it depends on who routes there."""

from __future__ import annotations

from dynctl.plan.values import Plan
from dynctl.proof.client import ProofClient
from dynctl.proof.dynamo import DynamoClient
from dynctl.proof.router import RouterClient


def client_of(plan: Plan, token: str, asked: set[str]) -> ProofClient:
    """`token`: by which the built-in frontend knows dynctl; `asked`: takes the ids of what others count as users'."""
    metrics = {
        process.id: f"{process.probes.url}{process.probes.metrics}" for process in plan.workers() if process.probes.url
    }
    kinds: dict[str, type[ProofClient]] = {"dynamo": DynamoClient, "vllm-router": RouterClient}
    kind = kinds.get(plan.router, ProofClient)
    return kind(plan.frontend_url, token, plan.served_name, metrics, cert=plan.frontend_cert, asked=asked)
