"""The smallest disaggregated proxy, as vLLM's example is made: Starlette, httpx, uvicorn. A peer to measure against.

usage: starlette_proxy.py PORT PREFILL_URL DECODE_URL
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

PARAMS = {"do_remote_decode": True, "do_remote_prefill": False}
PARAMS |= dict.fromkeys(["remote_engine_id", "remote_block_ids", "remote_host", "remote_port"])
prefill, decode = (
    httpx.AsyncClient(base_url=url, timeout=300, limits=httpx.Limits(max_connections=None)) for url in sys.argv[2:4]
)


async def chat(request: Request) -> Response:
    """Both legs."""
    body = await request.json()
    first = {**body, "stream": False, "max_tokens": 1, "kv_transfer_params": PARAMS}
    first.pop("stream_options", None)
    kept = (await prefill.post("/v1/chat/completions", json=first)).json()
    second = {**body, "kv_transfer_params": kept["kv_transfer_params"]}

    async def events() -> AsyncIterator[bytes]:
        async with decode.stream("POST", "/v1/chat/completions", json=second) as answer:
            async for part in answer.aiter_bytes():
                yield part

    return StreamingResponse(events(), media_type="text/event-stream")


async def health(request: Request) -> Response:
    """That it runs."""
    return Response("ok")


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False, backlog=4096)
