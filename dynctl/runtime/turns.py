"""Who may start when: processes that share a device, linked by `after`, load one at a time, at first and again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from dynctl.engines.spec import ProcessSpec
from dynctl.runtime.managed import Managed


class Turns:
    """A turn for every set of processes that `after` links, however indirectly."""

    def __init__(self, specs: Iterable[ProcessSpec]) -> None:
        self._turns: dict[str, _Turn] = {}
        for spec in specs:
            linked = [self._turns[name] for name in (spec.id, *spec.after) if name in self._turns]
            turn = _Turn({spec.id, *spec.after}.union(*(other.members for other in linked)))
            self._turns.update(dict.fromkeys(turn.members, turn))

    @contextlib.asynccontextmanager
    async def taken(self, process: Managed) -> AsyncIterator[None]:
        """Waits until none that it is linked with is starting. Who is down does not hold up the others."""
        turn = self._turns[process.id]
        if turn.holder:
            process.wait_for(turn.holder)
        async with turn.lock:
            turn.holder = process.id
            try:
                yield
            finally:
                turn.holder = None


class _Turn:
    def __init__(self, members: set[str]) -> None:
        self.members = members
        self.lock = asyncio.Lock()
        self.holder: str | None = None
