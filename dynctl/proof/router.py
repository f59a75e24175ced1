"""How a run behind vllm-router is proven: it takes no directions, so that pairs are asked at the engines themselves."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid

import httpx
import msgspec

from dynctl.frontend.body import decode_body, parse_fields, prefill_body
from dynctl.frontend.legs import Handover
from dynctl.plan.values import Plan, mover
from dynctl.proof.client import Completion, ProofClient, ProofError
from dynctl.proof.pair import POLL_S, PROOF_TOKENS, PROOF_WORDS, SETTLE_S, check_bytes, expected_bytes
from dynctl.proof.prompt import prompt

JSON = {"content-type": "application/json"}


class RouterClient(ProofClient):
    """Sends both legs of a directed request itself; `through` leaves them to the router."""

    async def complete(
        self, prompt: str, *, route: str, salt: str, max_tokens: int, logprobs: int | None = None
    ) -> Completion:
        """A greedy completion by those engines ("prefill-0>decode-0", or "decode-0" alone)."""
        prefill, _, decode = route.rpartition(">")
        body = msgspec.json.encode(self._document(prompt, salt, max_tokens, logprobs))
        headers = {**JSON, "x-request-id": f"dynctl-{uuid.uuid4().hex}"}
        if prefill:
            body = decode_body(
                body, await self._prefill(route, f"{self._engine(prefill)}/v1/completions", body, headers)
            )
        return await self._stream(route, f"{self._engine(decode)}/v1/completions", body, headers)

    async def through(self, prompt: str, max_tokens: int, salt: str) -> Completion:
        """A completion by the workers that the router chooses. It counts among its users', so that `asked` takes it."""
        number = f"dynctl-{uuid.uuid4().hex}"
        self.asked.add(number)
        body = msgspec.json.encode(self._document(prompt, salt, max_tokens, None))
        return await self._stream("vllm-router", f"{self._url}/v1/completions", body, {**JSON, "x-request-id": number})

    async def _prefill(self, route: str, url: str, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            reply = await self._http.post(url, content=prefill_body(parse_fields(body)), headers=headers)
        except httpx.HTTPError as error:
            raise ProofError(f"{route}: the prefill leg: {type(error).__name__}: {error}") from error
        if reply.status_code != 200:
            raise ProofError(f"{route}: the prefill leg: HTTP {reply.status_code}: {reply.text[:500]}")
        try:
            params = Handover().decode_params(route, reply.content)
        except msgspec.DecodeError as error:
            raise ProofError(f"{route}: the prefill leg's answer is not what vLLM sends: {error}") from error
        if params is None:
            raise ProofError(f"{route}: the prefill leg kept no KV cache")
        return params

    def _engine(self, process: str) -> str:
        """The engine's URL: its metrics are there, too."""
        return self._metrics[process].rpartition("/")[0]


async def prove_router(client: ProofClient, plan: Plan) -> int:
    """The KV bytes that a completion through the router has moved. ProofError unless they are as many as expected."""
    assert isinstance(client, RouterClient)  # noqa: S101 - of such a plan
    movers = {mover(pair, plan.transport.direction) for pair in plan.transport.pairs}
    before = await _moved(client, movers)
    seed = secrets.token_hex(8)
    answer = await client.through(prompt(seed, PROOF_WORDS), PROOF_TOKENS, seed)
    least, most = expected_bytes(plan.kv, answer.prompt_tokens)
    deadline = time.monotonic() + SETTLE_S
    while True:
        moved = await _moved(client, movers) - before
        if moved >= max(1, least) or time.monotonic() > deadline:
            break
        await asyncio.sleep(POLL_S)
    check_bytes("vllm-router", moved, least, most)
    return moved


async def _moved(client: ProofClient, movers: set[str]) -> int:
    return sum([int((await client.sample(process)).kv_bytes) for process in sorted(movers)])
