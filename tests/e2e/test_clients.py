"""Real clients against a real deployment: the OpenAI SDK hears what vLLM itself says; load tools end without error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from dynctl.plan.values import Plan
from tests.e2e.deployment import Deployment
from tests.e2e.sdk_cases import CASES, Case

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

T = dict[str, Any]
MAY_DIFFER = {"created", "created_at", "completed_at"}
"""Times. Ids are the same, as both sides get the same X-Request-Id; but for those that vLLM draws for `responses`."""
DRAWN = {"id", "item_id"}
GROWS = {
    "text",
    "content",
    "arguments",
    "reasoning",
    "token_ids",
    "tokens",
    "token_logprobs",
    "top_logprobs",
    "text_offset",
}
"""Members of a choice that a stream tells piece by piece."""
TOOLS = "{enable-auto-tool-choice: true, tool-call-parser: hermes}"
UNCOMPILED = "{TORCH_COMPILE_DISABLE: '1'}"
"""The engine's first logprobs would else compile C++ for a minute or more, which a busy machine takes for a stall."""


SETS = tuple(
    f"roles.{role}.{what}" for role in ("prefill", "decode") for what in (f"env={UNCOMPILED}", f"args={TOOLS}")
)


@pytest.fixture(scope="module")
def sides(cpu_1p1d: Deployment) -> dict[str, openai.OpenAI]:
    """Clients of the frontend, and of the decode worker's own server."""
    (path,) = cpu_1p1d.directory.glob(f"state/dynctl/*/{cpu_1p1d.name}/plan.json")
    plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    (engine,) = [str(worker.probes.url) for worker in plan.workers() if worker.role == "decode"]
    return {
        name: openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
        for name, url in (("frontend", cpu_1p1d.url), ("engine", engine))
    }


def ask(client: openai.OpenAI, case: Case, name: str, *, stream: bool) -> Any:
    """The answer as plain values: status and error, a whole answer, or all events."""
    method: Any = {
        "completions": client.completions.create,
        "chat": client.chat.completions.create,
        "responses": client.responses.create,
    }[case.kind]
    given = {key: value for key, value in {"model": "tiny", **case.ask}.items() if value is not None}
    if stream and case.kind != "responses":
        given["stream_options"] = {"include_usage": True}
    headers = {"X-Request-Id": name.replace(" ", "-").replace(",", "")}
    try:
        found = method(**given, stream=stream, extra_body=case.extra, extra_headers=headers)
        events = list(found) if stream else [found]
    except openai.APIStatusError as error:
        return {"status": error.status_code, "error": error.body}
    plain = [cleaned(event.model_dump(exclude_unset=True), drawn=case.kind == "responses") for event in events]
    if not stream:
        return plain[0]
    return joined_items(plain) if case.kind == "responses" else joined(plain)


def cleaned(value: Any, *, drawn: bool) -> Any:
    """Without what may differ."""
    if isinstance(value, dict):
        left_out = MAY_DIFFER | (DRAWN if drawn else set())
        left_out |= {"id"} if str(value.get("id")).startswith("chatcmpl-tool-") else set()
        return {key: cleaned(item, drawn=drawn) for key, item in value.items() if key not in left_out}
    return [cleaned(item, drawn=drawn) for item in value] if isinstance(value, list) else value


def joined(chunks: list[T]) -> T:
    """A stream by choice: which tokens share a chunk, and whose comes first, is a matter of timing."""
    heads = {json.dumps({k: v for k, v in chunk.items() if k not in ("choices", "usage")}) for chunk in chunks}
    choices: dict[int, T] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            added(choices.setdefault(choice["index"], {}), choice)
    return {"heads": sorted(heads), "choices": choices, "usage": chunks[-1].get("usage"), "last": chunks[-1]["choices"]}


def joined_items(events: list[T]) -> T:
    """The events of `responses`, deltas put together."""
    deltas: dict[str, str] = {}
    others = []
    for event in events:
        event.pop("sequence_number", None)
        if isinstance(event.get("delta"), str):
            deltas[event["type"]] = deltas.get(event["type"], "") + event["delta"]
        else:
            others.append(event)
    return {"deltas": deltas, "others": others}


def added(whole: T, part: T) -> None:
    """Text and lists go on, objects grow, everything else is what it last was."""
    for key, value in part.items():
        known = whole.get(key)
        if isinstance(value, dict):
            whole[key] = known if isinstance(known, dict) else {}
            added(whole[key], value)
        elif key == "tool_calls" and isinstance(value, list):
            for call in value:
                added(whole.setdefault(key, {}).setdefault(call["index"], {}), call)
        elif key in GROWS and known is not None and value is not None:
            whole[key] = known + value
        elif value is not None or key not in whole:
            whole[key] = value


