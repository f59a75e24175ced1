"""Proof of correctness: the KV that decode received is the prompt's, or verification says where tokens part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from dynctl.engines.tiny import tiny_model_dir
from dynctl.plan.values import Plan
from dynctl.proof import verify
from dynctl.proof.client import ProofClient, ProofError
from dynctl.proof.pair import settled
from tests.integration.run_harness import Home
from tests.integration.test_up_failures import failed

TINY = {"model": "builtin:tiny"}
ONE_LENGTH = """
from dynctl.proof import verify
spoken = verify.prompt  # one length for all, so that the hand-over of one fits another
verify.prompt = lambda seed, words: spoken(seed, words)[:1500]
"""
SWAPPED = """
from dynctl.frontend.legs import Handover
own, seen = Handover.decode_params, []
def of_the_one_before(self, request_id, reply):
    seen.append(own(self, request_id, reply))
    return seen[-2] if len(seen) > 3 else seen[-1]  # the first two are the pair's proof
Handover.decode_params = of_the_one_before
"""


def make_tiny(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in model as if it had been made before: the fake engine has none of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", home.env["XDG_CACHE_HOME"])
    shutil.copytree(home.model, tiny_model_dir())


def test_the_built_in_model_is_verified_unasked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(home, monkeypatch)
    home.up(TINY)
    found = home.status()["verify"]
    assert (found["state"], found["prompts"], found["tokens"]) == ("passed", 3, 48)
    handed, alone = home.requests("decode")[-6:-3], home.requests("decode")[-3:]
    assert all(request["kv_bytes"] > 0 for request in handed)
    assert not any(request["kv_bytes"] for request in alone)


def test_verification_can_be_left_out_and_asked_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(home, monkeypatch)
    home.up(TINY, "--no-verify")
    assert home.status()["verify"]["state"] == "off"
    assert home.run("down", home.name).code == 0
    home.up(None, "--verify")
    assert home.status()["verify"]["state"] == "passed"


def swap(home: Home) -> None:
    """From here on the frontend hands each request the KV of the one before it."""
    home.hook("_supervise", ONE_LENGTH)
    home.hook("frontend", SWAPPED)


def test_swapped_hand_overs_turn_it_red(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(home, monkeypatch)
    swap(home)
    error = failed(home, home.run("up", "-d", home.topology(TINY)), 1)
    assert "verification failed" in error["error"][0]
    assert "through prefill -> decode" in error["why"][0]
    (said,) = [e for e in home.events() if e["kind"] == "verify"]
    assert said["state"] == "failed"


def test_a_real_model_is_only_warned_of(home: Home) -> None:
    swap(home)
    home.up(None, "--verify")
    found = home.status()["verify"]
    assert found["state"] == "warned"
    assert "token 0 is" in found["detail"]


def client(home: Home) -> tuple[ProofClient, Plan]:
    """Speaks directed requests to a running run, with its token."""
    plan = msgspec.json.decode((home.run_dir / "plan.json").read_bytes(), type=Plan)
    metrics = {p.id: f"{p.probes.url}{p.probes.metrics}" for p in plan.workers()}
    return ProofClient(home.url, (home.run_dir / "token").read_text(), plan.served_name, metrics), plan


async def test_one_wrong_token_is_found_where_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.up()
    speaker, plan = client(home)

    async def settled_and_now_wrong(*arguments: object) -> object:
        found = await settled(*arguments)  # type: ignore[arg-type]
        home.control(decode={"wrong_token": 5})
        return found

    monkeypatch.setattr(verify, "settled", settled_and_now_wrong)
    async with speaker:
        result = await verify.verify_pair(speaker, plan.transport.pairs[0], plan.kv, mover="decode-0")
    assert [(found.prompt, found.position) for found in result.divergences] == [(0, 5), (1, 5), (2, 5)]


async def test_kv_that_stays_where_it_is_is_no_proof(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynctl.proof.pair.SETTLE_S", 0.5)
    home.up()
    home.control(decode={"no_transfer": True})
    speaker, plan = client(home)
    async with speaker:
        with pytest.raises(ProofError, match="0 KV bytes moved"):
            await verify.verify_pair(speaker, plan.transport.pairs[0], plan.kv, mover="decode-0")


def test_a_directed_request_needs_the_runs_token(home: Home) -> None:
    home.up()
    import httpx

    body = {"model": "fake", "prompt": "hi", "max_tokens": 1}
    headers = {"X-Dynctl-Pair": "decode-0", "X-Dynctl-Token": "guessed"}
    answer = httpx.post(f"{home.url}/v1/completions", json=body, headers=headers, timeout=60, trust_env=False)
    assert 400 <= answer.status_code < 500
    assert json.loads(answer.text)["error"]["message"]
    token = Path(home.run_dir / "token")
    assert token.stat().st_mode & 0o077 == 0
