"""How a pair is proven through Dynamo's frontend: directed by worker ids, and the answer names who has served it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TypeVar

import httpx
import msgspec

from dynctl.proof.client import Completion, ProofClient, ProofError

DECODE_HEADER = "x-dynamo-worker-instance-id"
PREFILL_HEADER = "x-dynamo-prefill-instance-id"
POLL_S = 0.1
ROUTE_S = 20.0
"""So long after the frontend has listed a worker its router may still not know it."""
_T = TypeVar("_T")
_WORKER = re.compile(r'^dynamo_component_uptime_seconds\{[^}]*worker_id="([0-9a-f]+)"', re.M)


class _Ids(msgspec.Struct, frozen=True):
    prefill_worker_id: int | None = None
    decode_worker_id: int | None = None


class _Nvext(msgspec.Struct, frozen=True):
    worker_id: _Ids = _Ids()
    completion_token_ids: list[int] = []


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int


class _Answer(msgspec.Struct, frozen=True):
    """The part of an answer of /v1/completions that is read here."""

    id: str
    usage: _Usage
    nvext: _Nvext = _Nvext()


class _Instance(msgspec.Struct, frozen=True):
    instance_id: int


class _Health(msgspec.Struct, frozen=True):
    instances: list[_Instance] = []


class _Ready(msgspec.Struct, frozen=True):
    ready: bool
    reason: str | None = None


def worker_id(metrics: str) -> int | None:
    """The id by which Dynamo knows a worker, from the text of the worker's own metrics."""
    found = _WORKER.search(metrics)
    return int(found[1], 16) if found else None


class DynamoClient(ProofClient):
    """Sends directed requests. `metrics` maps process ids to the URL of their /metrics, on their system port."""

    @cached_property
    def _ids(self) -> dict[str, int]:
        """Dynamo's ids of workers, by process id, as they are learned."""
        return {}

    async def reach(self, *workers: str) -> str | None:
        """Returns once the frontend lists all of them and says that the model has every type of worker it needs."""
        reason = "no answer"
        while True:
            for worker in workers:
                if (found := await self._look_up(worker)) is not None:
                    self._ids[worker] = found
            try:
                listed = await self._get(f"{self._url}/health", _Health)
                ready = await self._get(f"{self._url}/v1/models/{self._model}/ready", _Ready)
            except (httpx.HTTPError, msgspec.DecodeError):
                listed, ready = _Health(), _Ready(ready=False, reason=reason)
            here = {instance.instance_id for instance in listed.instances}
            if ready.ready and all(self._ids.get(worker) in here for worker in workers):
                return "Dynamo's frontend lists " + " and ".join(workers)
            await asyncio.sleep(POLL_S)

    async def complete(
        self, prompt: str, *, route: str, salt: str, max_tokens: int, logprobs: int | None = None
    ) -> Completion:
        """A greedy completion over `route` ("prefill-0>decode-0", or "worker-0" alone). ProofError if others served."""
        prefill, _, decode = route.rpartition(">")
        wanted = _Ids(prefill_worker_id=self._ids.get(prefill), decode_worker_id=self._ids.get(decode))
        headers = {DECODE_HEADER: str(wanted.decode_worker_id)}
        if prefill:
            headers[PREFILL_HEADER] = str(wanted.prefill_worker_id)
        answer = await self._ask(route, self._body(prompt, max_tokens), headers)
        self.asked.add(answer.id.removeprefix("cmpl-"))
        served = answer.nvext.worker_id
        if served.decode_worker_id != wanted.decode_worker_id or (
            prefill and served.prefill_worker_id != wanted.prefill_worker_id
        ):
            names = {number: worker for worker, number in self._ids.items()}
            raise ProofError(
                f"{route}: served by {_named(served.prefill_worker_id, names)} and "
                f"{_named(served.decode_worker_id, names)} instead"
            )
        tokens = tuple(answer.nvext.completion_token_ids)
        return Completion(prompt_tokens=answer.usage.prompt_tokens, token_ids=tokens)

    def _body(self, prompt: str, max_tokens: int) -> bytes:
        return msgspec.json.encode(
            {
                "model": self._model,
                "prompt": prompt,
                "max_tokens": max_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "nvext": {"extra_fields": ["worker_id", "completion_token_ids"]},
            }
        )

    async def _ask(self, route: str, body: bytes, headers: Mapping[str, str]) -> _Answer:
        """Asks again, for a while, where the router does not know a worker yet that the frontend has listed."""
        deadline = time.monotonic() + ROUTE_S
        while True:
            try:
                response = await self._http.post(
                    f"{self._url}/v1/completions", content=body, headers={**headers, "content-type": "application/json"}
                )
            except httpx.HTTPError as error:
                raise ProofError(f"{route}: {type(error).__name__}: {error}") from error
            if response.status_code == 200:
                try:
                    return msgspec.json.decode(response.content, type=_Answer)
                except msgspec.DecodeError as error:
                    raise ProofError(f"{route}: the answer is not what Dynamo sends: {error}") from error
            if response.status_code not in (400, 404, 503) or time.monotonic() > deadline:
                raise ProofError(f"{route}: HTTP {response.status_code}: {response.text[:500]}")
            await asyncio.sleep(POLL_S)

    async def _look_up(self, worker: str) -> int | None:
        try:
            return worker_id((await self._http.get(self._metrics[worker])).text)
        except httpx.HTTPError:
            return None

    async def _get(self, url: str, kind: type[_T]) -> _T:
        return msgspec.json.decode((await self._http.get(url)).content, type=kind)


def _named(number: int | None, names: Mapping[int, str]) -> str:
    return "nobody" if number is None else names.get(number, f"worker {number:x}")
