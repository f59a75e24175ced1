"""Health of workers that no supervisor watches: those given by URL on the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from dynctl.frontend.messages import WorkerEntry, WorkerTable
from dynctl.http.call import ClientError
from dynctl.http.client import Client
from dynctl.http.origin import parse_origin

_EVERY_S = 1.0
_TIMEOUT_S = 2.0
_FAILURES_UNTIL_DOWN = 2


class Prober:
    """Asks each worker's `/health` every second. One good answer makes it ready, two bad ones in a row take it out."""

    def __init__(
        self,
        urls: Mapping[str, Sequence[str]],
        client: Client,
        on_table: Callable[[WorkerTable], None],
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._entries = [
            WorkerEntry(id=f"{role}-{number}", role=_role(role), url=url.rstrip("/"), state="down")
            for role, given in urls.items()
            for number, url in enumerate(given)
        ]
        self._expected = {role: len(given) for role, given in urls.items() if given}
        self._origins = {entry.id: parse_origin(entry.url) for entry in self._entries}
        self._failures = {entry.id: _FAILURES_UNTIL_DOWN for entry in self._entries}
        self._client = client
        self._on_table = on_table
        self._every_s = every_s
        self._told: WorkerTable | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(self._every_s)

    async def probe(self) -> None:
        """Ask every worker once; tell the table when it changed, and the first time."""
        await asyncio.gather(*(self._ask(entry) for entry in self._entries))
        table = WorkerTable(
            workers=tuple(
                WorkerEntry(
                    id=entry.id,
                    role=entry.role,
                    url=entry.url,
                    state="down" if self._failures[entry.id] >= _FAILURES_UNTIL_DOWN else "ready",
                )
                for entry in self._entries
            ),
            expected=self._expected,
        )
        if table != self._told:
            self._told = table
            self._on_table(table)

    async def _ask(self, entry: WorkerEntry) -> None:
        try:
            answer = await self._client.fetch(self._origins[entry.id], "GET", b"/health", [], b"", timeout_s=_TIMEOUT_S)
        except ClientError:
            self._failures[entry.id] += 1
            return
        self._failures[entry.id] = 0 if answer.status < 500 else self._failures[entry.id] + 1


def _role(role: str) -> Literal["prefill", "decode", "worker"]:
    if role == "prefill":
        return "prefill"
    return "decode" if role == "decode" else "worker"
