"""vLLM's HTTP surface over the fake engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from . import shapes, tokens
from .engine import Engine, EngineDeadError, Output
from .protocol import Job, RequestError, parse_body, understand
from .record import Recorder

_CANARY = "dynctl-canary-"
_DEAD = RequestError(
    "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    status=500,
    kind="InternalServerError",
)


class Ticket(msgspec.Struct):
    """What is told about a request when it is over."""

    number: int
    path: str
    started_s: float
    request_id: str = ""
    status: int = 0
    outputs: list[Output] = []


class Server:
    """Handlers. `crash` ends the process and its children at once; `core_died` is told when the engine is lost."""

    def __init__(self, engine: Engine, recorder: Recorder, crash: Callable[[], None], core_died: Callable[[], None]):
        self._engine = engine
        self._recorder = recorder
        self._crash = crash
        self._core_died = core_died
        self._requests = 0

    def application(self) -> web.Application:
        """Routes, with vLLM's guard on /v1 where there is an API key."""
        app = web.Application(middlewares=[self._guard], client_max_size=64 << 20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ping", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._engine.control.read().garbage and request.transport:
            request.transport.write(b"\x00\x01 this is no HTTP \xff\r\n\r\n")
            request.transport.close()
        key = self._engine.config.api_key
        asked = (
            request.path not in ("/health", "/metrics") if self._engine.config.guarded else "/v1" in request.path[:3]
        )
        if key and asked and request.headers.get("Authorization") != f"Bearer {key}":
            return _json({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except RequestError as error:
            return _json(error.body(), status=error.status)
        except web.HTTPNotFound:
            return _json({"detail": "Not Found"}, status=404)
        except web.HTTPMethodNotAllowed:
            return _json({"detail": "Method Not Allowed"}, status=405)

    async def _health(self, _: web.Request) -> web.Response:
        # A lost engine core does not show here: vLLM still says 200 right after it.
        return web.Response(status=self._engine.control.read().health_status)

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"version": "0.32.0"})

    async def _metrics(self, _: web.Request) -> web.Response:
        text = self._engine.exposition()
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _models(self, _: web.Request) -> web.Response:
        return _json(shapes.model_list(self._engine.config))

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = parse_body(await request.read())
        ids = tokens.render_chat(body["messages"]) if "messages" in body else tokens.encode(body["prompt"])
        length = self._engine.config.max_model_len
        return _json({"count": len(ids), "max_model_len": length, "tokens": ids, "token_strs": None})

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = parse_body(await request.read())
        return _json({"prompt": tokens.decode(body["tokens"])})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, chat=True)

    async def _serve(self, request: web.Request, chat: bool) -> web.StreamResponse:
        """One request from arrival to record. A client that goes away cancels this."""
        if request.headers.get("X-Request-Id", "").startswith(_CANARY):  # no faults of requests, and no record
            return await self._answer(request, await request.read(), chat, Ticket(0, request.path, 0.0))
        self._requests += 1
        ticket = Ticket(self._requests, request.path, time.perf_counter())
        raw = await request.read()
        self._recorder.arrived(ticket.number, request.path, dict(request.headers), raw)
        aborted = True
        try:
            response = await self._answer(request, raw, chat, ticket)
            ticket.status = response.status
            aborted = False
            return response
        except RequestError as error:
            ticket.status = error.status
            aborted = False
            raise
        except EngineDeadError:
            aborted = False
            self._core_died()
            raise _DEAD from None
        finally:
            self._recorder.finished(
                ticket.number,
                ticket.path,
                request_id=ticket.request_id,
                status=ticket.status,
                aborted=aborted,
                output_tokens=sum(len(o.ids) for o in ticket.outputs),
                kv_bytes=sum(o.kv_bytes for o in ticket.outputs),
                seconds=time.perf_counter() - ticket.started_s,
            )

    async def _answer(self, request: web.Request, raw: bytes, chat: bool, ticket: Ticket) -> web.StreamResponse:
        if self._engine.control.read().stuck:
            await asyncio.Event().wait()
        if ticket.number:
            await self._misbehave(ticket.number)
        name = request.headers.get("X-Request-Id") or secrets.token_hex(8)
        ticket.request_id = f"{'chatcmpl' if chat else 'cmpl'}-{name}"
        job = understand(parse_body(raw), chat, self._engine.config, ticket.request_id)
        ticket.outputs = [Output(prompt, []) for prompt in job.prompts for _ in range(job.n)]
        if job.stream:
            return await self._stream(request, job, ticket.outputs)
        for output in ticket.outputs:
            async for _ in self._engine.run(job, output.prompt, output):
                pass
        kv = next((o.kv for o in ticket.outputs if o.kv), None)
        return _json(shapes.whole(job, [(o.prompt, o.ids) for o in ticket.outputs], kv))

    async def _misbehave(self, number: int) -> None:
        knobs = self._engine.control.read()
        if number == knobs.crash_on_request:
            self._crash()
        if number == knobs.hang_on_request:
            await asyncio.Event().wait()
        if knobs.fail_status and (knobs.fail_first is None or number <= knobs.fail_first):
            kind = "InternalServerError" if knobs.fail_status >= 500 else "BadRequestError"
            raise RequestError("The fake engine was told to fail.", status=knobs.fail_status, kind=kind)

    async def _stream(self, request: web.Request, job: Job, outputs: list[Output]) -> web.StreamResponse:
        """Server-sent events. The status goes out before the first token, so whatever fails then is an event."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for index, output in enumerate(outputs):
            try:
                await self._stream_one(response, job, index, output)
            except (RequestError, EngineDeadError) as error:
                if isinstance(error, EngineDeadError):
                    self._core_died()
                if job.chat and not output.ids:
                    await _event(response, shapes.role_chunk(job, index, output.prompt))
                await _event(response, (error if isinstance(error, RequestError) else _DEAD).body())
                break
        else:
            if job.usage:
                await _event(response, shapes.usage_chunk(job, sum(len(o.ids) for o in outputs)))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _stream_one(self, response: web.StreamResponse, job: Job, index: int, output: Output) -> None:
        async with contextlib.aclosing(self._engine.run(job, output.prompt, output)) as stream:
            async for _ in stream:
                if job.chat and len(output.ids) == 1:
                    await _event(response, shapes.role_chunk(job, index, output.prompt))
                last = len(output.ids) == job.max_tokens
                await _event(response, shapes.token_chunk(job, index, output.prompt, output.ids, last))


async def _event(response: web.StreamResponse, value: dict[str, Any]) -> None:
    await response.write(b"data: " + _dump(value) + b"\n\n")


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=_dump(value), status=status, content_type="application/json")


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
