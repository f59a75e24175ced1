"""A steady load of streams whose every answer is known beforehand, each client with a deadline of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

SERVED, REFUSED, CUT, BROKEN = "served", "refused", "cut", "broken"
SILENT, WRONG, HUNG = "silent", "wrong", "hung"
CLEAN = (REFUSED, CUT, BROKEN)
"""An error answer, an SSE error, a connection that breaks: the client knows that it failed."""
UNCLEAN = (SILENT, WRONG, HUNG)
"""A stream that ends early as if it were whole, other tokens, nothing by the deadline."""


@dataclass
class Tally:
    """What became of requests. `early`: failures before the first token; `examples`: what some failures said."""

    kinds: Counter[str] = field(default_factory=Counter)
    early: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, kind: str, *, begun: bool, said: str = "") -> None:
        """One more request."""
        self.kinds[kind] += 1
        if kind != SERVED:
            self.early += not begun
            if len(self.examples) < 5:
                self.examples.append(f"{kind}{' after its first token' if begun else ''}: {said[:160]}")

    @property
    def sent(self) -> int:
        """All of them."""
        return self.kinds.total()

    def count(self, kinds: tuple[str, ...]) -> int:
        """Those of these kinds."""
        return sum(self.kinds[kind] for kind in kinds)


class Load:
    """`clients` streams at a time, in a thread of their own, until `stop`."""

    def __init__(
        self,
        url: str,
        prompts: Callable[[int], tuple[str, str]],
        *,
        clients: int,
        max_tokens: int,
        deadline_s: float,
        pause_s: float = 0.05,
        salt: Callable[[], str] = str,
    ) -> None:
        self._url, self._prompts, self._clients = f"{url}/v1/completions", prompts, clients
        self._max_tokens, self._deadline_s, self._salt, self._pause_s = max_tokens, deadline_s, salt, pause_s
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.tally = Tally()

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> Tally:
        """Sends no more, and waits for what is under way."""
        self._over.set()
        self._thread.join(self._deadline_s + 10)
        return self.tally

    async def _run(self) -> None:
        # a connection for each request: a kept one that the server has closed would count as a failure of ours
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(trust_env=False, timeout=self._deadline_s, limits=limits) as client:
            await asyncio.gather(*(self._client(client) for _ in range(self._clients)))

    async def _client(self, client: httpx.AsyncClient) -> None:
        while not self._over.is_set():
            await self._ask(client)
            await asyncio.sleep(self._pause_s)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        prompt, expected = self._prompts(next(self._numbers))
        got: list[str] = []
        try:
            async with asyncio.timeout(self._deadline_s):
                kind, said = await self._stream(client, prompt, expected, got)
        except TimeoutError:
            kind, said = HUNG, f"no end within {self._deadline_s:g} s"
        except httpx.TimeoutException as error:
            kind, said = HUNG, repr(error)
        except httpx.HTTPError as error:
            kind, said = BROKEN, repr(error)
        self.tally.add(kind, begun=bool("".join(got)), said=said)

    async def _stream(self, client: httpx.AsyncClient, prompt: str, expected: str, got: list[str]) -> tuple[str, str]:
        body = {"model": "fake", "prompt": prompt, "max_tokens": self._max_tokens, "temperature": 0, "stream": True}
        if salt := self._salt():
            body["cache_salt"] = salt
        async with client.stream("POST", self._url, json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                return (REFUSED if '"error"' in text else SILENT), f"{response.status_code} {text}"
            async for line in response.aiter_lines():
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    text = "".join(got)
                    return (SERVED, "") if text == expected else (WRONG, f"{text!r}, not {expected!r}")
                if not line.startswith("data: "):
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    return CUT, data
                got.extend(choice["text"] for choice in chunk["choices"])
        return SILENT, f"ended without [DONE] after {''.join(got)!r}"
