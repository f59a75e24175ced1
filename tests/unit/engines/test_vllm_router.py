"""vllm-router as a frontend: its command line as data, and what it does not have refused before a start."""

from __future__ import annotations

import pytest

from dynctl.errors import UsageError
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan
from dynctl.runtime.router_watch import figures
from tests.unit.plan.machines import CPU_1P1D, cpu, facts, topology

KIND = "frontend.kind=vllm-router"
AGGREGATED = "schema: 1\nname: one\nmodel: builtin:tiny\nroles:\n  worker: {workers: 2}\n"


def planned(*sets: str, text: str = CPU_1P1D) -> Plan:
    return resolve(topology(text, KIND, *sets), facts(cpu(), router="/peers/vllm-router"))


def test_the_router_is_told_of_all_workers_and_starts_after_them() -> None:
    plan = planned("roles.decode.workers=2", "frontend.routing=cache-aware", "frontend.args.max-payload-size=1000")
    router, urls = plan.process("frontend"), {worker.id: worker.probes.url for worker in plan.workers()}
    assert plan.router == "vllm-router"
    assert router.argv == (
        *("/peers/vllm-router", "--host", "127.0.0.1", "--port", "8000", "--policy", "cache_aware"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(router.ports["metrics"])),
        *("--vllm-pd-disaggregation", "--kv-connector", "nixl"),
        *("--prefill", urls["prefill-0"], "none"),
        *("--decode", urls["decode-0"], "--decode", urls["decode-1"]),
        *("--health-check-interval-secs", "5", "--cb-timeout-duration-secs", "5"),
        *("--worker-startup-check-interval", "1", "--worker-startup-timeout-secs", "1800"),
        *("--max-payload-size", "1000"),
    )
    assert set(router.needs) == set(urls)
    assert router.probes.health == "/liveness"
    ports = [port for process in plan.processes for port in process.ports.values()]
    assert len(set(ports)) == len(ports)


def test_workers_that_do_both_are_refused() -> None:
    with pytest.raises(UsageError, match="prefill and decode workers only") as caught:
        planned(text=AGGREGATED)
    assert "frontend.kind" in f"{caught.value.where} {caught.value.cause}"
    assert "built-in frontend" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ("frontend.resume=true", "frontend.resume", "built-in frontend's alone"),
        ("frontend.admission.running=4", "frontend.admission", "built-in frontend's alone"),
        ("frontend.api_keys_file=./keys", "frontend.api_keys_file", "built-in frontend's alone"),
        ("frontend.migration_limit=1", "frontend.migration_limit", "Dynamo's alone"),
        ("frontend.routing=least-loaded", "frontend.routing", "which vllm-router does not have"),
        ("frontend.routing=kv-aware", "frontend.routing", "which vllm-router does not have"),
        ("frontend.args.port=1", "frontend.args.port", "set by dynctl"),
        ("frontend.args.api-key=x", "frontend.args.api-key", "set by dynctl"),
        ("engine=dynamo-vllm", "frontend.kind", "does not go with the engine"),
    ],
)
def test_what_it_has_not_is_refused_with_the_reason(change: str, where: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(change)
    assert where in f"{caught.value.where} {caught.value.cause}"
    assert words in caught.value.cause
    assert caught.value.fix


def test_it_serves_this_machine_alone() -> None:
    with pytest.raises(UsageError, match="others can reach") as caught:
        planned("frontend.host=0.0.0.0", "frontend.allow_public=true")
    assert "/add_worker" in str(caught.value.why)


def test_its_metrics_are_summed_over_workers_and_routes() -> None:
    found = figures(
        'vllm_router_pd_requests_total{route="/v1/completions"} 3\n'
        'vllm_router_pd_requests_total{route="/v1/chat/completions"} 4\n'
        'vllm_router_pd_errors_total{error_type="server_selection"} 9\n'
        'vllm_router_pd_prefill_errors_total{worker="http://127.0.0.1:1"} 1\n'
        'vllm_router_pd_active_decode_requests{worker="a",rank="aggregate"} 2\n'
        'vllm_router_pd_request_duration_seconds_count{route="/v1/completions"} 3\n'
    )
    assert (found.total, found.errors, found.in_flight, found.finished) == (16, 10, 2, 12)
    assert figures("no metrics").total == 0
