"""Middleware of vLLM's API server between nodes: run under the engine's own interpreter, which need not have dynctl.

vLLM asks for its key under /v1, /v2, /inference and /cohere only; /invocations generates without it
(vllm/entrypoints/serve/middleware/authenticate.py and serve/sagemaker/api_router.py, 0.32).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

OPEN = frozenset({"/health", "/metrics"})


class RequireKey:
    """Answers 401 to whatever comes without the key of the environment, but for what tells only how the engine is."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._expected = b"Bearer " + os.environ["VLLM_API_KEY"].encode()  # no key: no start

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """One request, or the server's own start and end."""
        if scope["type"] == "lifespan" or scope.get("path") in OPEN or self._known(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            head = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": head})
            await send({"type": "http.response.body", "body": b'{"error":"Unauthorized"}'})

    def _known(self, scope: dict[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)
