"""Token ids of a prompt, from the engine's own tokenizer."""

from __future__ import annotations

import msgspec

from dynctl.frontend.body import Fields
from dynctl.frontend.routing import Worker
from dynctl.http.call import ClientError
from dynctl.http.client import Client
from dynctl.http.message import Headers

_WAIT_S = 1.0
"""A tokenizer that takes longer costs more than a cache is worth."""
_CHAT = (
    *("model", "messages", "tools", "add_generation_prompt", "continue_final_message", "add_special_tokens"),
    *("chat_template", "chat_template_kwargs", "mm_processor_kwargs"),
)
_PLAIN = ("model", "prompt", "add_special_tokens")


class _Reply(msgspec.Struct):
    tokens: list[int]


_REPLY = msgspec.json.Decoder(_Reply)
_IDS = msgspec.json.Decoder(list[int])


class Tokenizer:
    """Asks a worker's /tokenize."""

    def __init__(self, client: Client, engine_headers: Headers) -> None:
        self._client = client
        self._headers: Headers = [*engine_headers, (b"content-type", b"application/json")]

    async def ids(self, worker: Worker, fields: Fields) -> list[int] | None:
        """The prompt's tokens; None where they can't be had, or the request's cache is kept apart by a salt."""
        if "cache_salt" in fields:
            return None
        given = bytes(fields.get("prompt", b"")).lstrip()
        try:
            if given.startswith(b"["):
                return _IDS.decode(given)
            names = _CHAT if "messages" in fields else _PLAIN
            body = msgspec.json.encode({name: fields[name] for name in names if name in fields})
            reply = await self._client.fetch(
                worker.origin, "POST", b"/tokenize", self._headers, body, timeout_s=_WAIT_S
            )
            return _REPLY.decode(reply.body).tokens if reply.status == 200 else None
        except (ClientError, msgspec.DecodeError, RecursionError):
            return None
