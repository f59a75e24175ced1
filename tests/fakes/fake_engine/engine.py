"""The fake engine proper: prompts in, tokens out, KV handed over, everything counted."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from prometheus_client import Gauge

from . import tokens
from .config import EngineConfig
from .control import Control, Knobs
from .kv import BlockPool, Tokens, split
from .metrics import Metrics
from .parts import READ, STEP, Group, PartGoneError
from .protocol import Job, RequestError
from .sidechannel import HandshakeError, Pull, SideChannel, pulled
from .startup import say
from .ucx import UcxLog, UcxRefusedError


class EngineDeadError(Exception):
    """The engine core is gone; every request fails and the server ends."""


class Output(msgspec.Struct):
    """One sequence as it grows, and the hand-over that its end brings."""

    prompt: list[int]
    ids: list[int]
    kv_bytes: int = 0
    kv: dict[str, Any] | None = None


class Stay:
    """Counts one request in the gauge of where it is."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        gauge.inc()

    def move(self, gauge: Gauge) -> None:
        """From waiting to running."""
        self._gauge.dec()
        self._gauge = gauge
        gauge.inc()

    def leave(self) -> None:
        """The request is over."""
        self._gauge.dec()


class Engine:
    """One worker's state. `run` is the whole of its work."""

    def __init__(self, config: EngineConfig, control: Control, ucx: UcxLog, group: Group) -> None:
        self.config = config
        self.control = control
        self.engine_id = str(uuid.uuid4())
        self.metrics = Metrics(config.served_names[0])
        if config.role != "worker":
            self.metrics.add_nixl()
        self.pool = BlockPool(config.block_size)
        self.ucx = ucx
        self._group = group
        self.side = SideChannel(self.engine_id, self.pool, self._lease_s(), self._was_read)
        self.dead = False
        self.core: int | None = None  # pid of the engine core; while it is stopped, nothing is computed

    async def run(self, job: Job, prompt: list[int], output: Output) -> AsyncGenerator[int, None]:
        """Yield the tokens after `prompt` one by one, filling `output`. Cancelling it is an abort."""
        knobs, metrics, arrived = self.control.read(), self.metrics, time.perf_counter()
        stay = Stay(metrics.waiting)
        reason = "abort"
        try:
            kv = await self._prepare(job, prompt, output, knobs, stay)
            metrics.first_token_s.observe(time.perf_counter() - arrived)
            async with contextlib.aclosing(self._generate(tokens.Model(kv, job.seed), job, output, knobs)) as stream:
                async for token in stream:
                    yield token
            reason = "length"
            metrics.e2e_s.observe(time.perf_counter() - arrived)
        except (RequestError, EngineDeadError):
            reason = "error"
            raise
        finally:
            stay.leave()
            metrics.finished(reason)

    async def _prepare(self, job: Job, prompt: list[int], output: Output, knobs: Knobs, stay: Stay) -> list[int]:
        """From arrival to the first token: the tokens that the KV stands for. Waiting for remote KV is waiting."""
        arrived = time.perf_counter()
        await _pause(knobs.queue_delay_ms)
        await self._core_runs()
        kv = await self._remote_kv(job, prompt, output, knobs)
        scheduled = time.perf_counter()
        self.metrics.queue_s.observe(scheduled - arrived)
        stay.move(self.metrics.running)
        if kv is None:
            kv = await self._compute_kv(job, prompt, output, knobs)
        if not job.kv.get("do_remote_decode"):
            await _pause(knobs.first_token_delay_ms)
        self.metrics.prefill_s.observe(time.perf_counter() - scheduled)
        return kv

    async def _generate(self, model: tokens.Model, job: Job, output: Output, knobs: Knobs) -> AsyncGenerator[int, None]:
        first = last = time.perf_counter()
        for number in range(job.max_tokens):
            if number:
                await _pause(knobs.token_delay_ms)
                now = time.perf_counter()
                self.metrics.inter_token_s.observe(now - last)
                last = now
            await self._core_runs()
            self._check(number, knobs)
            output.ids.append(model.next(wrong=number == knobs.wrong_token))
            self.metrics.generation_tokens.inc()
            yield output.ids[-1]
        self.metrics.decode_s.observe(last - first)

    def exposition(self) -> bytes:
        """/metrics, with the leases that ended since the last look."""
        if self.config.role != "worker":
            before = self.pool.expired
            for request in self.pool.expire():
                say(
                    f"WARNING Releasing expired KV blocks for request {request} which were "
                    "retrieved by 0 remote worker(s) before lease expired."
                )
            self.metrics.expired.inc(self.pool.expired - before)
            self.metrics.late.inc(self.side.notified_late)
            self.side.notified_late = 0
        return self.metrics.text()

    async def _core_runs(self) -> None:
        """Waits while a signal has stopped the engine core: the server answers, the engine makes nothing."""
        while self.core and _is_stopped(self.core):
            await asyncio.sleep(0.05)
        await self._together(STEP)

    async def _together(self, what: bytes) -> None:
        """What the parts on other nodes do, too."""
        try:
            await self._group.step(what)
        except PartGoneError:
            self.dead = True
            raise EngineDeadError(
                "EngineCore encountered an issue. See stack trace (above) for the root cause."
            ) from None

    def _check(self, number: int, knobs: Knobs) -> None:
        if self.dead or number == knobs.crash_after_tokens:
            self.dead = True
            raise EngineDeadError("EngineCore encountered an issue. See stack trace (above) for the root cause.")
        if number == knobs.fail_after_tokens:
            raise RequestError("The fake engine was told to fail here.", status=500, kind="InternalServerError")

    async def _compute_kv(self, job: Job, prompt: list[int], output: Output, knobs: Knobs) -> list[int]:
        """The prompt computed here, but for what the prefix cache holds; blocks are kept where a reader will come."""
        size, held = self.config.block_size, self.pool.hits(prompt, job.salt)
        await _pause(knobs.prefill_delay_ms)
        blocks = self.pool.store(prompt, job.salt, split(prompt, size, len(held) * size), held)
        self._count_prompt(len(prompt), len(held) * size)
        if job.kv.get("do_remote_decode"):
            output.kv = self._hand_over(job, prompt, blocks, len(held) * size, knobs)
        return [token for block in self.pool.read(blocks) for token in block]

    async def _remote_kv(self, job: Job, prompt: list[int], output: Output, knobs: Knobs) -> list[int] | None:
        """The KV that another engine computed, or None where this one has to compute it.

        As in vLLM, blocks hit here are not transferred, the last of the remote blocks fill the rest, and the prompt's
        last token is computed here, whatever the remote blocks say.
        """
        if not job.kv.get("do_remote_prefill") or self.config.role not in ("decode", "both") or knobs.no_transfer:
            return None
        held = self.pool.hits(prompt, job.salt)
        wanted = self.pool.blocks_for(len(prompt)) - len(held)
        remote: list[int] = job.kv["remote_block_ids"][0] if job.kv["remote_block_ids"] else []
        if wanted > len(remote):
            say("ERROR AssertionError: assert num_decode_blocks <= len(prefill_group)")
            self.dead = True
            raise EngineDeadError("EngineCore encountered an issue. See stack trace (above) for the root cause.")
        self._count_external(len(prompt), len(held))
        contents = await self._transfer(job, remote[-wanted:], output, knobs)
        blocks = self.pool.store(prompt, job.salt, contents, held)
        known = [token for block in self.pool.read(blocks) for token in block]
        return [*known[: len(prompt) - 1], prompt[-1]]

    async def _transfer(self, job: Job, blocks: list[int], output: Output, knobs: Knobs) -> Sequence[Tokens]:
        params, push = job.kv, self.config.push
        if push and not params["remote_request_id"].startswith(job.request_id + "-"):
            # The writer pairs the two legs by their X-Request-Id; a reader that no one knows waits, and waits.
            await asyncio.Event().wait()
        pull = Pull(
            engine=params["remote_engine_id"],
            request=params["remote_request_id"],
            blocks=blocks,
            reader=self.engine_id,
        )
        started = time.perf_counter()
        try:
            async with pulled(params["remote_host"], params["remote_port"], pull) as contents:
                self.ucx.connect()
                if not push:
                    self.ucx.read()
                    await self._together(READ)
                await _pause(knobs.transfer_delay_ms)
        except (HandshakeError, UcxRefusedError) as error:
            kind = "handshake_failed" if isinstance(error, HandshakeError) else str(error)
            say(f"ERROR NIXL transfer failure: {kind} | Context: {error}")
            say("ERROR Failing 1 request(s) due to KV load failure (failure_policy=fail)")
            self.metrics.failed_transfers.inc()
            raise RequestError("Internal server error", status=500, kind="InternalServerError") from error
        output.kv_bytes = len(blocks) * self._block_bytes()
        if not push:
            self._count_transfer(len(blocks), time.perf_counter() - started)
        return contents

    def _was_read(self, pull: Pull) -> None:
        """The prefill side of a transfer. With the push connector it is this side that writes, and counts."""
        self.ucx.connect()
        if self.config.push:
            self._count_transfer(len(pull.blocks), 1e-4)

    def _hand_over(self, job: Job, prompt: list[int], blocks: list[int], cached: int, knobs: Knobs) -> dict[str, Any]:
        request = f"{job.request_id}-{'' if job.chat else '0-'}{secrets.token_hex(4)}"
        self.pool.lease(request, blocks, knobs.lease_s or self._lease_s())
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [blocks],
            "remote_engine_id": self.engine_id,
            "remote_request_id": request,
            "remote_host": self.config.side_host,
            "remote_port": self.config.side_port,
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": len(prompt),
            "remote_blocks_expiry_time": None,
            "transfer_mode": "push" if self.config.push else "pull",
            "remote_prefill_cached_tokens": cached,
        }

    def _count_prompt(self, length: int, hit: int) -> None:
        self.metrics.prompt_tokens.inc(length)
        self.metrics.prefix_queries.inc(length)
        self.metrics.prefix_hits.inc(hit)

    def _count_external(self, length: int, held: int) -> None:
        hit = held * self.config.block_size
        self._count_prompt(length, hit)
        self.metrics.external_queries.inc(length - hit)
        self.metrics.external_hits.inc(length - hit)

    def _count_transfer(self, blocks: int, seconds: float) -> None:
        self.metrics.bytes.observe(blocks * self._block_bytes())
        self.metrics.xfer_s.observe(seconds)
        self.metrics.post_s.observe(min(seconds, 2e-4))
        self.metrics.descriptors.observe(4)

    def _block_bytes(self) -> int:
        return self.config.block_size * self.config.kv_bytes_per_token

    def _lease_s(self) -> float:
        return self.config.lease_s


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False


async def _pause(milliseconds: float) -> None:
    await asyncio.sleep(milliseconds / 1000)
