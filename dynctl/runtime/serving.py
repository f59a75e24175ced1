"""Which processes answer: their own gates (health, model) are open. Others wait for one to come, or to go."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator


class Serving(Collection[str]):
    """A set of process ids of the plan."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._here = {process: asyncio.Event() for process in ids}
        self._gone = {process: asyncio.Event() for process in self._here}
        for gone in self._gone.values():
            gone.set()

    def __contains__(self, process: object) -> bool:
        return isinstance(process, str) and process in self._here and self._here[process].is_set()

    def __iter__(self) -> Iterator[str]:
        return (process for process, here in self._here.items() if here.is_set())

    def __len__(self) -> int:
        return sum(here.is_set() for here in self._here.values())

    def follow(self, ids: Iterable[str]) -> None:
        """The plan names these processes now."""
        named = set(ids)
        for gone in self._here.keys() - named:
            self.discard(gone)
            del self._here[gone], self._gone[gone]
        for fresh in named - self._here.keys():
            self._here[fresh], self._gone[fresh] = asyncio.Event(), asyncio.Event()
            self._gone[fresh].set()

    def add(self, process: str) -> None:
        """Its own gates are open."""
        self._gone[process].clear()
        self._here[process].set()

    def discard(self, process: str) -> None:
        """It answers no longer. One that the plan no longer names is passed over."""
        if process in self._here:
            self._here[process].clear()
            self._gone[process].set()

    async def come(self, process: str) -> None:
        """Returns once it serves."""
        await self._here[process].wait()

    async def go(self, process: str) -> None:
        """Returns once it does not."""
        await self._gone[process].wait()
