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
        self.add(specs)

    def add(self, specs: Iterable[ProcessSpec]) -> None:
        """More processes. Where they come to one turn only, it is that one, with whoever has it just now."""
        for spec in specs:
            linked = [self._turns[name] for name in (spec.id, *spec.after) if name in self._turns]
            members = {spec.id, *spec.after}.union(*(other.members for other in linked))
            turn = linked[0] if len(set(linked)) == 1 else _Turn()
            turn.members = members
            self._turns.update(dict.fromkeys(members, turn))

    def drop(self, process_id: str) -> None:
        """That process is gone."""
        if turn := self._turns.pop(process_id, None):
            turn.members.discard(process_id)

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
    def __init__(self) -> None:
        self.members: set[str] = set()
        self.lock = asyncio.Lock()
        self.holder: str | None = None