def close(value: Any) -> Any:
    """Probabilities differ in their last digits with the shapes that a batch happens to have."""
    if isinstance(value, dict):
        return {key: close(item) for key, item in value.items()}
    if isinstance(value, list):
        return [close(item) for item in value]
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value


@pytest.mark.parametrize("name", CASES)
def test_the_sdk_gets_what_the_engine_itself_would_say(sides: dict[str, openai.OpenAI], name: str) -> None:
    case = CASES[name]
    for stream in (False, True) if case.streamed else (False,):
        found = {side: ask(client, case, name, stream=stream) for side, client in sides.items()}
        assert found["frontend"] == close(found["engine"]), stream
        refused = {"status", "error"} == set(found["engine"])
        assert refused is case.refused, found["engine"]
        if not refused and not stream and case.kind != "responses":
            usage = found["frontend"]["usage"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_models_are_those_of_the_engine(sides: dict[str, openai.OpenAI]) -> None:
    found = {
        side: [cleaned(model.model_dump(), drawn=False) for model in client.models.list().data]
        for side, client in sides.items()
    }
    for models in found.values():
        for model in models:
            for permission in model["permission"]:
                permission.pop("id")
    assert found["frontend"] == found["engine"]
    assert [model["id"] for model in found["frontend"]] == ["tiny"]


def test_two_legs_served_what_could_be_handed_over(cpu_1p1d: Deployment, sides: dict[str, openai.OpenAI]) -> None:
    """The comparison is one of prefill and decode with decode alone, not of decode with itself."""
    sides["frontend"].completions.create(model="tiny", prompt="Seven boats today", max_tokens=4)
    records = run_requests(cpu_1p1d)
    assert records[0]["mode"] == "disaggregated"
    assert {record["mode"] for record in records} == {"disaggregated", "decode-only"}


def run_requests(run: Deployment) -> list[T]:
    """What the frontend tells of its last requests."""
    found: list[T] = httpx.get(f"{run.url}/dynctl/requests", trust_env=False, timeout=30).json()["requests"]
    return found


def test_vllm_bench_serve_ends_without_an_error(cpu_1p1d: Deployment, tiny_model: Path, engine_python: str) -> None:
    """vLLM's own load generator; its command line needs package metadata that the CPU wheel has under another name."""
    code = (
        "import argparse; from vllm.benchmarks import serve; p = argparse.ArgumentParser(); serve.add_cli_args(p);"
        " serve.main(p.parse_args())"
    )
    argv = [engine_python, "-c", code, "--backend", "openai", "--base-url", cpu_1p1d.url, "--model", "tiny"]
    argv += ["--endpoint", "/v1/completions", "--tokenizer", str(tiny_model), "--dataset-name", "random"]
    argv += ["--random-input-len", "64", "--random-output-len", "8", "--num-prompts", "12", "--max-concurrency", "4"]
    argv += ["--ignore-eos", "--disable-tqdm", "--save-result", "--result-filename", "result.json"]
    ran([*argv, "--result-dir", str(cpu_1p1d.directory)])
    result = json.loads((cpu_1p1d.directory / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (12, 0)
    assert result["total_output_tokens"] == 12 * 8


def test_aiperf_ends_without_an_error(cpu_1p1d: Deployment, tiny_model: Path) -> None:
    """Every request is served, and counted as long as the frontend's usage says."""
    aiperf = find_aiperf()
    folder = cpu_1p1d.directory / "aiperf"
    argv = [aiperf, "profile", "--model", "tiny", "--url", cpu_1p1d.url, "--streaming", "--endpoint-type", "chat"]
    argv += ["--tokenizer", str(tiny_model), "--use-server-token-count", "--isl", "64", "--osl", "8"]
    argv += ["--extra-inputs", "ignore_eos:true", "--concurrency", "4", "--request-count", "12", "--ui", "none"]
    argv += ["--workers-max", "1", "--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", str(folder)]
    ran(argv, {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"})
    (export,) = folder.rglob("profile_export_aiperf.json")
    result = json.loads(export.read_text())
    assert result["request_count"]["avg"] == 12
    assert result.get("error_summary", []) == []
    assert result["output_sequence_length"]["avg"] == 8


def find_aiperf() -> str:
    """$AIPERF, the one on $PATH, or the one that scripts/other_tools.py installed; a skip where there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynctl" / "peers"
    places = [os.environ.get("AIPERF"), shutil.which("aiperf"), *map(str, cache.glob("aiperf-*/bin/aiperf"))]
    found = next(filter(None, places), None)
    if found is None:
        pytest.skip("aiperf is not installed: `pip install aiperf==0.13.0` somewhere, and name it in $AIPERF")
    return found


def ran(argv: list[str], env: dict[str, str] | None = None) -> None:
    """The tool ended with 0."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False, env=env)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
